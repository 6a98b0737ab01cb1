"""The protobuf codec alone: responses into messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from host_regions import HostRegions
from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest, InferenceResponse, RequestedOutput
from trivet.tensor import Tensor
from trivet_protocol_kserve_v2.codec import protobuf_response
from trivet_protocol_kserve_v2.codec.protobuf_request import decode_request, parse_request
from trivet_protocol_kserve_v2.codec.protobuf_response import (
    encode_response,
    encode_stream_end,
    encode_stream_error,
    encode_stream_refusal,
    encode_stream_response,
)
from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)


def request(**arguments: Any) -> InferenceRequest:
    request = InferenceRequest("m", {}, id="7", **arguments)
    # Only what identifies a model is read.
    request.model = SimpleNamespace(name="m", version=3, spec=SimpleNamespace(max_batch_size=0), labels={})  # type: ignore[assignment]
    return request


def test_a_response() -> None:
    outputs = [
        Tensor.from_numpy("x", np.arange(4, dtype=np.int16).reshape(2, 2)),
        Tensor.from_numpy("s", np.array([b"a", b""], np.object_)),
        Tensor.from_numpy("e", np.empty((0, 3), np.float32)),
    ]
    parameters = {"flag": True, "count": -7, "ratio": 0.5, "text": "hello"}

    encoded = encode_response(request(), InferenceResponse(outputs, parameters=parameters))

    assert ModelInferResponse.FromString(encoded) == ModelInferResponse(
        model_name="m",
        model_version="3",
        id="7",
        parameters={
            "flag": InferParameter(bool_param=True),
            "count": InferParameter(int64_param=-7),
            "ratio": InferParameter(double_param=0.5),
            "text": InferParameter(string_param="hello"),
        },
        outputs=[
            {"name": "x", "datatype": "INT16", "shape": [2, 2]},
            {"name": "s", "datatype": "BYTES", "shape": [2]},
            {"name": "e", "datatype": "FP32", "shape": [0, 3]},
        ],
        raw_output_contents=[bytes((0, 0, 1, 0, 2, 0, 3, 0)), b"\x01\0\0\0a\0\0\0\0", b""],
    )


def test_classes_replace_the_scores() -> None:
    asking = request(outputs=[RequestedOutput("x", 2)])
    scores = Tensor.from_numpy("x", np.array([0.25, 1, 0.5], np.float32))

    message = ModelInferResponse.FromString(encode_response(asking, InferenceResponse([scores])))

    assert (message.outputs[0].datatype, list(message.outputs[0].shape)) == ("BYTES", [2])
    assert message.raw_output_contents[0] == b"\x0a\0\0\x001.000000:1\x0a\0\0\x000.500000:2"


@pytest.mark.parametrize("final", [True, False])
def test_in_a_stream(final: bool) -> None:
    response = InferenceResponse([Tensor.from_numpy("x", np.zeros(50, np.float64))], final=final)

    message = ModelStreamInferResponse.FromString(encode_stream_response(request(), response))

    assert not message.error_message
    assert message.infer_response.parameters["triton_final_response"].bool_param is final
    assert message.infer_response.raw_output_contents[0] == bytes(400)


def test_ends_and_errors_name_the_model_as_the_caller_did() -> None:
    asking = request(model_version="")
    expected = {"model_name": "m", "id": "7", "parameters": {"triton_final_response": {"bool_param": True}}}

    end = ModelStreamInferResponse.FromString(encode_stream_end(asking))
    error = ModelStreamInferResponse.FromString(encode_stream_error(asking, "no", final=True))

    assert end == ModelStreamInferResponse(infer_response=expected)
    assert error == ModelStreamInferResponse(error_message="no", infer_response=expected)


def test_a_refusal_tells_only_whose_it_is() -> None:
    message = ModelStreamInferResponse.FromString(encode_stream_refusal("7", "no"))

    assert message == ModelStreamInferResponse(error_message="no", infer_response={"id": "7"})


def test_a_message_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf_response, "MAX_MESSAGE_SIZE", 100)
    response = InferenceResponse([Tensor.from_numpy("x", np.zeros(100, np.int8))])

    with pytest.raises(InvalidArgumentError, match=r"^Response has byte size 1\d\d which exceeds gRPC's byte size"):
        encode_response(request(), response)


def test_outputs_are_put_into_a_region() -> None:
    region = bytearray(16)
    parameters = {"shared_memory_region": {"string_param": "r"}, "shared_memory_byte_size": {"int64_param": 4}}
    message = ModelInferRequest(model_name="m", outputs=[{"name": "y", "parameters": parameters}, {"name": "z"}])
    memory = SharedMemory({"system": HostRegions(r=region)})
    asked = request()
    asked.regions = decode_request(*parse_request(message.SerializeToString()), memory).request.regions
    outputs = [Tensor.from_numpy(name, np.array([1, 2, 3, 4], np.uint8)) for name in ("y", "z")]

    encoded = encode_response(asked, InferenceResponse(outputs))

    answer = ModelInferResponse.FromString(encoded)
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [("y", [4]), ("z", [4])]
    assert list(answer.raw_output_contents) == [b"", bytes((1, 2, 3, 4))]
    assert region[:4] == bytes((1, 2, 3, 4))
