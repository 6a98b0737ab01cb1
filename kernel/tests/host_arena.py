"""Pinned memory that any machine has: ordinary memory stands for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.memory import PinnedMemory

ALIGNMENT = 256


class HostArena(PinnedMemory):
    """Gives out one piece behind the other, and takes none back."""

    def __init__(self, size: int = 8 << 20) -> None:
        self.memory = np.zeros(size, np.uint8)
        self.taken = 0

    def take(self, byte_size: int) -> NDArray[np.uint8]:
        start = self.taken
        self.taken += -(-byte_size // ALIGNMENT) * ALIGNMENT
        assert self.taken <= self.memory.nbytes
        return self.memory[start : start + byte_size]

    def holds(self, array: NDArray[Any]) -> bool:
        return np.may_share_memory(array, self.memory)
