"""Python models for Trivet.

Existing Triton models run unchanged: their ``import triton_python_backend_utils`` finds
:mod:`trivet_backend_python.pb_utils`. New models can be a function::

    from trivet_backend_python import Array, Float32, model

    @model(max_batch_size=8)
    def double(x: Array[Float32, "n"]) -> Array[Float32, "n"]:
        return 2 * x
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivet_backend_python.typed.annotations import (
        Array,
        BFloat16,
        Bool,
        Bytes,
        Float16,
        Float32,
        Float64,
        Int8,
        Int16,
        Int32,
        Int64,
        Text,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
    )
    from trivet_backend_python.typed.calls import call, stream
    from trivet_backend_python.typed.signature import Context, model

__all__ = [
    "Array",
    "BFloat16",
    "Bool",
    "Bytes",
    "Context",
    "Float16",
    "Float32",
    "Float64",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Text",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "call",
    "model",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import the typed API when a model asks for it: the command line reads this package just to find its plugin."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trivet_backend_python.typed import annotations, calls, signature  # noqa: PLC0415 - see above

    return getattr(
        {"Context": signature, "model": signature, "call": calls, "stream": calls}.get(name, annotations), name
    )
