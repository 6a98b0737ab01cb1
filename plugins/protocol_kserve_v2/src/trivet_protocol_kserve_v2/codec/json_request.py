"""An inference request over HTTP: a JSON header, and the bytes of binary tensors behind it.

Source: Open Inference Protocol v2, "Inference Request JSON Object"; Triton's binary tensor data, classification,
parameters and shared memory extensions. Where they are silent, Triton's reply decides, message for message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trivet.datatypes import BY_NAME
from trivet.errors import InternalError, InvalidArgumentError
from trivet.inference import InferenceRequest, ParameterValue, RequestedOutput
from trivet.memory import RegionSlice
from trivet.tensor import Buffer, Tensor

from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_tensor import decode_data
from trivet_protocol_kserve_v2.codec.json_types import (
    INT64_MAX,
    INT64_MIN,
    NOT_OBJECT,
    NOT_STRING,
    NOT_UNSIGNED,
    UINT64_MAX,
    array_member,
    boolean,
    string_member,
    text,
    unparsable,
    unsigned,
)
from trivet_protocol_kserve_v2.codec.raw_request import decode_raw
from trivet_protocol_kserve_v2.codec.requests import INVALID, label
from trivet_protocol_kserve_v2.codec.shared_memory import NO_MEMORY, SharedMemory

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec

_NOTHING: Mapping[str, Any] = {}
_RESERVED = "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."


class ResponseFormat:
    """How the caller wants the response: the request's ``context`` while it is served.

    ``binary`` is for outputs that the request does not name; those that it names are in ``outputs``, as binary or not.
    """

    __slots__ = ("binary", "call", "early_responses", "outputs")

    def __init__(self, binary: bool, outputs: dict[str, bool]) -> None:
        self.binary = binary
        self.outputs = outputs
        self.call: Any = None
        """Belongs to whoever handles the call, as ``early_responses`` does; the codec does not touch them."""
        self.early_responses = 0


def decode_request(
    body: Buffer,
    json_size: int | None,
    spec: ModelSpec,
    version: str = "",
    *,
    received_ns: int = 0,
    memory: SharedMemory = NO_MEMORY,
) -> InferenceRequest:
    """The request in ``body``, for the model of ``spec``; its ``context`` is a :class:`ResponseFormat`.

    ``json_size`` is the ``Inference-Header-Content-Length``: ``None`` where all is JSON, 0 where all is the data of the
    model's only input. It must not exceed the body. Binary tensors are views into ``body``.

    Raises :class:`~trivet.errors.TrivetError`, with Triton's message, for whatever is wrong with the format; whether
    the tensors are those that the model wants is the engine's to say.
    """
    view = memoryview(body)
    size = view.nbytes
    if json_size is None:
        json_size = size
    if json_size == 0:
        tensor = decode_raw(body, spec)
        return InferenceRequest(
            spec.name,
            {tensor.name: tensor},
            model_version=version,
            context=ResponseFormat(True, {}),
            received_ns=received_ns,
        )
    document = read_json(body if json_size == size else view[:json_size])
    if type(document) is not dict:
        document = {}

    request_id = document.get("id", "")
    if type(request_id) is not str:
        raise unparsable("id", NOT_STRING)
    response_format = ResponseFormat(False, {})
    request = InferenceRequest(
        spec.name,
        {},
        model_version=version,
        id=request_id,
        parameters=_NOTHING,
        context=response_format,
        received_ns=received_ns,
    )
    if "parameters" in document:
        _decode_parameters(document["parameters"], request, response_format)

    end = json_size
    for item in array_member(document, "inputs"):
        end = _decode_input(item, request, view, end, memory)
    if end != size:
        raise InvalidArgumentError(f"unexpected additional input data for model '{spec.name}'")

    if "outputs" in document:
        # An empty list names nothing, and so asks for everything.
        request.outputs = _decode_outputs(array_member(document, "outputs"), request, memory) or None
    return request


def _decode_input(item: object, request: InferenceRequest, view: memoryview, start: int, memory: SharedMemory) -> int:
    """Add one input to ``request``. Its binary data, if any, begins at ``start``; returns where the next one's does."""
    if type(item) is not dict:
        item = {}
    parameters = item.get("parameters")
    if type(parameters) is not dict:
        parameters = _NOTHING
    has_data = "data" in item
    is_binary = "binary_data_size" in parameters
    is_shared = "shared_memory_region" in parameters
    if has_data + is_binary + is_shared != 1:
        raise _ambiguous(has_data, is_binary, is_shared)

    name = string_member(item, "name")
    datatype = BY_NAME.get(string_member(item, "datatype"), INVALID)
    shape = tuple(array_member(item, "shape"))
    for dim in shape:
        if type(dim) is not int or not 0 <= dim <= INT64_MAX:
            _check_dims(name, shape, request)
    inputs = request.inputs
    if name in inputs:
        raise InvalidArgumentError(f"{label(request.id)} input '{name}' already exists in request")

    if is_binary:
        byte_size = unsigned(parameters["binary_data_size"], "binary_data_size")
        end = start + byte_size
        if end > view.nbytes:
            raise InvalidArgumentError(
                f"unexpected size for input '{name}', expecting {end - view.nbytes} additional bytes for model"
                f" '{request.model_name}'"
            )
        inputs[name] = Tensor.from_wire(name, datatype, shape, view[start:end])
        return end
    if is_shared:
        inputs[name] = memory.slice(*region_of(parameters)).tensor(name, datatype, shape)
    else:
        inputs[name] = decode_data(name, datatype, shape, item["data"])
    return start


def _ambiguous(has_data: bool, is_binary: bool, is_shared: bool) -> InvalidArgumentError:
    fields = {"data": has_data, "binary_data_size": is_binary, "shared_memory_region": is_shared}
    given = "".join(f" '{field}'" for field, there in fields.items() if there)
    return InvalidArgumentError(
        "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters',"
        f" 'shared_memory_region' in 'parameters'. But {'set' + given if given else 'no field is set'}"
    )


def _check_dims(name: str, shape: tuple[Any, ...], request: InferenceRequest) -> None:
    """Refuse a shape that is not made of sizes. Those past 63 bits count as unspecified, since Triton's are signed."""
    dims = [unsigned(dim, "shape") for dim in shape]
    seen = ",".join(str(dim if dim <= INT64_MAX else dim - UINT64_MAX - 1) for dim in dims)
    raise InvalidArgumentError(
        f"{label(request.id)} All input dimensions should be specified for input '{name}' for model"
        f" '{request.model_name}', got [{seen}]"
    )


def region_of(parameters: Mapping[str, Any]) -> tuple[str, int, int]:
    """The region that a tensor's parameters name, and the part of it: offset and size in bytes."""
    return (
        text(parameters["shared_memory_region"], "shared_memory_region"),
        unsigned(parameters.get("shared_memory_offset", 0), "shared_memory_offset"),
        unsigned(parameters.get("shared_memory_byte_size", 0), "shared_memory_byte_size"),
    )


def _decode_outputs(items: list[Any], request: InferenceRequest, memory: SharedMemory) -> list[RequestedOutput]:
    """The outputs asked for, each once; sets the regions of ``request``."""
    response_format: ResponseFormat = request.context
    regions: dict[str, RegionSlice] = {}
    outputs: dict[str, RequestedOutput] = {}
    for item in items:
        fields = item if type(item) is dict else {}
        parameters = fields.get("parameters")
        if type(parameters) is not dict:
            parameters = _NOTHING
        is_shared = "shared_memory_region" in parameters
        if is_shared:
            _check_shared_output(parameters)
        name = string_member(fields, "name")
        classification = 0
        if "classification" in parameters:
            classification = parameters["classification"]
            if type(classification) is not int or not 0 <= classification <= UINT64_MAX:
                raise InternalError(f"Unable to set 'classification': {NOT_UNSIGNED}")
            # As in Triton, whose counts of classes have 32 bits.
            classification &= 0xFFFFFFFF
        region = memory.slice(*region_of(parameters)) if is_shared else None
        binary = boolean(parameters.get("binary_data", False), "binary_data")
        if name not in outputs:
            outputs[name] = RequestedOutput(name, classification)
            if region is not None:
                regions[name] = region
            response_format.outputs[name] = binary
    request.regions = regions or None
    return list(outputs.values())


def _check_shared_output(parameters: Mapping[str, Any]) -> None:
    if "classification" in parameters:
        raise InvalidArgumentError("Output can't set both 'shared_memory_region' and 'classification'")
    if "binary_data" in parameters:
        if type(parameters["binary_data"]) is not bool:
            raise InternalError("Unable to set 'binary_data': attempt to access JSON non-boolean as boolean")
        if parameters["binary_data"]:
            raise InvalidArgumentError("Output can't set both 'shared_memory_region' and 'binary_data'")


def _decode_parameters(parameters: object, request: InferenceRequest, response_format: ResponseFormat) -> None:
    """Those parameters that mean something to the protocol, and the rest for the model."""
    if type(parameters) is not dict:
        raise InternalError(f"failed to get request params.: {NOT_OBJECT}")
    others: dict[str, ParameterValue] = {}
    for key, value in parameters.items():
        match key:
            case "binary_data_output":
                response_format.binary = boolean(value, key)
            case "sequence_id":
                is_number = type(value) is int and 0 <= value <= UINT64_MAX
                request.correlation_id = value if is_number else text(value, key)
            case "sequence_start":
                request.sequence_start = boolean(value, key)
            case "sequence_end":
                request.sequence_end = boolean(value, key)
            case "priority":
                request.priority = unsigned(value, key)
            case "timeout":
                request.timeout_us = unsigned(value, key)
            case _:
                if key.startswith("triton_"):
                    raise InvalidArgumentError(_RESERVED)
                others[key] = decode_parameter(key, value)
    if others:
        request.parameters = others


def decode_parameter(key: str, value: object) -> ParameterValue:
    """A parameter for the model. Raises :class:`~trivet.errors.InvalidArgumentError` for what is no single value."""
    if isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        # An integer past 64 bits with a sign is a double, as for Triton's parser.
        return value if INT64_MIN <= value <= INT64_MAX else float(value)
    raise InvalidArgumentError(f"parameter '{key}' has invalid type. It should be either 'int', 'bool', or 'string'.")
