"""A POSIX shared memory object, mapped: what a region is a part of.

Whoever made the object may make it smaller at any time. So sizes are asked for at each use, and outputs are written
with a system call, which fails; what is read of memory that goes away meanwhile is zeros, and
:meth:`SharedObject.check` says so when it was read (:mod:`trivet_memory_system.mapping`).
"""

from __future__ import annotations

import mmap
import os
import resource
import stat
from pathlib import Path

import numpy as np
from trivet.errors import InternalError, InvalidArgumentError
from trivet.tensor import Buffer

from trivet_memory_system.mapping import Loss, Mapping

FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux has the objects of shm_open(), by name
_SMALL = 32 * 1024
"""Bytes up to which copying onto itself takes no longer than finding out."""
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_OTHERS = 4
"""Of the files that the process may open, one in so many is not for regions, so that connections get some."""


class SharedObject:
    """Part of a shared memory object. It stays mapped as long as this or a view of it is alive."""

    def __init__(self, key: str, offset: int, byte_size: int) -> None:
        """Map ``byte_size`` bytes, at least one, from ``offset`` on.

        Raises :class:`~trivet.errors.InternalError`, as Triton does, where there is no object ``key`` or it is smaller
        than that.
        """
        self._key = key
        self._offset = offset
        self._byte_size = byte_size
        self._loss = Loss()
        self._file = _open(key)
        try:
            try:
                self.check(byte_size)
            except InvalidArgumentError as error:
                raise InternalError(str(error)) from None
            # A mapping begins at a page.
            skipped = offset % mmap.ALLOCATIONGRANULARITY
            memory = Mapping.of(self._file, skipped + byte_size, offset=offset - skipped, loss=self._loss)
        except BaseException:
            os.close(self._file)
            raise
        self._view = memoryview(memory)[skipped:]
        self._address = memory.address + skipped

    def __del__(self) -> None:
        # Not with the region: a request that was given a part of it may still have to write there.
        if hasattr(self, "_view"):
            os.close(self._file)

    def check(self, end: int) -> None:
        """Raise :class:`~trivet.errors.InvalidArgumentError` where the object does not reach to ``end``, now.

        So it does where memory of it was gone when somebody read it: what was read since the region was mapped cannot
        be told from zeros any more.
        """
        size = os.lseek(self._file, 0, os.SEEK_END)  # a third of what fstat takes; nobody reads at the position
        if self._offset + end > size:
            raise InvalidArgumentError(
                f"Invalid shared memory region: '{self._key}' has {size} bytes, expected at least {self._offset + end}"
            )
        if self._loss.happened:
            raise InvalidArgumentError(
                f"Invalid shared memory region: memory of '{self._key}' was gone when it was read; it was made smaller,"
                f" or '{FOLDER}' has no room for what was not written yet. Register the region again"
            )

    def view(self, offset: int, byte_size: int) -> memoryview:
        """These bytes, without a copy. Raises as :meth:`check` does."""
        self.check(offset + byte_size)
        return self._view[offset : offset + byte_size]

    def private(self, offset: int, byte_size: int) -> memoryview:
        """These bytes, in which nobody else sees what is written. Pages are copied as they are written, and no others.

        Raises as :meth:`check` does.
        """
        self.check(offset + byte_size)
        start = self._offset + offset
        skipped = start % mmap.ALLOCATIONGRANULARITY
        memory = Mapping.of(self._file, skipped + byte_size, offset=start - skipped, loss=self._loss, private=True)
        return memoryview(memory)[skipped:]

    def write(self, offset: int, data: Buffer) -> None:
        """Copy ``data`` into the object, in the kernel, without the interpreter lock. Raises as :meth:`check` does.

        Where ``data`` is that very part of it, as with a model that works in place, there is nothing to copy.
        """
        remaining = memoryview(data).cast("B")
        self.check(offset + remaining.nbytes)
        if remaining.nbytes > _SMALL and _address(remaining) == self._address + offset:
            return
        position = self._offset + offset
        while remaining:
            written = os.pwrite(self._file, remaining, position)
            position += written
            remaining = remaining[written:]


def _address(view: memoryview) -> int:
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address


def _open(key: str) -> int:
    """The object's file descriptor, for what ``shm_open`` would take: one name, after slashes that do not count."""
    failure = f"Unable to open shared memory region: '{key}'"
    name = key.lstrip("/")
    if not name or "/" in name or "\0" in name:
        raise InternalError(f"{failure}: expected the name of an object, without a folder")
    try:
        file = os.open(FOLDER / name, _FLAGS)
    except OSError as error:
        raise InternalError(f"{failure}: {error.strerror}") from error
    problem = None
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        problem = "it is no shared memory object"
    elif most != resource.RLIM_INFINITY and file >= most - most // _OTHERS:
        # The lowest number that is free: there are as many open as it says.
        problem = f"of the {most} files that the server may open (ulimit -n), {file} are; unregister what is not needed"
    if problem is not None:
        os.close(file)
        raise InternalError(f"{failure}: {problem}")
    return file
