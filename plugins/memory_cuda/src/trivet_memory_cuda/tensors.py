"""Memory on a GPU as tensors for frameworks, and tensors of frameworks as memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from trivet.datatypes import DataType
from trivet.dlpack import CPU, CUDA, Description, DeviceMemory, describe
from trivet.errors import InternalError
from trivet.tensor import Tensor, element_count

if TYPE_CHECKING:
    from trivet_memory_cuda.runtime import Cuda


class DeviceTensor(DeviceMemory):
    """Memory on a GPU, for a framework. Who asks for it on the host gets a copy."""

    __slots__ = ("_cuda",)

    def __init__(
        self, cuda: Cuda, owner: object, address: int, device: int, datatype: DataType, shape: tuple[int, ...]
    ) -> None:
        super().__init__(owner, address, (CUDA, device), datatype, shape)
        self._cuda = cuda

    def on_host(self) -> DeviceMemory:
        """A copy in host memory."""
        data = read(self._cuda, self.address, self.nbytes, self.device[1])
        return DeviceMemory(data, data.ctypes.data, (CPU, 0), self.datatype, self.shape)


def read(cuda: Cuda, address: int, byte_size: int, device: int) -> NDArray[np.uint8]:
    """A copy on the host of bytes on a GPU."""
    copy = np.empty(byte_size, np.uint8)
    if byte_size:
        cuda.copy(copy.ctypes.data, [(address, byte_size)], device)
    return copy


def exported(cuda: Cuda, tensor: Tensor, device: int, stream: int) -> tuple[Description, Any]:
    """Where the elements of a tensor on a GPU are, and a capsule that keeps them there.

    They are there for what is begun on ``stream`` from now on: the producer makes that wait for what is still being
    computed. Raises :class:`~trivet.errors.InternalError` where they are not of the size that the datatype says.
    """
    # PyTorch exports only what is on the thread's current GPU.
    with cuda.current(device):
        capsule = tensor.dlpack().__dlpack__(stream=stream)
    found = describe(capsule)
    expected = element_count(tensor.shape) * tensor.datatype.itemsize
    if found.byte_size != expected:
        raise InternalError(
            f"tensor '{tensor.name}' has {found.byte_size} bytes on GPU {device}, expected {expected} for"
            f" {tensor.datatype} of shape {list(tensor.shape)}"
        )
    return found, capsule
