"""Memory that is no longer used: collected out of the way of requests, and given back to the operating system.

A full collection of cyclic garbage walks every object and stops all threads meanwhile: 35 ms with the example models
loaded, 140 ms once torch is imported. What lives when start-up is over lives long, so it is set aside and never walked
again, unless a model that is part of it goes away. Reference counting frees almost everything without any of this.
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
from collections.abc import Callable
from functools import cache
from time import perf_counter_ns

_lock = threading.Lock()
_set_aside_ns = 0


def set_aside() -> None:
    """Exempt everything that is alive now from collections. Any thread."""
    global _set_aside_ns  # noqa: PLW0603 - the collector is one per process, and so is what is known about it
    with _lock:
        gc.collect()
        gc.freeze()
        _set_aside_ns = perf_counter_ns()


class _Requests:
    """Who asked for a collection. One serves all that asked before it began, so that a server which unloads hundreds of
    models at its end does not walk everything hundreds of times.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._served = 0
        self._oldest_ns = math.inf

    def ask(self, made_ns: int) -> int:
        """Ask for something that was made at ``made_ns``. Returns the request's number."""
        with self._lock:
            self._asked += 1
            self._oldest_ns = min(self._oldest_ns, made_ns)
            return self._asked

    def begin(self, number: int) -> float | None:
        """When the oldest was made of what the collection that begins now is for; ``None`` where ``number`` was served.

        Not by two threads at a time.
        """
        with self._lock:
            if number <= self._served:
                return None
            self._served = self._asked
            oldest_ns, self._oldest_ns = self._oldest_ns, math.inf
            return oldest_ns


_requests = _Requests()


def collect(made_ns: int = 0) -> bool:
    """Free cycles of something that was made at ``made_ns`` (``time.perf_counter_ns()``) and has just been dropped.

    Walks everything only where that was set aside. Returns false where the collection that another asked for has freed
    this too. Any thread.
    """
    number = _requests.ask(made_ns)
    with _lock:
        oldest_ns = _requests.begin(number)
        if oldest_ns is None:
            return False
        if oldest_ns > _set_aside_ns or not _set_aside_ns:
            gc.collect()
        else:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
    return True


def release(made_ns: int = 0) -> None:
    """Give memory of what was made at ``made_ns`` (0: unknown) and has just been dropped back to the operating system.

    glibc keeps what was freed for the next allocation, so a process that unloaded a model looks as large as before. Any
    thread.
    """
    if collect(made_ns):
        trim()


def trim() -> None:
    """Give memory that is free already back, after a model was loaded: parsing its file leaves up to its size behind.

    Takes milliseconds, without the GIL. Any thread. Does nothing where the C library is not glibc.
    """
    malloc_trim = _malloc_trim()
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The function of glibc, looked up once: ctypes keeps something of each look-up for good."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
