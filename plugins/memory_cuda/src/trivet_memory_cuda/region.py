"""A region that is mapped, and its parts as tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from trivet.datatypes import BYTES, DataType
from trivet.dlpack import CUDA, DeviceMemory
from trivet.errors import InternalError, InvalidArgumentError
from trivet.memory import RegionSlice
from trivet.tensor import Tensor, element_count

from trivet_memory_cuda.tensors import DeviceTensor, exported, read

if TYPE_CHECKING:
    from trivet_memory_cuda.pool import Allocation, Block
    from trivet_memory_cuda.pools import DevicePools
    from trivet_memory_cuda.runtime import Cuda


class Mapping:
    """Memory of another process. It stays mapped as long as this object, which every tensor over it holds."""

    __slots__ = ("_pools", "address", "cuda", "device")

    def __init__(self, cuda: Cuda, pools: DevicePools, handle: bytes, device: int) -> None:
        """Raises :class:`~trivet_memory_cuda.failures.CudaError` where CUDA does not take the handle."""
        self.cuda = cuda
        self._pools = pools
        self.device = device
        self.address = cuda.open(handle, device)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self.cuda.close(self.address, self.device)

    def moved(self, address: int, byte_size: int) -> Block | Allocation:
        """A copy on the device of bytes of the mapping, at least one, where any kernel can read it."""
        copy = self._pools.take(byte_size, self.device)
        self.cuda.copy(copy.address, [(address, byte_size)], self.device)
        return copy


class CudaSlice(RegionSlice):
    """Part of a region, from an address on."""

    __slots__ = ("_address", "_byte_size", "_mapping")

    on_device = True

    def __init__(self, mapping: Mapping, address: int, byte_size: int) -> None:
        self._mapping = mapping
        self._address = address
        self._byte_size = byte_size

    def tensor(self, name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        """The tensor stays on its device, except ``BYTES``, which are read to the host at once."""
        mapping, size = self._mapping, self._byte_size
        if datatype is BYTES:
            data = read(mapping.cuda, self._address, size, mapping.device).data
            return Tensor.from_wire(name, datatype, shape, data)
        expected = element_count(shape) * datatype.itemsize
        if size != expected:
            raise InvalidArgumentError(
                f"input '{name}' has {size} bytes of data, expected {expected} for {datatype} of shape {list(shape)}"
            )
        # A kernel that reads an element across its alignment fails, and the context of all of the process with it.
        place = _PartOfRegion if self._address % datatype.itemsize == 0 or not size else _MovedPart
        return Tensor.from_dlpack(name, place(mapping, self._address, datatype, shape), datatype, shape)

    def write(self, tensor: Tensor) -> int:
        """From a CUDA device it goes directly, and everything else by the host. It is there when this returns."""
        if tensor.on_device and tensor.datatype is not BYTES:
            kind, device = tensor.dlpack().__dlpack_device__()
            if kind == CUDA:
                cuda = self._mapping.cuda
                found, capsule = exported(cuda, tensor, device, cuda.stream(self._mapping.device))
                if found.is_contiguous:
                    self._fill(tensor.name, found.address, found.byte_size)
                    return found.byte_size
                del capsule
        data = np.frombuffer(tensor.wire(), np.uint8)
        self._fill(tensor.name, data.ctypes.data, data.nbytes)
        return data.nbytes

    def _fill(self, output: str, address: int, byte_size: int) -> None:
        if byte_size > self._byte_size:
            raise InternalError(
                f"shared memory size specified with the request for output '{output}' ({self._byte_size} bytes)"
                f" should be at least {byte_size} bytes to hold the results"
            )
        if byte_size:
            self._mapping.cuda.copy(self._address, [(address, byte_size)], self._mapping.device)


class _PartOfRegion(DeviceTensor):
    """Part of a region, for a framework."""

    __slots__ = ()

    def __init__(self, mapping: Mapping, address: int, datatype: DataType, shape: tuple[int, ...]) -> None:
        super().__init__(mapping.cuda, mapping, address, mapping.device, datatype, shape)


class _MovedPart(_PartOfRegion):
    """Part of a region that no kernel could read where it is; a framework gets a copy beside it, made when it asks."""

    __slots__ = ("_copy", "_mapping")

    def __init__(self, mapping: Mapping, address: int, datatype: DataType, shape: tuple[int, ...]) -> None:
        super().__init__(mapping, address, datatype, shape)
        self._mapping = mapping
        self._copy: Block | Allocation | None = None

    def __dlpack__(self, *, dl_device: tuple[int, int] | None = None, **options: Any) -> Any:
        if dl_device is not None and tuple(dl_device) != self.device:
            return super().__dlpack__(dl_device=dl_device, **options)
        if self._copy is None:
            # Kept with the tensor, that is until its request is answered: whoever reads it may not have finished when
            # it lets go of its own view.
            self._copy = self._mapping.moved(self.address, self.nbytes)
        copy = DeviceMemory(self._copy, self._copy.address, self.device, self.datatype, self.shape)
        return copy.__dlpack__(**options)
