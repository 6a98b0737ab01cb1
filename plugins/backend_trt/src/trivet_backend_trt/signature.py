"""What a plan says of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trivet import datatypes
from trivet.datatypes import DataType

from trivet_backend_trt.profiles import Bounds, Profile

# The name of a tensorrt.DataType, and ours. What is missing here (FP8, INT4, FP4, E8M0) has no v2 datatype.
_DATATYPES: dict[str, DataType] = {
    "FLOAT": datatypes.FP32,
    "HALF": datatypes.FP16,
    "BF16": datatypes.BF16,
    "INT8": datatypes.INT8,
    "INT32": datatypes.INT32,
    "INT64": datatypes.INT64,
    "BOOL": datatypes.BOOL,
    "UINT8": datatypes.UINT8,
}


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output of a plan."""

    name: str
    trt_type: str
    """As TensorRT names it: ``"FLOAT"``."""
    dims: tuple[int, ...]
    """With the batch dimension; -1 is any size that a profile allows, of an output also one that the data decides."""
    is_shape_tensor: bool = False
    """Its values are sizes: it lives on the host, where TensorRT reads (or writes) them before it computes."""
    linear: bool = True
    """Row-major, element by element."""
    padded_dim: int = -1
    """Of a format with vectors: the dimension (batch included) that must fill whole vectors of ``vector`` elements."""
    vector: int = 1
    format: str = "linear"
    """For people, e.g. ``Channel major FP16 format where C % 8 == 0``."""

    @property
    def datatype(self) -> DataType | None:
        """The element type; ``None`` for one that requests cannot carry."""
        return _DATATYPES.get(self.trt_type)

    @property
    def framework_type(self) -> str:
        """The same as :attr:`trt_type`, as :mod:`trivet.signatures` calls it."""
        return self.trt_type

    @property
    def element_bytes(self) -> int:
        """Bytes of an element, at most: those that requests cannot carry have one or less."""
        return self.datatype.itemsize if self.datatype is not None else 1


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a plan, by name and in its order, and its profiles."""

    inputs: dict[str, TensorSignature]
    outputs: dict[str, TensorSignature]
    profiles: tuple[Profile, ...]

    @classmethod
    def of(cls, trt: Any, engine: Any) -> Signature:
        """Read it from an ``ICudaEngine`` of the module ``trt``."""
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        tensors = [(engine.get_tensor_mode(name), _tensor(trt, engine, name)) for name in names]
        inputs = _by_name(tensor for mode, tensor in tensors if mode == trt.TensorIOMode.INPUT)
        outputs = _by_name(tensor for mode, tensor in tensors if mode == trt.TensorIOMode.OUTPUT)
        profiles = [_profile(engine, inputs.values(), index) for index in range(engine.num_optimization_profiles)]
        return cls(inputs, outputs, tuple(profiles) or (Profile(0, {}, {}),))


def _by_name(tensors: Iterable[TensorSignature]) -> dict[str, TensorSignature]:
    return {tensor.name: tensor for tensor in tensors}


def _tensor(trt: Any, engine: Any, name: str) -> TensorSignature:
    # The enumeration of formats is missing from the lean runtime, and with it every call that returns one.
    described = engine.get_tensor_format_desc(name)
    linear = described.startswith("Row major linear")
    return TensorSignature(
        name,
        engine.get_tensor_dtype(name).name,
        tuple(engine.get_tensor_shape(name)),
        is_shape_tensor=engine.get_tensor_location(name) == trt.TensorLocation.HOST,
        linear=linear,
        padded_dim=-1 if linear else engine.get_tensor_vectorized_dim(name),
        vector=1 if linear else engine.get_tensor_components_per_element(name),
        format="linear" if linear else described,
    )


def _profile(engine: Any, inputs: Iterable[TensorSignature], index: int) -> Profile:
    shapes: dict[str, Bounds] = {}
    values: dict[str, Bounds] = {}
    for tensor in inputs:
        if tensor.is_shape_tensor:
            # Number and name, in this order: the bindings have the names of the two arguments the wrong way round.
            found = engine.get_tensor_profile_values(index, tensor.name)
            if found:
                values[tensor.name] = Bounds(*(tuple(value) for value in found))
        if -1 in tensor.dims:
            shapes[tensor.name] = Bounds(*(tuple(dims) for dims in engine.get_tensor_profile_shape(tensor.name, index)))
    return Profile(index, shapes, values)
