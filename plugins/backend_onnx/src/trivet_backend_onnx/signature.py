"""What a model file says of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trivet import datatypes
from trivet.datatypes import DataType

# ONNX Runtime's name of an element type, and ours. What is missing here (float8, int4, complex) has no v2 datatype.
_DATATYPES: dict[str, DataType] = {
    "bool": datatypes.BOOL,
    "uint8": datatypes.UINT8,
    "uint16": datatypes.UINT16,
    "uint32": datatypes.UINT32,
    "uint64": datatypes.UINT64,
    "int8": datatypes.INT8,
    "int16": datatypes.INT16,
    "int32": datatypes.INT32,
    "int64": datatypes.INT64,
    "float16": datatypes.FP16,
    "bfloat16": datatypes.BF16,
    "float": datatypes.FP32,
    "double": datatypes.FP64,
    "string": datatypes.BYTES,
}

_KINDS = {
    "seq": "ONNX_TYPE_SEQUENCE",
    "map": "ONNX_TYPE_MAP",
    "optional": "ONNX_TYPE_OPTIONAL",
    "sparse_tensor": "ONNX_TYPE_SPARSETENSOR",
}


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output of the model."""

    name: str
    onnx_type: str
    """As ONNX Runtime writes it, e.g. ``"tensor(float)"`` or ``"seq(tensor(float))"``."""
    dims: tuple[int, ...]
    """With the batch dimension; -1 is any size. Empty for a scalar, and where the file leaves the rank open."""

    @property
    def kind(self) -> str:
        """``ONNX_TYPE_TENSOR``, or the name of another type that no tensor can carry."""
        prefix = self.onnx_type.partition("(")[0]
        return "ONNX_TYPE_TENSOR" if prefix == "tensor" else _KINDS.get(prefix, "ONNX_TYPE_UNKNOWN")

    @property
    def datatype(self) -> DataType | None:
        """The element type; ``None`` for one that requests cannot carry."""
        if self.kind != "ONNX_TYPE_TENSOR":
            return None
        return _DATATYPES.get(self.onnx_type.removeprefix("tensor(").removesuffix(")"))

    @property
    def batches(self) -> bool:
        """Whether the first dimension may have any size, as a batch needs."""
        return bool(self.dims) and self.dims[0] == -1


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model, by name, in the file's order."""

    inputs: dict[str, TensorSignature]
    optional_inputs: dict[str, TensorSignature]
    """Inputs with a default in the file (overridable initializers)."""
    outputs: dict[str, TensorSignature]

    @classmethod
    def of(cls, session: Any) -> Signature:
        """Read it from an ``onnxruntime.InferenceSession``."""
        return cls(
            inputs=_read(session.get_inputs()),
            optional_inputs=_read(session.get_overridable_initializers()),
            outputs=_read(session.get_outputs()),
        )

    @property
    def batches(self) -> bool:
        """Whether every input and output has a first dimension of any size."""
        return all(tensor.batches for tensor in (*self.inputs.values(), *self.outputs.values()))


def _read(arguments: Iterable[Any]) -> dict[str, TensorSignature]:
    """A symbolic dimension is a name in ONNX Runtime, an unknown one ``None``."""
    return {
        a.name: TensorSignature(a.name, a.type, tuple(dim if isinstance(dim, int) else -1 for dim in a.shape))
        for a in arguments
    }
