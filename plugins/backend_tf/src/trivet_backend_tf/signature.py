"""What a model says of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trivet import datatypes
from trivet.datatypes import DataType
from trivet.signatures import shape_text

from trivet_backend_tf.runtime import tf

PLACEHOLDER = "Placeholder"
PLACEHOLDER_WITH_DEFAULT = "PlaceholderWithDefault"

DATATYPES: dict[Any, DataType] = {
    tf.bool: datatypes.BOOL,
    tf.uint8: datatypes.UINT8,
    tf.uint16: datatypes.UINT16,
    tf.uint32: datatypes.UINT32,
    tf.uint64: datatypes.UINT64,
    tf.int8: datatypes.INT8,
    tf.int16: datatypes.INT16,
    tf.int32: datatypes.INT32,
    tf.int64: datatypes.INT64,
    tf.float16: datatypes.FP16,
    tf.bfloat16: datatypes.BF16,
    tf.float32: datatypes.FP32,
    tf.float64: datatypes.FP64,
    tf.string: datatypes.BYTES,
}
"""TensorFlow's element types and the protocol's. The rest (complex, quantized, resource) no request can carry."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output. Also a :class:`trivet.signatures.TensorSignature`."""

    name: str
    """What configurations and requests call it: the signature's key, or the name in the graph of a GraphDef."""
    graph_name: str
    """Of the tensor in the graph, e.g. ``"StatefulPartitionedCall:0"``; "" for one that is made of several."""
    datatype: DataType | None
    framework_type: str
    """TensorFlow's name of the element type, e.g. ``"float32"``."""
    dims: tuple[int, ...] | None
    """With the batch dimension; -1 is any size. ``None`` where the model leaves the rank open."""
    optional: bool = False
    """Whether it is an input that may be left out, as the graph has a value for it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs by name, in the order of their names: a SavedModel has them in none."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]

    @classmethod
    def of(cls, signature_def: Any, graph_def: Any) -> Signature:
        """Read a ``SignatureDef`` of a SavedModel, whose graph tells which inputs have a value of their own."""
        with_default = {f"{node.name}:0" for node in graph_def.node if node.op == PLACEHOLDER_WITH_DEFAULT}
        inputs = _read(signature_def.inputs)
        return cls(
            {key: replace(info, optional=info.graph_name in with_default) for key, info in inputs.items()},
            _read(signature_def.outputs),
        )


def described(tensors: Iterable[TensorInfo]) -> str:
    """For messages: ``x (float32 [-1,3])``."""
    return ", ".join(f"{t.name} ({t.framework_type} {_shape(t.dims)})" for t in tensors) or "none"


def _shape(dims: tuple[int, ...] | None) -> str:
    return "of any shape" if dims is None else shape_text(dims)


def _read(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {key: _read_tensor(key, tensors[key]) for key in sorted(tensors)}


def _read_tensor(key: str, info: Any) -> TensorInfo:
    if info.WhichOneof("encoding") not in (None, "name"):
        # A sparse or ragged tensor is several tensors, which no input or output of a request is.
        return TensorInfo(key, "", None, str(info.WhichOneof("encoding")), None)
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim)
    try:
        dtype = tf.dtypes.as_dtype(info.dtype)
    except TypeError:  # of a newer TensorFlow, or damaged
        return TensorInfo(key, str(info.name), None, f"number {info.dtype}", dims)
    return TensorInfo(key, str(info.name), DATATYPES.get(dtype), dtype.name, dims)
