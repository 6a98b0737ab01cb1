"""A machine without a GPU: what would be mapped, allocated and copied is written down."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from trivet.options import Settings
from trivet_memory_cuda.failures import OUT_OF_MEMORY, CudaError
from trivet_memory_cuda.options import OPTIONS
from trivet_memory_cuda.pool import Allocation
from trivet_memory_cuda.provider import HANDLE_SIZE, CudaMemory
from trivet_memory_cuda.runtime import Cuda

HANDLE = bytes(range(HANDLE_SIZE))
BASE = 0x7F00_0000_0000
SIZE = 4096


class Ledger(Cuda):
    """Keeps the books. There is memory only behind what is pinned; nothing of a device can be read or written."""

    def __init__(self, device_count: int = 2) -> None:
        self.device_count = device_count
        self.mapped: Counter[tuple[bytes, int]] = Counter()
        self.allocated: Counter[int | None] = Counter()
        """Bytes by device, ``None`` for the host."""
        self.copies: list[tuple[int, int, int, int]] = []
        self.most = 1 << 40
        """Bytes that a device or the host has."""
        self.refuses: int | None = None
        """The number of the error that every handle is answered with."""
        self.on = 0
        """The thread's current device."""

    def open(self, handle: bytes, device: int) -> int:
        if handle == bytes(HANDLE_SIZE):
            raise CudaError("failed to open CUDA IPC handle: invalid argument (cudaErrorInvalidValue)", 1)
        if self.refuses is not None:
            raise CudaError("failed to open CUDA IPC handle: so it is", self.refuses)
        self.mapped[handle, device] += 1
        return BASE

    def close(self, address: int, device: int) -> None:
        assert address == BASE
        assert self.mapped[HANDLE, device] > 0
        self.mapped[HANDLE, device] -= 1

    def bytes_behind(self, address: int, device: int) -> int:
        return SIZE

    def copy(self, target: int, parts: Sequence[tuple[int, int]], device: int) -> None:
        for source, byte_size in parts:
            self.copies.append((target, source, byte_size, device))
            target += byte_size

    def stream(self, device: int) -> int:
        return 70 + device

    @contextmanager
    def current(self, device: int) -> Iterator[None]:
        before, self.on = self.on, device
        yield
        self.on = before

    def allocate(self, byte_size: int, device: int) -> Allocation:
        return self._allocate(byte_size, device, BASE << 1)

    def allocate_host(self, byte_size: int) -> Allocation:
        memory = (ctypes.c_uint8 * (byte_size + 256))()
        return self._allocate(byte_size, None, -(-ctypes.addressof(memory) // 256) * 256, memory)

    def _allocate(self, byte_size: int, device: int | None, address: int, *keep: object) -> Allocation:
        if self.allocated[device] + byte_size > self.most:
            raise CudaError("out of memory (cudaErrorMemoryAllocation)", OUT_OF_MEMORY)
        self.allocated[device] += byte_size

        def free() -> Any:
            self.allocated[device] -= byte_size
            return keep

        return Allocation(address, free)


class HostCuda(Ledger):
    """As if the memory of another process on a GPU were in this one, on the host: what is copied is copied."""

    exported: ClassVar[dict[bytes, Any]] = {}
    """Memory by the handle that clients know it by."""

    def open(self, handle: bytes, device: int) -> int:
        return ctypes.addressof(self.exported[handle])

    def close(self, address: int, device: int) -> None:
        return

    def allocate(self, byte_size: int, device: int) -> Allocation:
        memory = (ctypes.c_uint8 * (byte_size + 256))()
        return self._allocate(byte_size, device, -(-ctypes.addressof(memory) // 256) * 256, memory)

    def bytes_behind(self, address: int, device: int) -> int:
        return next(len(each) for each in self.exported.values() if ctypes.addressof(each) == address)

    def copy(self, target: int, parts: Sequence[tuple[int, int]], device: int) -> None:
        super().copy(target, parts, device)
        for source, byte_size in parts:
            ctypes.memmove(target, source, byte_size)
            target += byte_size


def provider(ledger: Ledger, **settings: Any) -> CudaMemory:
    """The provider, as it is on a machine with that many GPUs."""
    made = CudaMemory(Settings.of(OPTIONS, **settings))
    made._cuda = ledger
    return made
