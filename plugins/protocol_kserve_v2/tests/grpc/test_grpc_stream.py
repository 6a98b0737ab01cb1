"""``ModelStreamInfer`` over real sockets, on both servers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from trivet.testing import RunningServer
from trivet_protocol_kserve_v2.codec.protobuf_request import parse_request
from trivet_protocol_kserve_v2.grpc import stream
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb

from .models import GATE
from .rpc import Rpc, int32, request

EMPTY_FINAL = "triton_enable_empty_final_response"


@pytest.fixture
def rpc(server: RunningServer) -> Iterator[Rpc]:
    with Rpc(server.grpc_url) as connected:
        yield connected


def repeat(*values: int, id: str = "", empty_final: bool = False) -> pb.ModelInferRequest:
    message: pb.ModelInferRequest = request("repeat", id=id, IN=int32(*values))
    if empty_final:
        message.parameters[EMPTY_FINAL].bool_param = True
    return message


def brief(message: pb.ModelStreamInferResponse) -> tuple[str, Any, bool | None]:
    """(id, value or error, final) of a response."""
    answer = message.infer_response
    final = answer.parameters["triton_final_response"].bool_param if answer.parameters else None
    if message.error_message:
        return answer.id, message.error_message, final
    value = int(np.frombuffer(answer.raw_output_contents[0], np.int32)[0]) if answer.outputs else None
    return answer.id, value, final


class Open:
    """A stream to which requests are sent one by one, and from which responses are taken when wanted."""

    def __init__(self, rpc: Rpc, **arguments: Any) -> None:
        self._requests: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
        self.call: Any = rpc.stream(iter(self._requests.get, None), **arguments)

    def send(self, message: pb.ModelInferRequest) -> None:
        self._requests.put(message)

    def receive(self) -> tuple[str, Any, bool | None]:
        return brief(next(self.call))

    def finish(self) -> list[tuple[str, Any, bool | None]]:
        self._requests.put(None)
        return list(map(brief, self.call))


def test_requests_and_their_answers(rpc: Rpc) -> None:
    answers = rpc.stream([request("gate", id="a", IN=int32(1)), request("gate", id="b", IN=int32(2))])

    assert list(map(brief, answers)) == [("a", 1, True), ("b", 2, True)]


def test_answers_come_in_the_order_of_their_requests(rpc: Rpc) -> None:
    opened = Open(rpc)
    opened.send(request("gate", id="a", IN=int32(1101)))
    opened.send(request("gate", id="b", IN=int32(2)))
    opened.send(request("gate", id="c", IN=int32(-3)))
    opened.send(request("nope", id="d"))
    GATE.request(1101)
    # The others are answered, or refused, long before this one.
    GATE.open(1101)

    assert opened.finish() == [
        ("a", 1101, True),
        ("b", 2, True),
        ("c", "negative value -3", True),
        ("d", "Request for unknown model: 'nope' is not found", None),
    ]


def test_a_decoupled_model_waits_for_nobody(rpc: Rpc) -> None:
    opened = Open(rpc)
    opened.send(request("gate", id="a", IN=int32(1102)))
    opened.send(repeat(1, 2, id="r"))

    assert [opened.receive(), opened.receive()] == [("r", 1, False), ("r", 2, False)]
    GATE.open(1102)
    assert opened.finish() == [("a", 1102, True)]


def test_each_response_of_a_decoupled_model_goes_out_when_it_is_made(rpc: Rpc) -> None:
    opened = Open(rpc)
    opened.send(repeat(1, 1103, 2, id="r"))

    assert opened.receive() == ("r", 1, False)
    GATE.open(1103)
    assert opened.receive() == ("r", 1103, False)
    assert opened.finish() == [("r", 2, False)]


@pytest.mark.parametrize(
    ("values", "empty_final", "answers"),
    [
        ((1, 2), False, [("r", 1, False), ("r", 2, False)]),
        ((1, 2), True, [("r", 1, False), ("r", 2, False), ("r", None, True)]),
        ((), False, []),
        ((), True, [("r", None, True)]),
        ((1, -2, 3), False, [("r", 1, False), ("r", "negative element -2", False), ("r", 3, False)]),
    ],
)
def test_any_number_of_responses(
    rpc: Rpc, values: tuple[int, ...], empty_final: bool, answers: list[tuple[str, Any, bool]]
) -> None:
    assert list(map(brief, rpc.stream([repeat(*values, id="r", empty_final=empty_final)]))) == answers


def test_an_empty_final_response_names_the_model_as_the_caller_did(rpc: Rpc) -> None:
    (answer,) = rpc.stream([repeat(id="r", empty_final=True)])

    assert answer == pb.ModelStreamInferResponse(
        infer_response={
            "model_name": "repeat",
            "id": "r",
            "parameters": {"triton_final_response": {"bool_param": True}},
        }
    )


def test_a_refusal_says_only_whose_it_is_and_the_stream_goes_on(rpc: Rpc) -> None:
    wrong = repeat(1, id="q", empty_final=True)
    wrong.raw_input_contents[0] = b"\x00"

    refused, answer = rpc.stream([wrong, repeat(5, id="r")])

    assert refused == pb.ModelStreamInferResponse(
        error_message=("[request id: q] input byte size mismatch for input 'IN' for model 'repeat'. Expected 4, got 1"),
        infer_response={"id": "q"},
    )
    assert brief(answer) == ("r", 5, False)


@pytest.mark.parametrize(
    ("wrong", "code", "details"),
    [
        (request("gate", IN=int32(-1)), grpc.StatusCode.INTERNAL, "negative value -1"),
        (request("nope"), grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'nope' is not found"),
        (repeat(-2), grpc.StatusCode.INTERNAL, "negative element -2"),
    ],
)
def test_an_error_ends_the_call_where_the_client_wants_that(
    rpc: Rpc, wrong: pb.ModelInferRequest, code: grpc.StatusCode, details: str
) -> None:
    opened = Open(rpc, metadata=[("triton_grpc_error", "true")])
    opened.send(request("gate", id="a", IN=int32(1)))
    assert opened.receive() == ("a", 1, True)
    opened.send(wrong)

    with pytest.raises(grpc.RpcError) as caught:
        opened.receive()

    assert (caught.value.code(), caught.value.details()) == (code, details)


def test_a_stream_without_requests(rpc: Rpc) -> None:
    assert list(rpc.stream([])) == []


def test_bytes_that_are_no_message_end_the_call(rpc: Rpc) -> None:
    call = rpc.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")

    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff\xff"]), timeout=20))

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "Unable to parse request")


def test_many_in_flight(rpc: Rpc) -> None:
    requests = (request("gate", id=str(number), IN=int32(number)) for number in range(999))

    answers = list(map(brief, rpc.stream(requests)))

    assert answers == [(str(number), number, True) for number in range(999)]


def test_cancelling_the_stream_cancels_its_requests(rpc: Rpc) -> None:
    opened = Open(rpc)
    opened.send(request("gate", IN=int32(1104)))
    opened.send(repeat(1105))
    GATE.request(1104)
    GATE.request(1105)

    opened.call.cancel()

    assert GATE.cancelled(1104)
    assert GATE.cancelled(1105)


def test_a_deadline_that_passes_cancels_its_requests(rpc: Rpc) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(rpc.stream([request("gate", IN=int32(1106))], timeout=0.3))

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert GATE.cancelled(1106)


@pytest.mark.parametrize("later", [1107, 1, -1], ids=["in flight", "answered", "failed"])
def test_no_more_requests_are_read_than_may_be_pending(rpc: Rpc, monkeypatch: pytest.MonkeyPatch, later: int) -> None:
    """Also where later ones have their responses, which wait for that of the first."""
    read = threading.Semaphore(0)

    def counted(payload: bytes) -> Any:
        read.release()
        return parse_request(payload)

    monkeypatch.setattr(stream, "MAX_PENDING", 4)
    monkeypatch.setattr(stream, "parse_request", counted)
    opened = Open(rpc)
    for number in range(20):
        opened.send(request("gate", id=str(number), IN=int32(later if number else 1107)))

    assert all(read.acquire(timeout=20) for _ in range(4))
    assert not read.acquire(timeout=0.2)
    GATE.open(1107)
    assert len(opened.finish()) == 20


def test_the_client_with_callbacks(client: triton.InferenceServerClient) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    entry = triton.InferInput("IN", [3], "INT32")
    entry.set_data_from_numpy(int32(1, -2, 3))

    client.async_stream_infer("repeat", [entry], request_id="r", enable_empty_final_response=True)
    (one, _), (_, two), (three, _), (end, _) = (answers.get(timeout=20) for _ in range(4))
    client.stop_stream()

    assert one.as_numpy("OUT").tolist() == [1]
    assert "negative element -2" in str(two)
    assert three.as_numpy("OUT").tolist() == [3]
    assert end.get_response().parameters["triton_final_response"].bool_param


def test_stopping_the_client_with_cancellation(client: triton.InferenceServerClient) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    entry = triton.InferInput("IN", [1], "INT32")
    entry.set_data_from_numpy(int32(1108))
    client.async_stream_infer("gate", [entry])
    GATE.request(1108)

    client.stop_stream(cancel_requests=True)

    assert GATE.cancelled(1108)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_the_client_on_asyncio(server: RunningServer) -> None:
    entry = triton_aio.InferInput("IN", [2], "INT32")
    entry.set_data_from_numpy(int32(1, 2))

    async def requests() -> Any:
        yield {"model_name": "repeat", "inputs": [entry], "request_id": "r"}

    async with triton_aio.InferenceServerClient(server.grpc_url) as client:
        answers = [(result, error) async for result, error in client.stream_infer(requests())]

    assert [error for _, error in answers] == [None, None]
    assert [result.as_numpy("OUT").tolist() for result, _ in answers] == [[1], [2]]


def test_a_server_that_stops_ends_open_streams_when_they_are_answered(
    serve: Callable[..., Any], grpc_server: str
) -> None:
    with serve(grpc_server=grpc_server) as server, Rpc(server.grpc_url) as rpc:
        idle = Open(rpc)
        idle.send(request("gate", id="a", IN=int32(1)))
        assert idle.receive() == ("a", 1, True)
        busy = Open(rpc)
        busy.send(request("gate", id="b", IN=int32(1110)))
        GATE.request(1110)

        with ThreadPoolExecutor(1) as thread:
            server.call(server.engine.begin_drain)
            stopped = thread.submit(server.call, server.server.stop, 60.0)
            GATE.open(1110)
            assert busy.receive() == ("b", 1110, True)
            for opened in (idle, busy):
                with pytest.raises(grpc.RpcError) as caught:
                    opened.receive()
                assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, stream.STOPPING)
            assert stopped.result(20) == 0


def test_two_streams_do_not_wait_for_each_other(rpc: Rpc) -> None:
    waiting = Open(rpc)
    waiting.send(request("gate", IN=int32(1109)))
    GATE.request(1109)
    answered = threading.Event()

    def other() -> None:
        if list(map(brief, rpc.stream([request("gate", id="b", IN=int32(2))]))) == [("b", 2, True)]:
            answered.set()

    threading.Thread(target=other).start()

    assert answered.wait(20)
    GATE.open(1109)
    assert waiting.finish() == [("", 1109, True)]


def test_an_error_of_any_text_goes_to_its_request(rpc: Rpc) -> None:
    (answer,) = rpc.stream(iter([request("moan", id="a", IN=int32(2))]))
    assert brief(answer) == ("a", "\\ud800 éé", True)
