"""Responses into the bytes of ``ModelInferResponse`` and ``ModelStreamInferResponse`` messages. No I/O.

Source: the service's ``grpc_service.proto``; for what it leaves open, the replies of Triton's gRPC front end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError
from trivet.inference import InferenceRequest, InferenceResponse, ParameterValue
from trivet.memory import RegionSlice, place
from trivet.tensor import Buffer

from trivet_protocol_kserve_v2.codec.classification import classified
from trivet_protocol_kserve_v2.codec.protobuf_wire import append_field, byte_size, tag, varint
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    InferParameter,
    ModelInferResponse,
    ModelStreamInferResponse,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import MessageMap

MAX_MESSAGE_SIZE = 2**31 - 1
"""Bytes in one gRPC message; the limit that Triton and its clients set."""

_RAW_OUTPUT = tag(ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number)
_INFER_RESPONSE = tag(ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number)
_FINAL = "triton_final_response"
_NO_REGIONS: Mapping[str, RegionSlice] = {}


def encode_response(request: InferenceRequest, response: InferenceResponse) -> bytes:
    """A ``ModelInferResponse`` with raw output contents; large outputs are copied once.

    ``request`` is one that the engine accepted; outputs that have one of its ``regions`` are put there. Raises
    :class:`~trivet.errors.InvalidArgumentError` where the message would exceed :data:`MAX_MESSAGE_SIZE`, or a
    classification cannot be made.
    """
    parts, _ = _response_parts(request, response, response.parameters)
    return b"".join(parts)


def encode_stream_response(request: InferenceRequest, response: InferenceResponse) -> bytes:
    """A ``ModelStreamInferResponse`` for a response that is not an error. Raises as :func:`encode_response` does."""
    parameters = {**response.parameters, _FINAL: response.final}
    parts, size = _response_parts(request, response, parameters)
    return b"".join((_INFER_RESPONSE, varint(size), *parts))


def _response_parts(
    request: InferenceRequest,
    response: InferenceResponse,
    parameters: Mapping[str, ParameterValue],
) -> tuple[list[Buffer], int]:
    """A ``ModelInferResponse`` in parts that are not joined yet, and its size in bytes."""
    model = request.model
    assert model is not None
    place(request, response)
    regions = request.regions or _NO_REGIONS
    message = ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request.id)
    if parameters:
        _encode_parameters(message.parameters, parameters)
    outputs = response.outputs if request.outputs is None else classified(request, response.outputs)
    add = message.outputs.add
    for tensor in outputs:
        add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)
    parts: list[Buffer] = [message.SerializeToString()]
    for tensor in outputs:
        append_field(parts, _RAW_OUTPUT, b"" if tensor.name in regions else tensor.wire())
    size = sum(map(byte_size, parts))
    if size > MAX_MESSAGE_SIZE:
        raise InvalidArgumentError(
            f"Response has byte size {size} which exceeds gRPC's byte size limit {MAX_MESSAGE_SIZE}."
        )
    return parts, size


def encode_stream_error(request: InferenceRequest, message: str, *, final: bool) -> bytes:
    """A ``ModelStreamInferResponse`` for a response that is an error. It names the model as the caller did."""
    answer = ModelStreamInferResponse(error_message=message)
    _identify(answer.infer_response, request, final=final)
    return answer.SerializeToString()


def encode_stream_end(request: InferenceRequest) -> bytes:
    """The ``ModelStreamInferResponse`` that only says that a decoupled model has answered for the last time."""
    answer = ModelStreamInferResponse()
    _identify(answer.infer_response, request, final=True)
    return answer.SerializeToString()


def encode_stream_refusal(id: str, message: str) -> bytes:
    """A ``ModelStreamInferResponse`` for a request that never reached a model."""
    return ModelStreamInferResponse(error_message=message, infer_response={"id": id}).SerializeToString()


def _identify(answer: ModelInferResponse, request: InferenceRequest, *, final: bool) -> None:
    answer.model_name = request.model_name
    answer.model_version = request.model_version
    answer.id = request.id
    answer.parameters[_FINAL].bool_param = final


def _encode_parameters(target: MessageMap[str, InferParameter], parameters: Mapping[str, ParameterValue]) -> None:
    for key, value in parameters.items():
        # bool first: it is an int too.
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int):
            target[key].int64_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        else:
            target[key].string_param = value
