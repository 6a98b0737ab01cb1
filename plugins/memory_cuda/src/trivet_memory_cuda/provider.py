"""The provider: which memory of other processes is mapped. On the event loop; its slices on any thread."""

from __future__ import annotations

import threading
from collections import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trivet.errors import InternalError, InvalidArgumentError, UnavailableError
from trivet.memory import GpuMemory, PinnedMemory, PoolUsage, RegionSlice, RegionTable
from trivet.options import Settings

from trivet_memory_cuda.failures import LOST, PASSING, CudaError
from trivet_memory_cuda.pools import DevicePools, PinnedPool
from trivet_memory_cuda.region import CudaSlice, Mapping

if TYPE_CHECKING:
    from trivet_memory_cuda.runtime import Cuda

HANDLE_SIZE = 64
"""Bytes of a ``cudaIpcMemHandle_t`` (``CUDA_IPC_HANDLE_SIZE``)."""

_FAILED = "failed to register shared memory region"


class CudaMemory(RegionTable[Mapping]):
    """Triton's CUDA shared memory extension. The details of a region are its ``raw_handle`` and ``device_id``.

    It has pools of pinned memory and of memory on each GPU, too. CUDA is first touched when a client registers
    something, or a backend takes pinned memory, so that a server where nobody does costs no memory on any device.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for a size of a pool that is none."""
        super().__init__()
        self._cuda: Cuda | None = None
        self._finding = threading.Lock()
        size = settings["pinned_memory_pool_byte_size"]
        if size < 0:
            raise InvalidArgumentError(f"--pinned-memory-pool-byte-size={size}: expected at least 0")
        self._pinned = PinnedPool(size, self._devices)
        self._on_devices = DevicePools.of(settings["cuda_memory_pool_byte_size"], self._devices)

    @property
    def pinned(self) -> PinnedMemory:
        return self._pinned

    @property
    def gpu(self) -> GpuMemory:
        return self._on_devices

    def pools(self) -> Sequence[PoolUsage]:
        return [self._pinned.usage, *self._on_devices.usage]

    def map(self, byte_size: int, details: abc.Mapping[str, Any]) -> tuple[Mapping, abc.Mapping[str, Any]]:
        """Where nothing else has used the device yet, this makes CUDA's context on it, which takes a moment."""
        handle, device = details["raw_handle"], details["device_id"]
        if byte_size <= 0:
            raise InvalidArgumentError(f"{_FAILED}: 'byte_size' is {byte_size}, expected at least 1")
        if len(handle) != HANDLE_SIZE:
            raise InvalidArgumentError(
                f"{_FAILED}: 'raw_handle' has {len(handle)} bytes, expected the {HANDLE_SIZE} of a cudaIpcMemHandle_t"
            )
        try:
            cuda = self._devices()
        except UnavailableError as error:
            raise UnavailableError(f"{_FAILED}: {error.message}") from error
        if not 0 <= device < cuda.device_count:
            raise InvalidArgumentError(
                f"{_FAILED}: there is no CUDA device {device}; this server has {cuda.device_count}, counted from 0"
            )
        return _map(cuda, self._on_devices, handle, device, byte_size), {"device_id": device}

    def _devices(self) -> Cuda:
        """The devices, asked for until there are any: a driver may be installed while the server runs. Any thread."""
        with self._finding:
            if self._cuda is None:
                try:
                    # A tenth of a second, for those who use it.
                    from trivet_memory_cuda.runtime import Cuda  # noqa: PLC0415
                except ImportError as error:
                    raise UnavailableError(str(error)) from error
                self._cuda = Cuda()
            return self._cuda

    def part(self, mapped: Mapping, offset: int, byte_size: int) -> RegionSlice:
        return CudaSlice(mapped, mapped.address + offset, byte_size)


def _map(cuda: Cuda, pools: DevicePools, handle: bytes, device: int, byte_size: int) -> Mapping:
    try:
        mapping = Mapping(cuda, pools, handle, device)
        there = cuda.bytes_behind(mapping.address, device)
    except CudaError as error:
        kind = InternalError if error.number in LOST else UnavailableError if error.number in PASSING else None
        raise (kind or InvalidArgumentError)(f"{_FAILED}: {error.message}") from error
    if byte_size > there:
        raise InvalidArgumentError(f"{_FAILED}: the memory has {there} bytes, expected at least {byte_size}")
    return mapping
