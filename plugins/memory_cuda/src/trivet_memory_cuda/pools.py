"""The provider's pools: pinned host memory for backends, and memory of each GPU for copies that it makes there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from trivet.dlpack import CUDA, DeviceMemory
from trivet.errors import InvalidArgumentError, TrivetError
from trivet.memory import GpuMemory, PinnedMemory, PoolUsage
from trivet.tensor import Tensor, element_count

from trivet_memory_cuda.failures import OUT_OF_MEMORY, CudaError
from trivet_memory_cuda.options import CUDA_POOL_DEFAULT
from trivet_memory_cuda.pool import Allocation, Block, Pool
from trivet_memory_cuda.tensors import DeviceTensor, exported

if TYPE_CHECKING:
    from trivet_memory_cuda.runtime import Cuda

logger = logging.getLogger(__name__)


class PinnedPool(PinnedMemory):
    """Pinned memory, and ordinary memory where there is none. The pool is made when something is first taken."""

    def __init__(self, size: int, devices: Callable[[], Cuda]) -> None:
        self._pool = Pool(size, lambda size: devices().allocate_host(size))
        self._warned = not size  # who wants none need not be told

    def take(self, byte_size: int) -> NDArray[np.uint8]:
        block = None
        if byte_size:
            try:
                block = self._pool.take(byte_size)
            except TrivetError as error:
                self._warn(error.message)
            if block is not None:
                return np.asarray(_HostMemory(block))
            if not self._warned:
                self._warn(
                    f"{self._pool.used} of {self._pool.size} bytes are taken, no room for {byte_size}; give it more"
                    " with --pinned-memory-pool-byte-size"
                )
        return np.empty(byte_size, np.uint8)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "failed to allocate pinned system memory, falling back to non-pinned system memory: %s", reason
            )

    def holds(self, array: NDArray[Any]) -> bool:
        return self._pool.holds(array.__array_interface__["data"][0])

    @property
    def usage(self) -> PoolUsage:
        """How much of it is taken."""
        return PoolUsage("pinned", 0, self._pool.size, self._pool.used)


class _HostMemory:
    """A block for numpy, whose arrays keep this object, and it the block."""

    __slots__ = ("__array_interface__", "_block")

    def __init__(self, block: Block) -> None:
        self._block = block
        self.__array_interface__ = {
            "version": 3, "shape": (block.byte_size,), "typestr": "|u1", "data": (block.address, False),
        }  # fmt: skip


class DevicePools(GpuMemory):
    """A pool on each GPU, each made when something is first taken there. Any thread."""

    def __init__(self, sizes: Mapping[int, int], devices: Callable[[], Cuda]) -> None:
        """``sizes`` in bytes by GPU; one that is not among them has a pool of the default size."""
        self._sizes = sizes
        self._devices = devices
        self._lock = threading.Lock()
        self._pools: dict[int, Pool] = {}

    @classmethod
    def of(cls, values: Sequence[str], devices: Callable[[], Cuda]) -> DevicePools:
        """From the values of ``--cuda-memory-pool-byte-size``.

        Raises :class:`~trivet.errors.InvalidArgumentError` quoting what is malformed.
        """
        sizes: dict[int, int] = {}
        for value in values:
            device, _, size = value.partition(":")
            if not (device.isdecimal() and size.isdecimal()):
                raise InvalidArgumentError(
                    f"--cuda-memory-pool-byte-size={value}: expected GPU:BYTES, e.g. 0:{CUDA_POOL_DEFAULT}"
                )
            sizes[int(device)] = int(size)
        return cls(sizes, devices)

    def take(self, byte_size: int, device: int) -> Block | Allocation:
        """So many bytes, at least one, on a GPU: of its pool, else an allocation of their own, as in Triton.

        Raises :class:`~trivet.errors.InternalError` where the GPU has no memory left.
        """
        cuda = self._devices()
        with self._lock:
            pool = self._pools.get(device)
            if pool is None:
                size = self._sizes.get(device, CUDA_POOL_DEFAULT)
                pool = self._pools[device] = Pool(size, lambda size: cuda.allocate(size, device))
        try:
            block = pool.take(byte_size)
        except TrivetError as error:
            block = None
            logger.warning("there is no pool of memory on GPU %d: %s", device, error.message)
        return cuda.allocate(byte_size, device) if block is None else block

    def joined(self, tensors: Sequence[Tensor], shape: tuple[int, ...]) -> DeviceMemory | None:
        datatype, byte_size = tensors[0].datatype, element_count(shape) * tensors[0].datatype.itemsize
        devices = {tuple(tensor.dlpack().__dlpack_device__()) for tensor in tensors}
        kind, device = devices.pop()
        if devices or kind != CUDA or not byte_size:
            return None
        cuda = self._devices()
        stream = cuda.stream(device)
        given = [exported(cuda, tensor, device, stream) for tensor in tensors]
        if not all(found.is_contiguous for found, _ in given):
            return None
        try:
            place = self.take(byte_size, device)
        except CudaError as error:
            if error.number != OUT_OF_MEMORY:
                raise
            return None
        cuda.copy(place.address, [(found.address, found.byte_size) for found, _ in given], device)
        return DeviceTensor(cuda, place, place.address, device, datatype, shape)

    @property
    def usage(self) -> list[PoolUsage]:
        """How much is taken of each pool that there is."""
        with self._lock:
            pools = sorted(self._pools.items())
        return [PoolUsage("cuda", device, pool.size, pool.used) for device, pool in pools]
