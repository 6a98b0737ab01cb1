"""Who may write into an array, and who may still write into it later.

In Triton a model runs in a process of its own: its inputs are copies that it may change in place, and its outputs are
copied out before the next ``execute``. Models rely on both. Here they share memory with the server, and this module
keeps the promise at the least cost.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL = 32 * 1024
"""Bytes up to which copying takes no longer than finding out whether a copy is needed."""


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of ``array`` through which nobody can write."""
    view = array.view()
    view.flags.writeable = False
    return view


def is_released(array: NDArray[Any]) -> bool:
    """Whether nothing but one attribute or list of the caller refers to ``array`` or its memory.

    Pass ``holder.array`` or ``arrays[i]``, not a local variable. A model may keep its output (a preallocated buffer, a
    cached result, a view of either) and write the next result into it while this one is still being sent. One that was
    released can be sent without a copy. That can be told only of memory that numpy owns and of immutable bytes;
    anything else (a framework's tensor, a memory map) counts as kept.
    """
    owned, view = _UNSHARED
    counts, base = _references(array)
    return (
        (base is None or isinstance(base, bytes)) and counts[0] <= owned and all(count <= view for count in counts[1:])
    )


def _references(array: NDArray[Any]) -> tuple[list[int], object]:
    """Reference counts of ``array`` and of the arrays that it is a view of, and what owns the memory in the end."""
    counts: list[int] = []
    base: object = array
    while isinstance(base, np.ndarray):
        counts.append(sys.getrefcount(base))
        base = base.base
    return counts, base


def _unshared() -> tuple[int, int]:
    """The counts of an array that only a list refers to, and of the one that it is a view of.

    Measured, as the interpreter's own share while counting differs between versions of Python.
    """

    def counts(array: NDArray[Any]) -> list[int]:
        return _references(array)[0]

    arrays = [np.empty(2)[1:]]
    owned, view = counts(arrays[0])
    return owned, view


_UNSHARED = _unshared()
