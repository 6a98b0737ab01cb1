"""What a network takes and gives, as far as its file or its code tells."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from trivet.datatypes import (
    BF16,
    BOOL,
    FP16,
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

from trivet_backend_torch.nesting import join, split
from trivet_backend_torch.runtime import torch

Kind = Literal["tensor", "int", "float", "bool", "str", "strings", "dict", "list", "tuple", "any"]
"""What an argument of ``forward`` is given: a tensor, one Python value for the whole batch, a list of text, or several
tensors. ``any``: the code does not say; it gets a tensor, or a list of text."""

SCALARS: frozenset[Kind] = frozenset(("int", "float", "bool", "str"))
CONTAINERS: frozenset[Kind] = frozenset(("dict", "list", "tuple"))

DATATYPES: dict[Any, DataType] = {
    torch.bool: BOOL,
    torch.uint8: UINT8,
    torch.uint16: UINT16,
    torch.uint32: UINT32,
    torch.uint64: UINT64,
    torch.int8: INT8,
    torch.int16: INT16,
    torch.int32: INT32,
    torch.int64: INT64,
    torch.float16: FP16,
    torch.bfloat16: BF16,
    torch.float32: FP32,
    torch.float64: FP64,
}
"""PyTorch's element types and the protocol's."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Element type and shape of a tensor; -1 is any size. The batch dimension is among them."""

    datatype: DataType | None
    """``None`` for one that requests cannot carry."""
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of ``forward``."""

    name: str
    kind: Kind = "any"
    optional: bool = False
    keyword_only: bool = False
    spec: TensorSpec | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """Arguments of ``forward`` in order, and its results as far as they are known."""

    arguments: tuple[Argument, ...]
    open: bool = False
    """Whether it takes any number of arguments after these (``*args``)."""
    outputs: tuple[str, ...] | None = None
    """Names of the results: keys of a dictionary, else ``OUTPUT__0`` and so on; ``None`` where nothing tells."""
    output_specs: tuple[TensorSpec | None, ...] = ()
    max_batch_size: int = 0
    """The largest first dimension that the file allows; 0: none is known to be free."""

    @property
    def takes_dict(self) -> bool:
        """Whether all inputs go in as one dictionary. Source: Triton's pytorch_backend."""
        return len(self.arguments) == 1 and self.arguments[0].kind == "dict"

    def part(self, name: str) -> Argument | None:
        """The argument, or the part of one, that a name with a path is; ``None`` for any other name."""
        head, path = split(name)
        if head == "ARGS" and path:
            heads = list(dict.fromkeys(split(a.name)[0] for a in self.arguments if not a.keyword_only))
            index, path = path[0], path[1:]
            head = heads[index] if isinstance(index, int) and index < len(heads) else name
        elif head == "KWARGS" and path:
            head, path = str(path[0]), path[1:]
        elif not path:
            return None
        full = join(head, path)
        for argument in self.arguments:
            if argument.name == full:
                return argument
            if argument.name == head and argument.kind in (*CONTAINERS, "any"):
                return Argument(full)
        return None

    @property
    def described(self) -> str:
        """For messages: ``x (tensor), sr (int)``."""
        return ", ".join(f"{a.name} ({a.kind}{', optional' if a.optional else ''})" for a in self.arguments) or "none"

    @classmethod
    def of_callable(cls, function: Callable[..., Any]) -> Signature:
        """Read it from Python code, by its annotations where it has them."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return cls((), open=True)
        try:
            hints = typing.get_type_hints(function)
        except Exception:  # noqa: BLE001 - annotations are any expression, and may name what is not there
            hints = {}
        arguments = tuple(
            Argument(
                p.name,
                _kind_of_hint(hints.get(p.name)),
                optional=p.default is not p.empty,
                keyword_only=p.kind is p.KEYWORD_ONLY,
            )
            for p in parameters
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        )
        return cls(arguments, open=any(p.kind is p.VAR_POSITIONAL for p in parameters))


def _kind_of_hint(hint: Any) -> Kind:
    arguments = [part for part in typing.get_args(hint) if part is not type(None)]
    if len(arguments) == 1 and typing.get_origin(hint) not in (list, dict, tuple):
        hint = arguments[0]  # Optional[X]
    origin = typing.get_origin(hint)
    if origin is dict or hint is dict:
        return "dict"
    if origin is list:
        return _LISTS.get(typing.get_args(hint)[0], "any")
    if origin is tuple or hint is tuple:
        return "tuple"
    return kind_of_type(hint) if isinstance(hint, type) else "any"


def kind_of_type(python_type: type) -> Kind:
    """What an argument is whose values are of this type; ``any`` for one that is neither a tensor nor a scalar."""
    return next((kind for known, kind in _TYPES if issubclass(python_type, known)), "any")


_LISTS: dict[Any, Kind] = {str: "strings", torch.Tensor: "list"}
# bool before int: it is one too.
_TYPES: tuple[tuple[type, Kind], ...] = (
    (torch.Tensor, "tensor"), (bool, "bool"), (int, "int"), (float, "float"), (str, "str"),
)  # fmt: skip
