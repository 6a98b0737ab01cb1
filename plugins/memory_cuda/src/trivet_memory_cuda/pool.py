"""Pools: memory that is allocated once, and given out in parts. Nothing here touches CUDA.

Pinning host memory takes longer than most copies to a GPU, and allocating on a GPU may wait for all that it does;
taking a part of what is there takes microseconds.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable

ALIGNMENT = 256
"""Of each part, in bytes; what CUDA's own allocators give, so that kernels rely on it."""


class Blocks:
    """Which parts of ``size`` bytes are taken, by offset. One thread at a time."""

    def __init__(self, size: int) -> None:
        self._free = [(0, size - size % ALIGNMENT)] if size >= ALIGNMENT else []
        """Offset and size of what is free, by offset; no two touch."""
        self._taken: dict[int, int] = {}
        self.used = 0
        """Bytes that are taken, rounded up to :data:`ALIGNMENT`."""

    def take(self, byte_size: int) -> int | None:
        """The offset of so many bytes, at least one, from now on taken; ``None`` where there is no room in one piece.

        The smallest piece that is large enough, so that large ones stay whole.
        """
        size = -(-byte_size // ALIGNMENT) * ALIGNMENT
        fitting = [(free, offset) for offset, free in self._free if free >= size]
        if not fitting:
            return None
        free, offset = min(fitting)
        place = bisect_left(self._free, (offset, 0))
        self._free[place : place + 1] = [(offset + size, free - size)] if free > size else []
        self._taken[offset] = size
        self.used += size
        return offset

    def give_back(self, offset: int) -> None:
        """What was taken at ``offset`` is free again. Raises :class:`KeyError` where nothing was."""
        size = self._taken.pop(offset)
        self.used -= size
        insort(self._free, (offset, size))
        place = bisect_left(self._free, (offset, 0))
        for left in (place, place - 1):
            if 0 <= left < len(self._free) - 1:
                (start, length), (following, more) = self._free[left : left + 2]
                if start + length == following:
                    self._free[left : left + 2] = [(start, length + more)]


class Allocation:
    """Memory that is freed with the last reference to it."""

    __slots__ = ("_free", "address")

    def __init__(self, address: int, free: Callable[[], object]) -> None:
        """``free`` may be called on any thread, in the midst of anything, so it must not wait."""
        self.address = address
        self._free = free

    def __del__(self) -> None:
        self._free()


class Block:
    """Part of a pool, taken as long as anybody refers to this."""

    __slots__ = ("_offset", "_pool", "address", "byte_size")

    def __init__(self, pool: Pool, memory: Allocation, offset: int, byte_size: int) -> None:
        self._pool = pool
        self._offset = offset
        self.address = memory.address + offset
        self.byte_size = byte_size

    def __del__(self) -> None:
        self._pool.returned.append(self._offset)


class Pool:
    """Memory of one kind, allocated when something is first taken of it. Any thread."""

    def __init__(self, size: int, allocate: Callable[[int], Allocation]) -> None:
        """``allocate`` is called once, with ``size``; where it raises there is no pool."""
        self.size = size
        self._wanted = size > 0
        self._allocate = allocate
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        """Held for microseconds only: whoever asks for :attr:`used` must not wait for an allocation."""
        self._memory: Allocation | None = None
        self._blocks = Blocks(0)
        self.returned: deque[int] = deque()
        """Offsets that are free again. A finalizer may run while this very thread has the lock, so it does not ask for
        it: it leaves the offset here."""

    def take(self, byte_size: int) -> Block | None:
        """So many bytes, at least one; ``None`` where there is no room. Raises what allocating raises, but once."""
        memory = self._memory or self._open()
        if memory is None:
            return None
        with self._lock:
            self._take_back()
            offset = self._blocks.take(byte_size)
        return None if offset is None else Block(self, memory, offset, byte_size)

    def _open(self) -> Allocation | None:
        with self._opening:
            if self._memory is None and self._wanted:
                self._wanted = False
                memory = self._allocate(self.size)
                self._blocks, self._memory = Blocks(self.size), memory
            return self._memory

    def _take_back(self) -> None:
        while self.returned:
            self._blocks.give_back(self.returned.popleft())

    def holds(self, address: int) -> bool:
        """Whether there is memory of the pool at that address."""
        memory = self._memory
        return memory is not None and 0 <= address - memory.address < self.size

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        with self._lock:
            self._take_back()
            return self._blocks.used
