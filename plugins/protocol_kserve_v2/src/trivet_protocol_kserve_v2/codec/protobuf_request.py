"""The bytes of a ``ModelInferRequest`` message into an inference request. No I/O.

Source: the service's ``grpc_service.proto``; for what it leaves open, the replies of Triton's gRPC front end, whose
messages are kept word for word where a client could match on them.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import InferenceRequest, ParameterValue, RequestedOutput
from trivet.memory import RegionSlice
from trivet.tensor import Buffer, Tensor, element_count, encode_bytes, object_array

from trivet_protocol_kserve_v2.codec.protobuf_wire import cut_field, varint
from trivet_protocol_kserve_v2.codec.requests import INVALID, label
from trivet_protocol_kserve_v2.codec.shared_memory import NO_MEMORY, SharedMemory
from trivet_protocol_kserve_v2.proto.grpc_service_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
)

if TYPE_CHECKING:
    from google.protobuf.internal.containers import MessageMap, RepeatedCompositeFieldContainer

# Below this size it is cheaper to let the message class copy the tensors than to look for them in Python.
_CUT_FROM = 32 * 1024

_UINT64_MASK = 2**64 - 1
_RAW_INPUT = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_EMPTY_FINAL = "triton_enable_empty_final_response"


class DecodedRequest(NamedTuple):
    """A request, and how its caller wants the responses."""

    request: InferenceRequest
    enable_empty_final_response: bool
    """On a stream: say when a decoupled model is done, also where its last response holds nothing."""


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


def decode_request(
    message: ModelInferRequest, raw: Sequence[Buffer], memory: SharedMemory = NO_MEMORY
) -> DecodedRequest:
    """The inference request of a message. ``raw`` are its raw input contents.

    Names, datatypes, shapes and sizes are for the engine to check. Raises
    :class:`~trivet.errors.InvalidArgumentError` for what the message itself has wrong, and what
    :meth:`SharedMemory.slice` does.
    """
    request = InferenceRequest(
        message.model_name,
        _decode_inputs(message, raw, memory),
        model_version=message.model_version,
        id=message.id,
    )
    if message.outputs:
        _decode_outputs(message.outputs, request, memory)
    empty_final = bool(message.parameters) and _apply_parameters(request, message.parameters)
    return DecodedRequest(request, empty_final)


def _decode_inputs(message: ModelInferRequest, raw: Sequence[Buffer], memory: SharedMemory) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    raw_count = len(raw)
    raw_index = 0
    for entry in message.inputs:
        name = entry.name
        datatype = BY_NAME.get(entry.datatype, INVALID)
        shape = tuple(entry.shape)
        if name in inputs:
            raise InvalidArgumentError(f"{label(message.id)} input '{name}' already exists in request")
        if entry.parameters and _in_shared_memory(name, entry.parameters):
            if entry.HasField("contents"):
                raise InvalidArgumentError(
                    f"unexpected 'content' provided when using shared memory for input tensor '{name}' for model"
                    f" '{message.model_name}'"
                )
            inputs[name] = _slice(entry.parameters, memory).tensor(name, datatype, shape)
        elif entry.HasField("contents"):
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
        array = object_array(list(elements), (count,))
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
    request: InferenceRequest,
    memory: SharedMemory,
) -> None:
    """Set the outputs that ``request`` asks for, each once, and the regions of those in shared memory."""
    outputs: dict[str, RequestedOutput] = {}
    regions: dict[str, RegionSlice] = {}
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
            regions[name] = _slice(parameters, memory)
        outputs[name] = RequestedOutput(name, classes)
    request.outputs = list(outputs.values())
    request.regions = regions or None


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


def _slice(parameters: MessageMap[str, InferParameter], memory: SharedMemory) -> RegionSlice:
    """Part of the region that checked parameters name."""
    offset = parameters[_OFFSET].int64_param if _OFFSET in parameters else 0
    return memory.slice(parameters[_REGION].string_param, offset, parameters[_SIZE].int64_param)


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
