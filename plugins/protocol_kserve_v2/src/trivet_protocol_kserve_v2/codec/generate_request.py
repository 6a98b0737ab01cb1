"""A request of the generate extension: one JSON object whose keys are input tensors, or parameters.

A key that names an input of the model is that input, its datatype and shape being the configuration's; any other key is
a parameter for the model, the names that mean something to the inference protocol (``sequence_id``, ``timeout``)
included. ``id`` is the request's id as well, and the keys of the object ``parameters`` count like those outside of it.

Source: Triton's generate extension. Where it is silent, Triton's reply decides, message for message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trivet.datatypes import BF16, BYTES, FP16
from trivet.errors import InternalError, InvalidArgumentError, TrivetError
from trivet.inference import InferenceRequest, ParameterValue
from trivet.tensor import Buffer, Tensor

from trivet_protocol_kserve_v2.codec.json_reader import read_json
from trivet_protocol_kserve_v2.codec.json_request import decode_parameter
from trivet_protocol_kserve_v2.codec.json_tensor import check_strings, decode_data, not_in_json
from trivet_protocol_kserve_v2.codec.json_types import NOT_OBJECT, NOT_STRING, unparsable
from trivet_protocol_kserve_v2.codec.requests import label

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec, TensorSpec

_PARAMETERS = "parameters"


def decode_generate(body: Buffer, spec: ModelSpec, version: str = "", *, received_ns: int = 0) -> InferenceRequest:
    """The request in ``body``, for the model of ``spec``. It asks for all outputs.

    Raises :class:`~trivet.errors.TrivetError`, with Triton's message, for whatever is wrong with the format; whether
    the tensors are those that the model wants is the engine's to say.
    """
    document = read_json(body)
    if type(document) is not dict:
        raise InternalError(NOT_OBJECT)
    request_id = document.get("id", "")
    if type(request_id) is not str:
        raise unparsable("id", NOT_STRING)
    parameters: dict[str, ParameterValue] = {}
    request = InferenceRequest(
        spec.name, {}, model_version=version, id=request_id, parameters=parameters, received_ns=received_ns
    )
    for key, value in document.items():
        if key == _PARAMETERS:
            _add_nested(request, parameters, spec, value)
        else:
            _add(request, parameters, spec, key, value)
    return request


def _add_nested(request: InferenceRequest, parameters: dict[str, ParameterValue], spec: ModelSpec, value: Any) -> None:
    if _PARAMETERS in spec.inputs:
        raise InvalidArgumentError(f"Keyword '{_PARAMETERS}' for nested schema also given as input tensor name")
    if type(value) is not dict:
        raise InternalError(
            f"Expected JSON object for keyword: '{_PARAMETERS}': attempt to access JSON non-object as object"
        )
    for key, item in value.items():
        try:
            _add(request, parameters, spec, key, item)
        except TrivetError as error:
            raise type(error)(f"Converting keyword: '{_PARAMETERS}': {error}") from None


def _add(
    request: InferenceRequest, parameters: dict[str, ParameterValue], spec: ModelSpec, key: str, value: Any
) -> None:
    """One key, wherever it stands: an input of the model, or a parameter."""
    declared = spec.inputs.get(key)
    if declared is None:
        parameters[key] = decode_parameter(key, value)
        return
    if key in request.inputs:
        raise InvalidArgumentError(f"{label(request.id)} input '{key}' already exists in request")
    request.inputs[key] = _decode_input(declared, spec, value)


def _decode_input(declared: TensorSpec, spec: ModelSpec, value: Any) -> Tensor:
    name, datatype = declared.name, declared.datatype
    items = value if type(value) is list else [value]
    if datatype is BYTES:
        check_strings(items)
    batched = spec.max_batch_size > 0 and not declared.is_shape_tensor
    shape = _fit(name, (-1, *declared.dims) if batched else declared.dims, len(items))
    if datatype is FP16 or datatype is BF16:
        raise not_in_json(name, datatype)
    return decode_data(name, datatype, shape, items)


def _fit(name: str, dims: Sequence[int], count: int) -> tuple[int, ...]:
    """``dims`` with sizes in place of -1, for ``count`` elements: all to the innermost, 1 to the others."""
    rest = count
    for dim in dims:
        if dim == 0 or (dim > 0 and rest % dim):
            raise _unfit(name)
        if dim > 0:
            rest //= dim
    shape = list(dims)
    for axis in reversed(range(len(shape))):
        if shape[axis] == -1:
            shape[axis], rest = rest, 1
    if rest != 1:
        raise _unfit(name)
    return tuple(shape)


def _unfit(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"The schema can not convert input '{name}' to tensor with proper shape")
