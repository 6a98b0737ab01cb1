"""Mapped memory that its owner may take away: whoever reads it then reads zeros, and is told so afterwards.

The operating system ends a process that touches a mapped page with nothing behind it (SIGBUS): the client has made its
object smaller, or the page was never written and ``/dev/shm`` has no room for it. No check beforehand can rule that
out, so the signal is handled as Wayland's compositors handle it, whose clients share their windows' memory: zeros take
the place of the mapping, whatever was reading goes on, and :attr:`Loss.happened` is set.

Source: sigaction(2), mmap(2), and ``wayland-shm.c`` of libwayland.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import platform
import signal
import threading
import weakref
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

_MACHINES = ("x86_64", "aarch64")
"""Where C's structures are laid out as below. Elsewhere the signal ends the process, as it does by default."""
_PAGE = mmap.PAGESIZE
_SIGINFO, _NODEFER = 0x4, 0x40000000  # SA_SIGINFO, SA_NODEFER
_FAULT_ADDRESS = 16  # of si_addr in siginfo_t
_REPLACED = 0x02 | 0x10 | 0x20 | 0x4000  # MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Loss:
    """Whether memory was taken away that several mappings may be of."""

    __slots__ = ("happened",)

    def __init__(self) -> None:
        self.happened = False


class Mapping(mmap.mmap):
    """A mapping of a file that may shrink. It ends with the last view of it."""

    address: int
    """Of its first byte."""
    loss: Loss
    _guarded: dict[int, weakref.ref[Mapping]]

    @classmethod
    def of(cls, file: int, byte_size: int, *, offset: int, loss: Loss, private: bool = False) -> Mapping:
        """Map ``byte_size`` bytes, at least one, from a page's beginning; ``private`` ones are copied when written.

        ``loss`` is set when memory of this mapping turns out to be gone. Raises :class:`OSError` where it cannot be
        mapped.
        """
        _guard.install()
        made = cls(file, byte_size, flags=mmap.MAP_PRIVATE if private else mmap.MAP_SHARED, offset=offset)
        made.loss = loss
        made.address = np.frombuffer(made, np.uint8).__array_interface__["data"][0]
        made._guarded = _guard.mappings
        made._guarded[made.address] = weakref.ref(made)
        return made

    def __del__(self) -> None:
        # Before the memory is unmapped, so before anything else can be mapped there.
        if hasattr(self, "_guarded"):
            del self._guarded[self.address]


class _Action(ctypes.Structure):
    """``struct sigaction``."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Guard:
    """The process's handler of SIGBUS. It is there from the first mapping on, and never removed."""

    def __init__(self) -> None:
        self.mappings: dict[int, weakref.ref[Mapping]] = {}
        """By address."""
        self._installing = threading.Lock()
        self._installed = False
        self._before = _Action()
        self._handler: Any = None
        self._libc: Any = None

    def install(self) -> None:
        """Handle the signal from now on. Any thread."""
        if self._installed:
            return
        with self._installing:
            if not self._installed:
                self._installed = True
                if platform.machine() in _MACHINES:
                    self._install()

    def _install(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
        )  # fmt: skip
        self._handler = _HANDLER(self._handle)
        # Not deferred: what the handler does may let the garbage collector run, which may touch another mapping.
        action = _Action(ctypes.cast(self._handler, ctypes.c_void_p), flags=_SIGINFO | _NODEFER)
        if self._libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(self._before)):
            logger.warning("a client that shrinks its shared memory can end this server: sigaction failed")

    def _handle(self, number: int, info: int, _: int) -> None:
        """On the thread that touched the memory, wherever in its code: whatever this returns to does so again.

        That thread is reading or writing a client's memory, and nothing else. So unlike in most signal handlers it is
        sound to run the interpreter, whose lock it has already or waits for like any thread that is called back.
        """
        address = ctypes.c_uint64.from_address(info + _FAULT_ADDRESS).value
        for start, reference in list(self.mappings.items()):
            mapping = reference()
            if mapping is None or not start <= address < start + -(-len(mapping) // _PAGE) * _PAGE:
                continue
            mapping.loss.happened = True
            writable = mmap.PROT_READ | mmap.PROT_WRITE
            if self._libc.mmap(start, len(mapping), writable, _REPLACED, -1, 0) == start:
                return
        # Not ours to mend: it happens again, to whoever handled it before.
        self._libc.sigaction(number, ctypes.byref(self._before), None)


_guard = _Guard()
