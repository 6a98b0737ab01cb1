"""The same calls over gRPC to a real Triton and to Trivet get the same status, message and responses.

One connection per server carries all cases, good and bad: what one call does wrong must not cost the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.message import Message
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb
from trivet_protocol_kserve_v2.proto.health_pb2 import HealthCheckResponse

from .cases_grpc import CASES
from .cases_grpc.case import SERVICE, Call, Case, infer, request, tensor
from .differences import DIFFERENCES
from .messages import comparable
from .pairs import Endpoints


class Answer(NamedTuple):
    """What is compared of a call."""

    code: str
    details: str
    messages: list[Message]


class Client:
    """One connection, kept."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def send(self, call: Call) -> Answer:
        path = call.method if call.method.startswith("/") else SERVICE + call.method
        received: list[Message] = []
        try:
            if call.method == "ModelStreamInfer":
                responses = self._channel.stream_stream(path)(iter(call.payloads), metadata=call.metadata, timeout=60)
            else:
                responses = self._channel.unary_stream(path)(call.payloads[0], metadata=call.metadata, timeout=60)
            received.extend(map(_decoder(call.method), responses))
        except grpc.RpcError as error:
            return Answer(error.code().name, comparable(error.details()), received)
        return Answer("OK", "", received)

    def close(self) -> None:
        self._channel.close()


def _decoder(method: str) -> Callable[[bytes], Message]:
    if method.startswith("/"):
        return HealthCheckResponse.FromString
    kind = getattr(pb, f"{method.removesuffix('Request')}Response")

    def decode(payload: bytes) -> Message:
        message = kind.FromString(payload)
        if isinstance(message, pb.ModelStreamInferResponse):
            message.error_message = comparable(message.error_message)
        if isinstance(message, pb.ModelStatisticsResponse):
            _forget_numbers(message)
        return message

    return decode


def _forget_numbers(message: pb.ModelStatisticsResponse) -> None:
    """Both were asked the same, but their histories differ: a case that Triton refuses later counts as a failure."""
    for stats in message.model_stats:
        for field in ("last_inference", "inference_count", "execution_count", "batch_stats", "response_stats"):
            stats.ClearField(field)
        for _, duration in stats.inference_stats.ListFields():
            duration.Clear()


@pytest.fixture(scope="module")
def clients(real_triton: Endpoints, trivet: Endpoints) -> Iterator[tuple[Client, Client]]:
    both = Client(real_triton.grpc), Client(trivet.grpc)
    yield both
    for client in both:
        client.close()


@pytest.mark.differential
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_answer(case: Case, clients: tuple[Client, Client]) -> None:
    triton, trivet = clients
    answers = [(triton.send(call), trivet.send(call)) for call in case.calls]
    if not case.difference:
        for call, (theirs, ours) in zip(case.calls, answers, strict=True):
            assert ours == theirs, f"{call.method}\nTriton: {theirs}\nTrivet: {ours}"
    else:
        assert case.difference in DIFFERENCES
        same = all(theirs == ours for theirs, ours in answers)
        assert not same, f"the answers agree by now: take the difference '{case.difference}' off"
        assert all(ours.code != "UNKNOWN" for _, ours in answers)


def test_what_ends_the_real_one(trivet: Endpoints) -> None:
    scores: Any = tensor("SCORES", "FP32", [1, 4], [1, 2, 3, 4])
    client = Client(trivet.grpc)
    answer = client.send(infer(request("classes", scores, outputs={"NAMES": {"classification": 1}})))
    client.close()
    assert answer == Answer(
        "INVALID_ARGUMENT", "class result not available for output due to unsupported type 'BYTES'", []
    )


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_every_difference_is_shown_by_a_case() -> None:
    # What ends the real one cannot be compared; plugins/protocol_kserve_v2/tests/grpc shows what Trivet does.
    shown = {case.difference for case in CASES} | {"classes of text", "refusal ends the call"}
    assert {name for name, difference in DIFFERENCES.items() if difference.transport == "gRPC"} <= shown
