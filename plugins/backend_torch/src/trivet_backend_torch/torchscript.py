"""TorchScript: ``model.pt`` of ``torch.jit.save``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trivet_backend_torch.network import Network
from trivet_backend_torch.runtime import torch
from trivet_backend_torch.signature import Argument, Kind, Signature

_KINDS: dict[str, Kind] = {
    "TensorType": "tensor",
    "IntType": "int",
    "FloatType": "float",
    "BoolType": "bool",
    "StringType": "str",
    "DictType": "dict",
    "TupleType": "tuple",
}
_LISTS: dict[str, Kind] = {"StringType": "strings", "TensorType": "list"}


def load(path: Path, device: Any) -> Network:
    """Load an archive onto ``device`` (``None``: the devices that it was saved with). Raises what PyTorch raises."""
    module: Any = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    module.eval()
    return Network(module.forward, signature_of(module), module)


def signature_of(module: Any) -> Signature:
    """Names and kinds of arguments, and how many results there are. The archive has no element types and shapes."""
    schema = module.forward.schema
    arguments = []
    for argument in schema.arguments[1:]:  # without self
        kind, nullable = _kind(argument.type)
        arguments.append(
            Argument(argument.name, kind, argument.has_default_value() or nullable, keyword_only=argument.kwarg_only)
        )
    results = schema.returns[0].type if schema.returns else None
    outputs: tuple[str, ...] | None = None
    if results is not None and results.kind() == "TupleType":
        outputs = tuple(f"OUTPUT__{index}" for index in range(len(results.elements())))
    elif results is not None and results.kind() in ("TensorType", "ListType"):
        outputs = ("OUTPUT__0",)
    return Signature(tuple(arguments), outputs=outputs)


def _kind(type_: Any) -> tuple[Kind, bool]:
    """The kind of an argument, and whether it may be ``None``."""
    kind = type_.kind()
    if kind == "OptionalType":
        return _kind(type_.getElementType())[0], True
    if kind == "ListType":
        return _LISTS.get(type_.getElementType().kind(), "any"), False
    return _KINDS.get(kind, "any"), False
