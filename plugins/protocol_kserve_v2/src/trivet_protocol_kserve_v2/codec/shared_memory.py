"""Tensors that stay in memory shared with the client: which provider has the region that a request names."""

from __future__ import annotations

from collections.abc import Mapping

from trivet.errors import NotFoundError
from trivet.memory import MemoryProvider, RegionSlice


class SharedMemory:
    """The regions of all providers, by name. Providers are known by kind: ``system``, ``cuda``."""

    def __init__(self, providers: Mapping[str, MemoryProvider]) -> None:
        self.providers = providers

    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        """Part of a region, offset and size in bytes.

        Raises :class:`~trivet.errors.NotFoundError`, in Triton's words, where no provider has the region, and what
        :meth:`~trivet.memory.MemoryProvider.slice` does.
        """
        for provider in self.providers.values():
            if region in provider.regions():
                return provider.slice(region, offset, byte_size)
        raise NotFoundError(f"Unable to find shared memory region: '{region}'")


NO_MEMORY = SharedMemory({})
"""Where no provider is: every region is unknown."""
