"""Inputs that are on this GPU already: tensors of any framework, and regions of clients, by DLPack."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.dlpack import CUDA, describe
from trivet.tensor import Tensor

from trivet_backend_trt.device import Stream
from trivet_backend_trt.memory import ALIGNMENT, byte_size


@dataclass(frozen=True, slots=True)
class Place:
    """Where an input is on the device, and what keeps it there."""

    address: int
    keeps: object

    @property
    def aligned(self) -> bool:
        """Whether TensorRT can read it there."""
        return self.address != 0 and self.address % ALIGNMENT == 0


def place_of(tensor: Tensor, stream: Stream) -> Place | None:
    """Where a tensor's elements are on the stream's device, usable on the stream; ``None`` where they are elsewhere.

    The tensor's producer makes the stream wait for what is still being computed.
    """
    if not tensor.on_device:
        return None
    source = tensor.dlpack()
    if tuple(source.__dlpack_device__()) != (CUDA, stream.device.index):
        return None
    capsule = source.__dlpack__(stream=stream.handle)
    found = describe(capsule)
    if not found.is_contiguous or found.byte_size != byte_size(tensor.shape, tensor.datatype.itemsize):
        return None
    return Place(found.address, capsule)
