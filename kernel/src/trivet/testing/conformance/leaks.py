"""What is left behind: threads, open files, memory."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds now."""

    threads: frozenset[str]
    """Names of Python's threads; those of worker pools, which are kept, left out."""
    files: int
    """Open file descriptors; 0 where the system does not tell."""
    resident: int
    """Bytes in memory; 0 where the system does not tell."""


@contextmanager
def apart() -> Iterator[None]:
    """Leave aside what is there already: :func:`alive` does not find it, and collections do not walk it.

    In a process that has imported a framework or two a collection takes a third of a second, and these tests need many.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def held() -> Held:
    """Look, after a collection of garbage."""
    gc.collect()
    names = {thread.name for thread in threading.enumerate() if "AnyIO" not in thread.name}
    files = len(list(_DESCRIPTORS.iterdir())) if _DESCRIPTORS.is_dir() else 0
    resident = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0
    return Held(frozenset(names), files, resident)


def alive(*kinds: type) -> list[object]:
    """Objects of these classes, subclasses included, of what :func:`apart` does not leave aside."""
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), kinds)]


def eventually(holds: Callable[[], bool], timeout_s: float = 10) -> bool:
    """Whether something comes true that no event announces (the end of somebody's thread)."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
