"""``ModelInfer`` over real sockets, on both servers, with unmodified clients."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from trivet.errors import InvalidArgumentError
from trivet.testing import RunningServer
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb

from .models import GATE
from .rpc import Rpc, int32, request


@pytest.fixture
def rpc(server: RunningServer) -> Iterator[Rpc]:
    with Rpc(server.grpc_url) as connected:
        yield connected


def triton_input(name: str, array: np.ndarray[Any, Any]) -> triton.InferInput:
    entry = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    entry.set_data_from_numpy(array)
    return entry


def sixteen(rows: int = 1) -> np.ndarray[Any, Any]:
    return np.arange(16 * rows, dtype=np.float32).reshape(rows, 16)


def test_a_request_and_its_answer(client: triton.InferenceServerClient) -> None:
    result = client.infer("double", [triton_input("INPUT0", sixteen(3))], request_id="7")

    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("double", "1", "7")
    assert list(response.outputs[0].shape) == [3, 16]
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), sixteen(3) * 2)


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]),
        *(np.array([0, 1, 100], kind) for kind in ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]),
        np.array([b"", b"a\x00", "ä".encode()], np.object_),
        np.array([], np.float32),
        np.array([], np.object_),
    ],
    ids=str,
)
def test_every_datatype_and_none_at_all(client: triton.InferenceServerClient, array: np.ndarray[Any, Any]) -> None:
    datatype = np_to_triton_dtype(array.dtype)

    result = client.infer("echo", [triton_input(f"I_{datatype}", array)])

    returned = result.as_numpy(f"O_{datatype}")
    assert returned is not None
    np.testing.assert_array_equal(returned, array)


def test_bfloat16(rpc: Rpc) -> None:
    bits = np.array([1.5, -2, 0], np.float32).view(np.uint32) >> 16
    message = request("echo", I_BF16=bits.astype(np.uint16))
    message.inputs[0].datatype = "BF16"

    answer = rpc.call("ModelInfer", message)

    assert answer.outputs[0].datatype == "BF16"
    assert answer.raw_output_contents == message.raw_input_contents


def test_a_tensor_of_many_megabytes(client: triton.InferenceServerClient) -> None:
    array = np.random.default_rng(0).integers(0, 255, 40_000_000, np.uint8)

    result = client.infer("echo", [triton_input("I_UINT8", array)])

    np.testing.assert_array_equal(result.as_numpy("O_UINT8"), array)


def test_only_the_outputs_asked_for(rpc: Rpc) -> None:
    both = {"I_INT32": int32(1), "I_INT8": np.array([2], np.int8)}

    answer = rpc.call("ModelInfer", request("echo", outputs=["O_INT8"], **both))

    assert [output.name for output in answer.outputs] == ["O_INT8"]
    assert list(answer.raw_output_contents) == [b"\x02"]


def test_typed_contents(rpc: Rpc) -> None:
    message = pb.ModelInferRequest(model_name="echo")
    message.inputs.add(name="I_INT8", datatype="INT8", shape=[2], contents={"int_contents": [-1, 1]})

    assert list(rpc.call("ModelInfer", message).raw_output_contents) == [b"\xff\x01"]


def test_classes_with_labels(client: triton.InferenceServerClient) -> None:
    output = triton.InferRequestedOutput("OUTPUT0", class_count=2)
    scores = np.zeros((1, 16), np.float32)
    scores[0, [2, 9]] = 3, 4

    result = client.infer("double", [triton_input("INPUT0", scores)], outputs=[output])

    assert result.as_numpy("OUTPUT0").tolist() == [[b"8.000000:9", b"6.000000:2:cat"]]


def test_parameters_go_to_the_model_and_come_back(client: triton.InferenceServerClient) -> None:
    result = client.infer(
        "parameters",
        [triton_input("IN", int32(1))],
        request_id="7",
        sequence_id=5,
        sequence_start=True,
        priority=3,
        timeout=1000,
        parameters={"flag": True, "count": 2, "text": "hello"},
    )

    said = json.loads(result.as_numpy("OUT")[0])
    assert said == {
        "parameters": {"flag": True, "count": 2, "text": "hello"},
        "id": "7",
        "correlation_id": 5,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 3,
        "timeout_us": 1000,
    }
    parameters = result.get_response().parameters
    assert parameters["flag"].bool_param is True
    assert parameters["count"].int64_param == -7
    assert parameters["ratio"].double_param == 0.5
    assert parameters["text"].string_param == "hello"


ANONYMOUS = "[request id: <id_unknown>]"


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (
            request("nope", INPUT0=sixteen()),
            grpc.StatusCode.NOT_FOUND,
            "Request for unknown model: 'nope' is not found",
        ),
        (
            request("double", version="7", INPUT0=sixteen()),
            grpc.StatusCode.NOT_FOUND,
            "Request for unknown model: 'double' version 7 is not found",
        ),
        (
            request("repeat", IN=int32(1)),
            grpc.StatusCode.UNIMPLEMENTED,
            "ModelInfer RPC doesn't support models with decoupled transaction policy",
        ),
        (
            request("double", X=sixteen()),
            grpc.StatusCode.INVALID_ARGUMENT,
            "unexpected inference input 'X' for model 'double'",
        ),
        (
            request("double", outputs=["X"], INPUT0=sixteen()),
            grpc.StatusCode.INVALID_ARGUMENT,
            "unexpected inference output 'X' for model 'double'",
        ),
        (
            request("double", INPUT0=sixteen().astype(np.int32)),
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{ANONYMOUS} inference input 'INPUT0' data-type is 'INT32', but model 'double' expects 'FP32'",
        ),
        (
            request("double", id="7", INPUT0=sixteen(9)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "[request id: 7] inference request batch-size must be <= 8 for 'double'",
        ),
        (request("gate", IN=int32(-1)), grpc.StatusCode.INTERNAL, "negative value -1"),
    ],
)
def test_what_is_refused_has_tritons_status_and_words(
    rpc: Rpc, message: pb.ModelInferRequest, code: grpc.StatusCode, details: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.call("ModelInfer", message)

    assert (caught.value.code(), caught.value.details()) == (code, details)
    assert rpc.call("ModelInfer", request("double", INPUT0=sixteen())).model_name == "double"


def test_what_is_refused_does_not_stay_in_memory(rpc: Rpc) -> None:
    def errors() -> int:
        # Each would hold its request.
        return sum(type(each) is InvalidArgumentError for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = errors()
        for path in ("ModelInfer", "ModelConfig") * 5:
            with pytest.raises(grpc.RpcError):
                rpc.send(f"/inference.GRPCInferenceService/{path}", request("double", version="?").SerializeToString())
        # The last one's call may be about to end.
        assert errors() <= before + 1
    finally:
        gc.enable()


def test_an_unknown_model_is_said_before_what_else_is_wrong(rpc: Rpc) -> None:
    message = pb.ModelInferRequest(model_name="nope", inputs=[{"name": "x", "datatype": "FP32", "shape": [1]}])

    with pytest.raises(grpc.RpcError) as caught:
        rpc.call("ModelInfer", message)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_datatype_that_does_not_exist(rpc: Rpc) -> None:
    message = request("double", INPUT0=sixteen())
    message.inputs[0].datatype = "FP31"

    with pytest.raises(grpc.RpcError) as caught:
        rpc.call("ModelInfer", message)

    assert caught.value.details() == (
        f"{ANONYMOUS} inference input 'INPUT0' data-type is '<invalid>', but model 'double' expects 'FP32'"
    )


@pytest.mark.parametrize(
    "payload", [b"\xff\xff\xff", b"\x0a\x50a", b"\x0a\x02\xff\xfe", b"\x3a\xff\xff\x7f" + bytes(99_000)]
)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady"])
def test_bytes_that_are_no_message(rpc: Rpc, method: str, payload: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.send(f"/inference.GRPCInferenceService/{method}", payload)

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "Unable to parse request")


@pytest.mark.parametrize(("length", "shown"), [(2, "\\ud800 éé"), (20_000, "\\ud800 " + "é" * 1022 + "...")])
def test_an_error_of_any_text_and_length_arrives(rpc: Rpc, length: int, shown: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        rpc.call("ModelInfer", request("moan", IN=int32(length)))
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INTERNAL, shown)


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/Nope", "/no.Service/Nope"])
def test_methods_that_do_not_exist(rpc: Rpc, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.send(path, b"")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_many_at_once_on_one_connection(server: RunningServer) -> None:
    with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(16) as threads:

        def infer(number: int) -> float:
            array = np.full((1, 16), number, np.float32)
            result = client.infer("double", [triton_input("INPUT0", array)], request_id=str(number))
            assert result.get_response().id == str(number)
            return float(result.as_numpy("OUTPUT0")[0, 0])

        assert list(threads.map(infer, range(400))) == [2.0 * number for number in range(400)]


def test_the_client_with_callbacks(client: triton.InferenceServerClient) -> None:
    answered: Future[tuple[Any, Any]] = Future()

    client.async_infer(
        "double",
        [triton_input("INPUT0", sixteen())],
        callback=lambda result, error: answered.set_result((result, error)),
    )

    result, error = answered.result(20)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), sixteen() * 2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_the_client_on_asyncio(server: RunningServer) -> None:
    async with triton_aio.InferenceServerClient(server.grpc_url) as client:
        result = await client.infer("double", [triton_input("INPUT0", sixteen())])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), sixteen() * 2)
        with pytest.raises(InferenceServerException, match="unknown model: 'nope'"):
            await client.infer("nope", [triton_input("INPUT0", sixteen())])


def test_a_caller_that_cancels_cancels_its_request(rpc: Rpc) -> None:
    method = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    call = method.future(request("gate", IN=int32(1001)).SerializeToString())
    GATE.request(1001)

    call.cancel()

    assert GATE.cancelled(1001)


def test_a_deadline_that_passes_cancels_its_request(rpc: Rpc) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.call("ModelInfer", request("gate", IN=int32(1002)), timeout=0.3)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert GATE.cancelled(1002)


def test_a_connection_that_breaks_cancels_its_requests(server: RunningServer) -> None:
    rpc = Rpc(server.grpc_url)
    method = rpc.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    call = method.future(request("gate", IN=int32(1003)).SerializeToString())
    GATE.request(1003)

    rpc.channel.close()

    assert GATE.cancelled(1003)
    assert call.code() is grpc.StatusCode.CANCELLED
