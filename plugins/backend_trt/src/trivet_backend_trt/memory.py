"""Device memory that an instance uses again: buffers for what only it sees, blocks that come back for what it gives
away.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
from trivet.datatypes import DataType
from trivet.dlpack import CPU, CUDA, DeviceMemory
from trivet.tensor import element_count

from trivet_backend_trt.device import Device, Stream, copy_to_host

ALIGNMENT = 256
"""What TensorRT wants of an address, in bytes."""

IDLE_BYTES = 256 << 20
"""Of blocks that came back and wait to be used again, for each instance."""


class Pool:
    """Blocks of memory, freed when the pool and its last block are gone.

    :meth:`take` belongs to the instance's thread. A block comes back from any thread, and from any place in it, as its
    last user lets go.
    """

    def __init__(self, allocate: Callable[[int], int], free: Callable[[int], None]) -> None:
        self._allocate = allocate
        self._free = free
        # Of this kind, as a finalizer may put into it while this thread takes from it.
        self._returned: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._idle: dict[int, list[int]] = {}
        self._idle_bytes = 0
        self._ended = False

    def take(self, byte_size: int) -> Block:
        """A block of at least so many bytes, of any content. Raises what ``allocate`` does."""
        size = _size_class(byte_size)
        self._collect()
        idle = self._idle.get(size)
        if not idle:
            return Block(self, self._allocate(size), size)
        self._idle_bytes -= size
        return Block(self, idle.pop(), size)

    def give_back(self, address: int, size: int) -> None:
        """What a block does at its end."""
        if self._ended:
            # A garbage collection may end a pool before the blocks that it finds with it.
            self._free(address)
        else:
            self._returned.put((address, size))

    def _collect(self) -> None:
        while not self._returned.empty():
            address, size = self._returned.get_nowait()
            if self._idle_bytes + size > IDLE_BYTES:
                self._free(address)
            else:
                self._idle_bytes += size
                self._idle.setdefault(size, []).append(address)

    def __del__(self) -> None:
        self._ended = True
        self._collect()
        for addresses in self._idle.values():
            for address in addresses:
                self._free(address)


def _size_class(byte_size: int) -> int:
    """Up to an eighth more than was asked for, so that outputs of like size use the same blocks."""
    step = max(ALIGNMENT, 1 << max(byte_size.bit_length() - 4, 0))
    return max(-(-byte_size // step), 1) * step


class Block:
    """Memory of a pool, until nobody refers to it."""

    __slots__ = ("_pool", "address", "byte_size")

    def __init__(self, pool: Pool, address: int, byte_size: int) -> None:
        self._pool = pool
        self.address = address
        self.byte_size = byte_size

    def __del__(self) -> None:
        self._pool.give_back(self.address, self.byte_size)


class Buffer:
    """Device memory that grows to what was asked of it, and keeps its address while it need not."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.address = 0
        self._byte_size = 0

    def reserve(self, byte_size: int) -> int:
        """The address of at least so many bytes; what they held before is gone where they had to grow."""
        if byte_size > self._byte_size or not self.address:
            self.close()
            size = max(byte_size, ALIGNMENT)
            self.address = self._stream.allocate(size)
            self._byte_size = size
        return self.address

    def close(self) -> None:
        """Free it."""
        if self.address:
            self._stream.free(self.address)
        self.address = self._byte_size = 0

    def __del__(self) -> None:
        self.close()


class DeviceResult(DeviceMemory):
    """An output that was left on the GPU, complete. Who asks for it on the host gets a copy."""

    __slots__ = ("_device",)

    def __init__(
        self, device: Device, block: Block | None, address: int, datatype: DataType, shape: tuple[int, ...]
    ) -> None:
        super().__init__(block, address, (CUDA, device.index), datatype, shape)
        self._device = device

    def on_host(self) -> DeviceMemory:
        """A copy in host memory."""
        copy = np.empty(self.nbytes, np.uint8)
        copy_to_host(self._device, copy.ctypes.data, self.address, self.nbytes)
        return DeviceMemory(copy, copy.ctypes.data, (CPU, 0), self.datatype, self.shape)


def byte_size(shape: tuple[int, ...], element_bytes: int) -> int:
    """Of a tensor without gaps."""
    return element_count(shape) * element_bytes
