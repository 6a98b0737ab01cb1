"""Memory of GPUs that any machine has: ordinary memory that is said to be on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import DataType
from trivet.dlpack import CPU, CUDA, DeviceMemory, describe
from trivet.memory import GpuMemory
from trivet.tensor import Tensor


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy at a multiple of 256 bytes, where CUDA's own allocators put what they give out."""
    memory = np.empty(array.nbytes + 256, np.uint8)
    start = -memory.ctypes.data % 256
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class InHostMemory(DeviceMemory):
    """An array that is said to be on a GPU."""

    __slots__ = ()

    def __init__(self, array: NDArray[Any], datatype: DataType, device: int = 0) -> None:
        super().__init__(array, array.ctypes.data, (CUDA, device), datatype, array.shape)

    def on_host(self) -> DeviceMemory:
        return DeviceMemory(self.owner, self.address, (CPU, 0), self.datatype, self.shape)


def on_gpu(name: str, array: NDArray[Any], datatype: DataType) -> Tensor:
    """An array as a tensor that is said to be on GPU 0."""
    return Tensor.from_dlpack(name, InHostMemory(array, datatype), datatype, array.shape)


def address_of(tensor: Tensor) -> int:
    """Where a tensor that is on a device lies."""
    assert tensor.on_device
    return describe(tensor.dlpack().__dlpack__()).address


class HostGpu(GpuMemory):
    """One GPU, whose memory is used up at will."""

    def __init__(self) -> None:
        self.is_full = False

    def joined(self, tensors: Sequence[Tensor], shape: tuple[int, ...]) -> DeviceMemory | None:
        if self.is_full:
            return None
        whole = np.concatenate([tensor.numpy().reshape(-1) for tensor in tensors]).reshape(shape)
        return InHostMemory(aligned(whole), tensors[0].datatype)
