"""Is this request one that the model can execute? Checked once, on the event loop, before it is queued.

Messages are Triton's, since clients match on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from trivet.datatypes import BYTES
from trivet.errors import InvalidArgumentError
from trivet.tensor import decode_bytes, element_count

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec, TensorSpec
    from trivet.inference import InferenceRequest
    from trivet.tensor import Tensor

_BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each"
    " input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting"
    " max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)


def validate(spec: ModelSpec, request: InferenceRequest) -> None:
    """Check inputs and requested outputs against the model, and set ``request.batch_size``.

    Raises :class:`~trivet.errors.InvalidArgumentError` with Triton's message for the first thing that is wrong.
    """
    if not _is_usual(spec, request):
        _check(spec, request)


def _is_usual(spec: ModelSpec, request: InferenceRequest) -> bool:
    """Whether each input is there, with as many bytes as its shape says; sets ``request.batch_size``.

    One look at each input then tells that nothing is wrong. Where this is false, nothing need be wrong.
    """
    expected = spec.inputs
    inputs = request.inputs
    most = spec.max_batch_size
    if len(inputs) != len(expected):
        return False
    for output in request.outputs or ():
        if output.name not in spec.outputs:
            return False
    entries = 0
    for name, tensor in inputs.items():
        declared = expected.get(name)
        shape = tensor.shape
        if declared is None or tensor.datatype is not declared.datatype or declared.is_shape_tensor:
            return False
        if not most:
            entries, dims = 1, shape
        elif shape and entries in (0, shape[0]):
            entries, dims = shape[0], shape[1:]
        else:
            return False
        if dims == declared.dims:
            byte_size = entries * declared.byte_size
        elif len(dims) == len(declared.dims):
            byte_size = entries * declared.datatype.itemsize
            for want, have in zip(declared.dims, dims, strict=True):
                if want not in (-1, have):
                    return False
                byte_size *= have
        else:
            return False
        if not tensor.wire_size == byte_size > 0:
            return False
    if most:
        if not 0 < entries <= most:
            return False
        request.batch_size = entries
    return True


def _check(spec: ModelSpec, request: InferenceRequest) -> None:
    """As :func:`validate`, for any request."""
    expected = spec.inputs
    inputs = request.inputs
    if len(inputs) != len(expected) or inputs.keys() != expected.keys():
        _check_names(spec, request)
    if request.outputs is not None:
        for output in request.outputs:
            if output.name not in spec.outputs:
                raise InvalidArgumentError(f"unexpected inference output '{output.name}' for model '{spec.name}'")

    batched = spec.max_batch_size > 0
    batch_size = -1
    for name, tensor in inputs.items():
        declared = expected[name]
        if tensor.datatype is not declared.datatype:
            _fail(
                request,
                f"inference input '{name}' data-type is '{tensor.datatype}', but model '{spec.name}' expects"
                f" '{declared.datatype}'",
            )
        shape = tensor.shape
        if batched and not declared.is_shape_tensor:
            if not shape:
                _fail(request, f"input '{name}' has no shape but model requires batch dimension for '{spec.name}'")
            if batch_size < 0:
                batch_size = shape[0]
            elif shape[0] != batch_size:
                _fail(request, f"input '{name}' batch size does not match other inputs for '{spec.name}'")
    if batched:
        if batch_size > spec.max_batch_size:
            _fail(request, f"inference request batch-size must be <= {spec.max_batch_size} for '{spec.name}'")
        request.batch_size = max(batch_size, 1)
    for name, tensor in inputs.items():
        declared = expected[name]
        shape = tensor.shape
        dims = shape[1:] if batched and not declared.is_shape_tensor else shape
        if dims != declared.dims:
            _check_dims(spec, request, declared, shape, dims)
        _check_size(spec, request, tensor)


def _check_names(spec: ModelSpec, request: InferenceRequest) -> None:
    """The names differ from the configuration's: wrong, or optional inputs left out."""
    given, expected = request.inputs, spec.inputs
    required = [name for name, declared in expected.items() if not declared.optional]
    missing = [name for name in required if name not in given]
    counts_fit = len(required) <= len(given) <= len(expected)
    if not counts_fit:
        got = ",".join(f"'{name}'" for name in given)
        lacking = ",".join(f"'{name}'" for name in missing)
        wanted = (
            f"expected {len(expected)} inputs"
            if len(required) == len(expected)
            else f"expected number of inputs between {len(required)} and {len(expected)}"
        )
        _fail(
            request,
            f"{wanted} but got {len(given)} inputs for model '{spec.name}'. Got input(s) [{got}], but missing required"
            f" input(s) [{lacking}]. Please provide all required input(s).",
        )
    for name in given:
        if name not in expected:
            raise InvalidArgumentError(f"unexpected inference input '{name}' for model '{spec.name}'")
    if missing:
        _fail(request, f"input '{missing[0]}' is required by model '{spec.name}' and was not given")


def _check_dims(
    spec: ModelSpec, request: InferenceRequest, declared: TensorSpec, shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    fits = len(dims) == len(declared.dims) and all(
        want in (-1, have) for want, have in zip(declared.dims, dims, strict=True)
    )
    if fits:
        return
    batched = spec.max_batch_size > 0 and not declared.is_shape_tensor
    want = ",".join(map(str, (-1, *declared.dims) if batched else declared.dims))
    have = ",".join(map(str, shape))
    message = f"unexpected shape for input '{declared.name}' for model '{spec.name}'. Expected [{want}], got [{have}]."
    _fail(request, f"{message} {_BATCH_NOTE if batched else ''}")


def _check_size(spec: ModelSpec, request: InferenceRequest, tensor: Tensor) -> None:
    """Bytes from the wire must be as many as the shape says; arrays are right by construction."""
    size = tensor.wire_size
    batch_of_none = spec.max_batch_size > 0 and not spec.inputs[tensor.name].is_shape_tensor and tensor.shape[0] == 0
    if tensor.datatype is BYTES:
        if size is not None:
            try:
                tensor.numpy()
            except InvalidArgumentError:
                _explain_strings(spec, request, tensor)
        if batch_of_none:
            _refuse_batch_of_none(spec, request, tensor)
        return
    # Triton has no batch of size 0: it expects the data of one.
    wanted = element_count(tensor.shape[1:] if batch_of_none else tensor.shape) * tensor.datatype.itemsize
    if size == wanted and batch_of_none:
        _refuse_batch_of_none(spec, request, tensor)
    if size != wanted:
        _fail(
            request,
            f"input byte size mismatch for input '{tensor.name}' for model '{spec.name}'. Expected {wanted}, got"
            f" {size}",
        )


def _refuse_batch_of_none(spec: ModelSpec, request: InferenceRequest, tensor: Tensor) -> NoReturn:
    """In a batch with others, rows that are none would be taken from theirs."""
    _fail(
        request,
        f"input '{tensor.name}' for model '{spec.name}' has shape {list(tensor.shape)}, a batch of none; expected a"
        f" first dimension of 1 to {spec.max_batch_size}",
    )


def _explain_strings(spec: ModelSpec, request: InferenceRequest, tensor: Tensor) -> NoReturn:
    """Decoding failed; once more with the model's name in the message."""
    try:
        decode_bytes(tensor.name, tensor.wire(), element_count(tensor.shape), spec.name)
    except InvalidArgumentError as error:
        _fail(request, str(error))
    raise AssertionError("a tensor that failed to decode was decoded")


def _fail(request: InferenceRequest, message: str) -> NoReturn:
    raise InvalidArgumentError(request.tagged(message))
