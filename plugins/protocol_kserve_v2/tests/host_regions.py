"""Shared memory without sharing: regions that both halves of the protocol's tests read and fill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.datatypes import DataType
from trivet.memory import MemoryProvider, RegionSlice, RegionStatus
from trivet.tensor import Tensor


class HostRegions(MemoryProvider):
    """Regions in this process."""

    def __init__(self, **regions: bytearray) -> None:
        self._memory = regions
        self._details: dict[str, Mapping[str, Any]] = {}

    def register(self, name: str, byte_size: int, details: Mapping[str, Any]) -> None:
        self._memory[name] = bytearray(byte_size)
        self._details[name] = details

    def unregister(self, name: str | None) -> None:
        self._memory = {} if name is None else {key: region for key, region in self._memory.items() if key != name}

    def regions(self) -> Mapping[str, RegionStatus]:
        return {
            name: RegionStatus(name, len(region), self._details.get(name, {})) for name, region in self._memory.items()
        }

    def __contains__(self, region: object) -> bool:
        return region in self._memory

    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        return HostSlice(memoryview(self._memory[region])[offset : offset + byte_size])


class HostSlice(RegionSlice):
    def __init__(self, view: memoryview) -> None:
        self._view = view

    def tensor(self, name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        return Tensor.from_wire(name, datatype, shape, self._view)

    def write(self, tensor: Tensor) -> int:
        data = tensor.wire()
        self._view[: len(data)] = data
        return len(data)
