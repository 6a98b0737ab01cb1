"""``ModelInferRequest`` bytes into an inference request, responses into ``ModelInferResponse`` bytes. No I/O.

Source: the service's ``grpc_service.proto``; for what it leaves open, the replies of Triton's gRPC front end, whose
messages are kept word for word where a client could match on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from trivet.datatypes import (
    BOOL,
    BY_NAME,
    BYTES,
    FP32,
    FP64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    DataType,
)
from trivet.errors import InternalError, InvalidArgumentError, NotFoundError
from trivet.inference import InferenceRequest, InferenceResponse, ParameterValue, RequestedOutput
from trivet.tensor import Buffer, Tensor, element_count, encode_bytes, object_array

from trivet_protocol_kserve_v2.codec.classification import classified
from trivet_protocol_kserve_v2.codec.protobuf_wire import append_field, byte_size, cut_field, tag, varint
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import MessageMap, RepeatedCompositeFieldContainer

MAX_MESSAGE_SIZE = 2**31 - 1
"""Bytes in one gRPC message; the limit that Triton and its clients set."""

# Below this size it is cheaper to let the message class copy the tensors than to look for them in Python.
_CUT_FROM = 32 * 1024

_INVALID = DataType("<invalid>", "TYPE_INVALID", 0, 0, np.dtype(np.void))
"""Stands for a datatype name that does not exist, so that validation can say which one was expected."""

_UINT64_MASK = 2**64 - 1
_RAW_INPUT = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUT = tag(ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number)
_INFER_RESPONSE = tag(ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number)
_EMPTY_FINAL = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"


class DecodedRequest(NamedTuple):
    """A request, and what its caller asked of the stream that it came by."""

    request: InferenceRequest
    enable_empty_final_response: bool


def parse_request(data: bytes) -> tuple[ModelInferRequest, Sequence[Buffer]]:
    """The message, and its raw input contents: views into ``data`` where it is large.

    Raises :class:`~trivet.errors.InternalError`, as a gRPC server does for a message it cannot parse.
    """
    try:
        if len(data) < _CUT_FROM:
            message = ModelInferRequest.FromString(data)
            return message, message.raw_input_contents
        rest, raw = cut_field(data, _RAW_INPUT)
        return ModelInferRequest.FromString(rest), raw
    except (DecodeError, ValueError):
        raise InternalError("Unable to parse request") from None


def decode_request(message: ModelInferRequest, raw: Sequence[Buffer]) -> DecodedRequest:
    """The inference request of a message. ``raw`` are its raw input contents.

    Names, datatypes, shapes and sizes are for the engine to check. Raises
    :class:`~trivet.errors.InvalidArgumentError` for what the message itself has wrong.
    """
    request = InferenceRequest(
        message.model_name,
        _decode_inputs(message, raw),
        model_version=message.model_version,
        id=message.id,
        outputs=_decode_outputs(message.outputs) if message.outputs else None,
    )
    if not message.parameters:
        return DecodedRequest(request, False)
    return DecodedRequest(request, _apply_parameters(request, message.parameters))


def _decode_inputs(message: ModelInferRequest, raw: Sequence[Buffer]) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    raw_count = len(raw)
    raw_index = 0
    for entry in message.inputs:
        name = entry.name
        datatype = BY_NAME.get(entry.datatype, _INVALID)
        shape = tuple(entry.shape)
        if name in inputs:
            raise InvalidArgumentError(
                f"[request id: {message.id or '<id_unknown>'}] input '{name}' already exists in request"
            )
        if entry.parameters and _in_shared_memory(name, entry.parameters):
            if entry.HasField("contents"):
                raise InvalidArgumentError(
                    f"unexpected 'content' provided when using shared memory for input tensor '{name}' for model"
                    f" '{message.model_name}'"
                )
            raise _unknown_region(entry.parameters)
        if entry.HasField("contents"):
            if raw_count:
                raise InvalidArgumentError(
                    f"contents field must not be specified when using raw_input_contents for '{name}' for model"
                    f" '{message.model_name}'"
                )
            inputs[name] = _decode_contents(name, datatype, shape, entry.contents, message.model_name)
        elif raw_index < raw_count:
            inputs[name] = Tensor.from_wire(name, datatype, shape, raw[raw_index])
            raw_index += 1
        else:
            raise InvalidArgumentError(
                f"unable to find data for input tensor '{name}' for model '{message.model_name}' in request."
            )
    return inputs


# Typed contents: the field, the datatypes whose elements it holds, and the one that an error names.
_CONTENTS: tuple[tuple[str, tuple[DataType, ...], DataType], ...] = (
    ("bool_contents", (BOOL,), BOOL),
    ("int_contents", (INT8, INT16, INT32), INT32),
    ("int64_contents", (INT64,), INT64),
    ("uint_contents", (UINT8, UINT16, UINT32), UINT32),
    ("uint64_contents", (UINT64,), UINT64),
    ("fp32_contents", (FP32,), FP32),
    ("fp64_contents", (FP64,), FP64),
    ("bytes_contents", (BYTES,), BYTES),
)


def _decode_contents(
    name: str, datatype: DataType, shape: tuple[int, ...], contents: InferTensorContents, model_name: str
) -> Tensor:
    where = f"unexpected explicit tensor data for input tensor '{name}' for model '{model_name}'"
    elements: Sequence[object] = ()
    for field, allowed, expected in _CONTENTS:
        values = getattr(contents, field)
        if not values:
            continue
        if elements:
            raise InvalidArgumentError(f"{where}, binary data was already supplied.")
        if datatype not in allowed:
            raise InvalidArgumentError(f"{where} of type '{expected}', expected datatype '{datatype}'")
        elements = values
    count = len(elements)
    if not count:
        return Tensor.from_wire(name, datatype, shape, b"")
    if datatype is BYTES:
        array = object_array(list(elements), (count,))  # type: ignore[arg-type]
        if count == element_count(shape):
            return Tensor.from_numpy(name, array.reshape(shape), BYTES)
        return Tensor.from_wire(name, datatype, shape, encode_bytes(array))
    if datatype in (FP32, FP64, BOOL):
        return Tensor.from_wire(name, datatype, shape, _packed(contents, count * datatype.itemsize))
    # An element of int_contents that does not fit its datatype is cut to its lowest bytes, as Triton does.
    wide = {INT8: INT32, INT16: INT32, UINT8: UINT32, UINT16: UINT32}.get(datatype, datatype)
    array = np.fromiter(elements, wide.numpy, count)
    return Tensor.from_wire(name, datatype, shape, array.astype(datatype.numpy, copy=False).tobytes())


def _packed(contents: InferTensorContents, size: int) -> Buffer:
    """The elements of the one field that is set, where protobuf's encoding is the wire layout already."""
    start = 1 + len(varint(size))
    return memoryview(contents.SerializeToString())[start : start + size]


def _decode_outputs(
    entries: RepeatedCompositeFieldContainer[ModelInferRequest.InferRequestedOutputTensor],
) -> list[RequestedOutput]:
    outputs: dict[str, RequestedOutput] = {}
    for entry in entries:
        name = entry.name
        if not entry.parameters:
            outputs[name] = RequestedOutput(name)
            continue
        parameters = entry.parameters
        in_shared_memory = _in_shared_memory(name, parameters)
        classes = _classes(parameters["classification"]) if "classification" in parameters else 0
        if in_shared_memory:
            if classes:
                raise InvalidArgumentError("output can't set both 'shared_memory_region' and 'classification'")
            raise _unknown_region(parameters)
        outputs[name] = RequestedOutput(name, classes)
    return list(outputs.values())


def _classes(parameter: InferParameter) -> int:
    if parameter.WhichOneof("parameter_choice") != "int64_param":
        raise InvalidArgumentError("invalid value type for 'classification' parameter, expected int64_param")
    if parameter.int64_param <= 0:
        raise InvalidArgumentError("invalid value for 'classification' parameter, expected >= 0")
    return parameter.int64_param


_REGION, _OFFSET, _SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


def _in_shared_memory(tensor: str, parameters: MessageMap[str, InferParameter]) -> bool:
    """Whether the tensor is in shared memory; checks the parameters that say so."""
    for key, expected in ((_REGION, "string_param"), (_OFFSET, "int64_param"), (_SIZE, "int64_param")):
        if key in parameters and parameters[key].WhichOneof("parameter_choice") != expected:
            raise InvalidArgumentError(
                f"invalid value type for '{key}' parameter for tensor '{tensor}', expected {expected}."
            )
    if _REGION not in parameters:
        for key in (_OFFSET, _SIZE):
            if key in parameters:
                raise InvalidArgumentError(
                    f"'{key}' can not be specified without '{_REGION}' parameter for tensor '{tensor}'"
                )
        return False
    if _SIZE not in parameters:
        raise InvalidArgumentError(
            f"'{_SIZE}' must be specified along with '{_REGION}' parameter for tensor '{tensor}'"
        )
    return True


def _unknown_region(parameters: MessageMap[str, InferParameter]) -> NotFoundError:
    """No region can be registered as long as the server offers no memory provider."""
    return NotFoundError(f"Unable to find shared memory region: '{parameters[_REGION].string_param}'")


def _apply_parameters(request: InferenceRequest, parameters: MessageMap[str, InferParameter]) -> bool:
    """Put each parameter where it belongs; returns whether the caller wants an empty final response."""
    own: dict[str, ParameterValue] = {}
    empty_final = False
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        value: ParameterValue | None = getattr(parameter, choice) if choice else None
        if key == "sequence_id":
            _expect(key, choice, "int64_param", "string_param")
            request.correlation_id = value & _UINT64_MASK if isinstance(value, int) else str(value)
        elif key == "sequence_start":
            _expect(key, choice, "bool_param")
            request.sequence_start = bool(value)
        elif key == "sequence_end":
            _expect(key, choice, "bool_param")
            request.sequence_end = bool(value)
        elif key == "priority":
            _expect(key, choice, "int64_param", "uint64_param")
            assert isinstance(value, int)
            if value < 0:
                raise InvalidArgumentError("invalid value for 'priority', expected value >= 0.")
            request.priority = value
        elif key == "timeout":
            _expect(key, choice, "int64_param")
            assert isinstance(value, int)
            request.timeout_us = value & _UINT64_MASK
        elif key == _EMPTY_FINAL:
            _expect(key, choice, "bool_param")
            empty_final = bool(value)
        elif key.startswith("triton_"):
            raise InvalidArgumentError(
                "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting"
                f" with 'triton_' are allowed: {_EMPTY_FINAL}"
            )
        elif value is None or choice == "uint64_param":
            raise InvalidArgumentError(
                f"invalid value type for '{key}' parameter, expected int64_param, bool_param, or string_param."
            )
        else:
            own[key] = value
    request.parameters = own
    return empty_final


def _expect(key: str, choice: str | None, *allowed: str) -> None:
    if choice not in allowed:
        raise InvalidArgumentError(f"invalid value type for '{key}' parameter, expected {' or '.join(allowed)}.")


def encode_response(request: InferenceRequest, response: InferenceResponse) -> bytes:
    """A ``ModelInferResponse`` with raw output contents; large outputs are copied once.

    ``request`` is one that the engine accepted. Raises :class:`~trivet.errors.InvalidArgumentError` where the message
    would exceed :data:`MAX_MESSAGE_SIZE`, or a classification cannot be made.
    """
    parts, _ = _response_parts(request, response, response.parameters)
    return b"".join(parts)


def encode_stream_response(request: InferenceRequest, response: InferenceResponse) -> bytes:
    """A ``ModelStreamInferResponse`` for a response that is not an error. Raises as :func:`encode_response` does."""
    parts, size = _response_parts(request, response, {**response.parameters, _FINAL: response.final})
    return b"".join((_INFER_RESPONSE, varint(size), *parts))


def _response_parts(
    request: InferenceRequest, response: InferenceResponse, parameters: Mapping[str, ParameterValue]
) -> tuple[list[Buffer], int]:
    """A ``ModelInferResponse`` in parts that are not joined yet, and its size in bytes."""
    model = request.model
    assert model is not None
    message = ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request.id)
    if parameters:
        _encode_parameters(message.parameters, parameters)
    outputs = response.outputs if request.outputs is None else classified(request, response.outputs)
    add = message.outputs.add
    for tensor in outputs:
        add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)
    parts: list[Buffer] = [message.SerializeToString()]
    for tensor in outputs:
        append_field(parts, _RAW_OUTPUT, tensor.wire())
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
