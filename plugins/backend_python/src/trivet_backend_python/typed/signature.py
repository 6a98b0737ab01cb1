"""``@model``: what the annotations of a function or class say about its model."""

from __future__ import annotations

import inspect
import logging
import types
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints, overload

from trivet.config import ModelConfig
from trivet.datatypes import BY_CONFIG_VALUE
from trivet.errors import InvalidArgumentError
from trivet.signatures import model_dims

from trivet_backend_python.typed.annotations import Element

TRITON_CLASS = "TritonPythonModel"
"""The class that makes a ``model.py`` one of Triton's."""
_MARK = "__trivet_model__"
_SINGLE_OUTPUT = "output"
_ITERATORS = (Iterator, Iterable, Generator)

Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Context:
    """What the ``__init__`` of a model's class is told about the instance that it makes."""

    model_name: str
    version: int
    path: Path
    """The version's folder, where ``model.py`` and what it needs are."""
    parameters: Mapping[str, str]
    """``parameters`` of the model's configuration."""
    instance_name: str
    kind: str
    """``"CPU"``, ``"GPU"`` or ``"MODEL"``."""
    device_id: int
    """GPU ordinal; 0 on a CPU."""
    logger: logging.Logger


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output. ``dims`` are without the batch; a name or -1 stands for any size."""

    name: str
    element: Element
    dims: tuple[int | str, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.element.datatype.config_name} [{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """A model as its author wrote it."""

    target: Callable[..., Any]
    max_batch_size: int
    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]
    returns_tuple: bool
    streams: bool = False
    """It is a generator function and yields any number of results."""

    def create(self, context: Context) -> Callable[..., Any]:
        """What an instance calls: the function itself, or a new object of the class."""
        if not isinstance(self.target, type):
            return self.target
        made = self.target(context) if inspect.signature(self.target).parameters else self.target()
        return cast("Callable[..., Any]", made)

    def complete(self, config: ModelConfig) -> None:
        """Fill in what the configuration leaves out, and :meth:`check` the rest."""
        config.max_batch_size = config.max_batch_size or self.max_batch_size
        if self.streams:
            config.model_transaction_policy.decoupled = True
        for signatures, tensors in ((self.inputs, config.input), (self.outputs, config.output)):
            present = {tensor.name: tensor for tensor in tensors}
            for signature in signatures:
                tensor: Any = present.get(signature.name) or tensors.add(name=signature.name)
                tensor.data_type = tensor.data_type or signature.element.datatype.config_value
                if not tensor.dims and not tensor.HasField("reshape"):
                    # A configuration has no scalars: callers see one element, and a batch of those is reshaped.
                    # Without a batch even that is not allowed, and TypedInstance does it.
                    tensor.dims[:] = [-1 if isinstance(dim, str) else dim for dim in signature.dims] or [1]
                    if self.max_batch_size and not signature.dims:
                        tensor.reshape.SetInParent()
                if signature.optional:
                    tensor.optional = True
        self.check(config)

    def check(self, config: ModelConfig) -> None:
        """Raise :class:`~trivet.errors.InvalidArgumentError` where the configuration contradicts the annotations."""
        where = f"of model '{config.name}'"
        if config.max_batch_size > self.max_batch_size:
            raise InvalidArgumentError(
                f"max_batch_size {where} is {config.max_batch_size} in its configuration, but its code is marked"
                f" @model(max_batch_size={self.max_batch_size})"
            )
        if config.model_transaction_policy.decoupled != self.streams:
            raise InvalidArgumentError(
                f"model_transaction_policy.decoupled {where} is {str(not self.streams).lower()} in its configuration,"
                f" but its code {'yields any number of results' if self.streams else 'returns one result'}"
            )
        if self.max_batch_size and not config.max_batch_size:
            raise InvalidArgumentError(
                f"max_batch_size {where} is missing in its configuration; its code takes batches of up to"
                f" {self.max_batch_size}"
            )
        for kind, signatures, tensors in (
            ("input", self.inputs, config.input),
            ("output", self.outputs, config.output),
        ):
            configured = {tensor.name: tensor for tensor in tensors}
            expected = {signature.name: signature for signature in signatures}
            if configured.keys() != expected.keys():
                raise InvalidArgumentError(
                    f"the {kind}s {where} are {sorted(configured)} in its configuration and {sorted(expected)} in"
                    " its code"
                )
            for name, signature in expected.items():
                dims = signature.dims if self.max_batch_size else signature.dims or (1,)
                _compare(f"{kind} '{name}' {where}", signature, dims, configured[name])


@overload
def model(target: Target, /) -> Target: ...
@overload
def model(*, max_batch_size: int = 0) -> Callable[[Target], Target]: ...
def model(target: Target | None = None, /, *, max_batch_size: int = 0) -> Target | Callable[[Target], Target]:
    """Mark the function, or the class whose objects are called, that is the model. It stays what it is.

    Parameters are the inputs and need annotations such as ``Array[Float32, "n"]``; one with a default is optional. The
    result is the output named ``output``, or a :class:`typing.NamedTuple` that names several. With ``max_batch_size``
    > 0 all arrays have the batch as one more dimension in front. A generator function, annotated
    ``Iterator[Array[...]]``, streams: each result that it yields is a response. Raises :class:`TypeError` for anything
    else.
    """

    def mark(target: Target) -> Target:
        setattr(target, _MARK, _read(target, max_batch_size))
        return target

    return mark if target is None else mark(target)


def find_model(module: ModuleType) -> Signature | None:
    """The model of a ``model.py``; ``None`` where nothing in it is marked.

    Raises :class:`~trivet.errors.InvalidArgumentError` for more than one model.
    """
    marked = {
        name: signature
        for name, value in vars(module).items()
        if isinstance(signature := getattr(value, "__dict__", {}).get(_MARK), Signature)
    }
    # A model that was imported from another file counts only where the file has none of its own.
    own = {name: found for name, found in marked.items() if found.target.__module__ == module.__name__} or marked
    names = [*own, *(name for name in (TRITON_CLASS,) if name in vars(module))]
    if len(names) > 1:
        raise InvalidArgumentError(f"{module.__file__} holds {len(names)} models: {', '.join(names)}; expected one")
    return next(iter(own.values()), None)


def _read(target: Callable[..., Any], max_batch_size: int) -> Signature:
    name = target.__name__
    function: Any = target
    if isinstance(target, type):
        function = vars(target).get("__call__")
        if function is None:
            raise TypeError(
                f"class {name} marked @model needs a method __call__, which takes inputs and returns outputs"
            )
        if len(inspect.signature(target).parameters) > 1:
            raise TypeError(f"class {name} marked @model: __init__ may take one argument, its Context")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name}() marked @model must be a plain function or a generator, not async")
    streams = inspect.isgeneratorfunction(function)
    if streams and max_batch_size:
        raise TypeError(
            f"{name}() marked @model yields its results for one request at a time; leave max_batch_size out"
        )
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1 if isinstance(target, type) else 0 :]
    inputs = [_input(name, parameter, hints.get(parameter.name)) for parameter in parameters]
    result = hints.get("return")
    if streams and get_origin(result) in _ITERATORS:
        result = get_args(result)[0]
    outputs, returns_tuple = _outputs(name, result)
    if not inputs:
        raise TypeError(f"{name}() marked @model has no parameters, and so its model would have no inputs")
    if max_batch_size < 0:
        raise TypeError(f"{name}() marked @model: max_batch_size must not be negative, got {max_batch_size}")
    return Signature(target, max_batch_size, tuple(inputs), outputs, returns_tuple, streams)


def _input(function: str, parameter: inspect.Parameter, hint: Any) -> TensorSignature:
    where = f"parameter '{parameter.name}' of {function}()"
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise TypeError(f"{where} must be an ordinary parameter: each stands for one named input")
    if get_origin(hint) in (Union, types.UnionType):
        # Annotations of optional inputs end in "| None".
        hint = next((choice for choice in get_args(hint) if choice is not type(None)), None)
    element, dims = _array(where, hint)
    return TensorSignature(parameter.name, element, dims, parameter.default is not parameter.empty)


def _outputs(function: str, hint: Any) -> tuple[tuple[TensorSignature, ...], bool]:
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        hints = get_type_hints(hint, include_extras=True)
        fields: Sequence[str] = hint._fields
        where = f"of {hint.__name__}, which {function}() returns"
        return tuple(TensorSignature(n, *_array(f"field '{n}' {where}", hints.get(n))) for n in fields), True
    return (TensorSignature(_SINGLE_OUTPUT, *_array(f"the result of {function}()", hint)),), False


def _array(where: str, hint: Any) -> tuple[Element, tuple[int | str, ...]]:
    metadata = getattr(hint, "__metadata__", ())
    if not metadata or not isinstance(metadata[0], Element):
        shown = "nothing" if hint is None else repr(hint)
        raise TypeError(f"{where} needs an annotation such as Array[Float32, 'n', 3], got {shown}")
    dims: Iterable[Any] = metadata[1:]
    for dim in dims:
        if not isinstance(dim, str) and not (isinstance(dim, int) and (dim > 0 or dim == -1)):
            raise TypeError(f"{where} has the dimension {dim!r}; expected a size, or a name or -1 for one that varies")
    return metadata[0], tuple(dims)


def _compare(what: str, signature: TensorSignature, expected_dims: Sequence[int | str], tensor: Any) -> None:
    datatype = BY_CONFIG_VALUE.get(tensor.data_type)
    dims = list(model_dims(tensor))
    # The configuration may promise more than the code asks for, a fixed size where the code takes any.
    fits = len(dims) == len(expected_dims) and all(
        isinstance(expected, str) or expected in (-1, dim) for dim, expected in zip(dims, expected_dims, strict=True)
    )
    if datatype is not signature.element.datatype or not fits:
        shown = datatype.config_name if datatype else "TYPE_INVALID"
        raise InvalidArgumentError(f"{what} is {shown} {dims} in its configuration and {signature} in its code")
