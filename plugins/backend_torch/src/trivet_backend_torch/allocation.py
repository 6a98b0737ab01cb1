"""How the C library's ``malloc`` keeps what PyTorch frees.

PyTorch's memory on the host comes from ``malloc``, and goes back with each intermediate result. glibc gives what is
large, or at the end of its heap, back to the system at once, so that the next run has the system map and zero the same
pages again: a network of convolutions spent a third of its time on that. Told to keep them, glibc does not; what an
unloaded model leaves is given back all the same, as the kernel trims the heap then. Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 256 << 20
"""How much may lie unused at the end of a heap."""
_LARGEST_ON_HEAP = 32 << 20
"""glibc takes no more; what is larger gets pages of its own."""
_OPERATORS_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> None:
    """For the whole process, once, and without effect where the environment tunes ``malloc`` or it is not glibc's."""
    if sys.platform != "linux" or any(name in os.environ for name in _OPERATORS_CHOICE):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
