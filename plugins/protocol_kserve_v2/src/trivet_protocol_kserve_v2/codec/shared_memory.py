"""Tensors that stay in memory shared with the client: which region a request means, and who provides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trivet.datatypes import DataType
from trivet.errors import NotFoundError
from trivet.memory import MemoryProvider
from trivet.tensor import Tensor


class Region(NamedTuple):
    """Part of a registered region, as a request names it. Offset and size in bytes."""

    name: str
    offset: int
    byte_size: int


class SharedMemory:
    """The regions of all providers, by name. Providers are known by kind: ``system``, ``cuda``."""

    def __init__(self, providers: Mapping[str, MemoryProvider]) -> None:
        self.providers = providers

    def provider(self, region: str) -> MemoryProvider:
        """Who has that region. Raises :class:`~trivet.errors.NotFoundError`, in Triton's words, where nobody does."""
        for provider in self.providers.values():
            if region in provider.regions():
                return provider
        raise NotFoundError(f"Unable to find shared memory region: '{region}'")

    def tensor(self, region: Region, name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
        """View an input in its region."""
        return self.provider(region.name).tensor(region.name, region.offset, region.byte_size, name, datatype, shape)

    def write(self, region: Region, tensor: Tensor) -> None:
        """Put an output into its region."""
        self.provider(region.name).write(region.name, region.offset, region.byte_size, tensor)
