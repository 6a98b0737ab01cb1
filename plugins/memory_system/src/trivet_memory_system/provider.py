"""The provider: which objects are mapped. On the event loop; its slices on any thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.datatypes import DataType
from trivet.errors import InternalError, UnavailableError
from trivet.memory import RegionSlice, RegionTable
from trivet.options import Settings
from trivet.tensor import Buffer, Tensor

from trivet_memory_system.shared_object import FOLDER, SharedObject

_SMALL = 256 * 1024
"""Bytes up to which copying takes no longer than mapping once more (5 µs) and touching each page of that for the first
time: at 4 KB 1 against 12 µs, at 1 MB 40 against 5 to 50, at 16 MB 1200 against 5 to 1150, by how much is read."""


class SystemMemory(RegionTable[SharedObject]):
    """Triton's system shared memory extension. The details of a region are its ``key`` and ``offset``.

    Registering maps a region and gives nothing else away: a name reaches exactly the bytes that were registered under
    it. Several regions may lie in one object and overlap, as in Triton. Messages are Triton's.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises :class:`~trivet.errors.UnavailableError` on a system that is not Linux."""
        if not FOLDER.is_dir():
            raise UnavailableError(f"system shared memory needs '{FOLDER}', which only Linux has")
        super().__init__()

    def map(self, byte_size: int, details: Mapping[str, Any]) -> tuple[SharedObject, Mapping[str, Any]]:
        key, offset = details["key"], details["offset"]
        if byte_size <= 0:
            raise InternalError(f"Invalid shared memory region: '{key}', as 'byte_size' is {byte_size}")
        return SharedObject(key, offset, byte_size), dict(details)

    def part(self, mapped: SharedObject, offset: int, byte_size: int) -> RegionSlice:
        return SystemSlice(mapped, offset, byte_size)


class SystemSlice(RegionSlice):
    """Part of a region."""

    __slots__ = ("_byte_size", "_memory", "_offset")

    def __init__(self, memory: SharedObject, offset: int, byte_size: int) -> None:
        self._memory = memory
        self._offset = offset
        self._byte_size = byte_size

    def tensor(self, name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        """Not to be written: a client goes on using what it has put there."""
        data = self._memory.view(self._offset, self._byte_size).toreadonly()
        return Tensor.from_wire(name, datatype, shape, data, region=self)

    def writable(self, *, in_place: bool) -> Buffer | None:
        if in_place:
            return self._memory.view(self._offset, self._byte_size)
        return self._memory.private(self._offset, self._byte_size) if self._byte_size > _SMALL else None

    def check(self) -> None:
        self._memory.check(self._offset + self._byte_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SystemSlice) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def _place(self) -> tuple[int, int, int]:
        return id(self._memory), self._offset, self._byte_size

    def write(self, tensor: Tensor) -> int:
        data = tensor.wire()
        size = memoryview(data).nbytes
        if size > self._byte_size:
            raise InternalError(
                f"shared memory size specified with the request for output '{tensor.name}' ({self._byte_size} bytes)"
                f" should be at least {size} bytes to hold the results"
            )
        self._memory.write(self._offset, data)
        return size
