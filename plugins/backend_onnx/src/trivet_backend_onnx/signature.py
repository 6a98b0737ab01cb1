"""What a model file says of its inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from trivet import datatypes
from trivet.datatypes import DataType
from trivet.errors import InvalidArgumentError
from trivet.signatures import can_batch

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

KEYS = ".keys"
"""After the name of an output that is a map: the output that has its keys."""

_KINDS = {
    "seq": "ONNX_TYPE_SEQUENCE",
    "map": "ONNX_TYPE_MAP",
    "optional": "ONNX_TYPE_OPTIONAL",
    "sparse_tensor": "ONNX_TYPE_SPARSETENSOR",
}

# A tensor, or what of its containers can be a tensor too: seq(tensor(float)), optional(seq(map(int64,tensor(float)))).
_TYPE = re.compile(r"(optional\()?(seq\()?(?:map\((\w+),)?tensor\((\w+)\)\)*")

Form = Literal["tensor", "sequence", "map", "maps"]
"""What the model has where requests have a tensor; ``maps`` is a sequence of maps."""


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output of the model, or the keys of an output that is a map: a :mod:`trivet.signatures` one."""

    name: str
    onnx_type: str
    """As ONNX Runtime writes it, e.g. ``"tensor(float)"`` or ``"seq(tensor(float))"``."""
    dims: tuple[int, ...] | None
    """With the batch dimension; -1 is any size. Empty for a scalar, and where the file leaves the rank open. ``None``:
    a sequence, of which ONNX Runtime tells no shape."""
    keys_of: str = ""
    """The output whose keys this is; "" for a value of the model itself."""

    @property
    def kind(self) -> str:
        """``ONNX_TYPE_TENSOR``, or Triton's name of another type."""
        prefix = self.onnx_type.partition("(")[0]
        return "ONNX_TYPE_TENSOR" if prefix == "tensor" else _KINDS.get(prefix, "ONNX_TYPE_UNKNOWN")

    @property
    def plain(self) -> bool:
        """Whether it is a tensor and nothing else: what can be bound to a session, and be on a device."""
        return self.onnx_type.startswith("tensor(")

    @property
    def form(self) -> Form | None:
        """``None`` for what no tensor can stand for."""
        match = _TYPE.fullmatch(self.onnx_type)
        if match is None:
            return None
        _, sequence, key, _ = match.groups()
        if key:
            return "maps" if sequence else "map"
        return "sequence" if sequence else "tensor"

    @property
    def optional(self) -> bool:
        """Whether the model can do without it, or may have none to give."""
        return self.onnx_type.startswith("optional(")

    @property
    def datatype(self) -> DataType | None:
        """The element type; ``None`` for one that requests cannot carry."""
        match = _TYPE.fullmatch(self.onnx_type)
        if match is None:
            return None
        _, _, key, value = match.groups()
        return _DATATYPES.get(key if self.keys_of else value)

    @property
    def numpy(self) -> np.dtype[Any]:
        """What an array of it has; for a ``datatype`` that there is."""
        assert self.datatype is not None
        return self.datatype.numpy

    @property
    def framework_type(self) -> str:
        """The type in ONNX Runtime's words, for messages."""
        return self.onnx_type


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model, by name, in the file's order.

    An output that is a map, or a sequence of them, stands for two: its values, and under ``NAME.keys`` its keys.
    """

    inputs: dict[str, TensorSignature]
    optional_inputs: dict[str, TensorSignature]
    """Inputs with a default in the file (overridable initializers)."""
    outputs: dict[str, TensorSignature]

    @classmethod
    def of(cls, session: Any) -> Signature:
        """Read it from an ``onnxruntime.InferenceSession``.

        Raises :class:`~trivet.errors.InvalidArgumentError` for a name that is no text.
        """
        outputs: dict[str, TensorSignature] = {}
        own = _read(session.get_outputs())
        for name, output in own.items():
            outputs[name] = output
            keys = name + KEYS
            if output.form in ("map", "maps") and keys not in own:
                outputs[keys] = replace(output, name=keys, keys_of=name)
        return cls(
            inputs=_read(session.get_inputs()),
            optional_inputs=_read(session.get_overridable_initializers()),
            outputs=outputs,
        )

    @property
    def batches(self) -> bool:
        """Whether every input and output has a first dimension of any size, and no input may be left out."""
        return can_batch((*self.inputs.values(), *self.outputs.values())) and not any(
            tensor.optional for tensor in self.inputs.values()
        )


def _read(arguments: Iterable[Any]) -> dict[str, TensorSignature]:
    try:
        return {a.name: _described(a) for a in arguments}
    except UnicodeDecodeError as error:
        # ONNX Runtime takes names as they are in the file, and decodes each when it is asked for.
        raise InvalidArgumentError(
            f"the name {error.object!r} in the model is not valid UTF-8; the file is damaged, or its exporter wrote"
            " another encoding"
        ) from error


def _described(argument: Any) -> TensorSignature:
    """A symbolic dimension is a name in ONNX Runtime, an unknown one ``None``; only tensors have any."""
    signature = TensorSignature(argument.name, argument.type, None)
    dims: tuple[int, ...] | None
    match signature.form:
        case "sequence":
            dims = None
        case "map":
            dims = (-1,)
        case "maps":
            dims = (-1, -1)
        case _:
            dims = tuple(dim if isinstance(dim, int) else -1 for dim in argument.shape)
    return replace(signature, dims=dims)
