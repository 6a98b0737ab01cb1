"""Tensors that stay in memory shared with the client: which provider has the region that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.errors import AlreadyExistsError, NotFoundError, UnavailableError
from trivet.memory import MemoryProvider, RegionSlice, RegionStatus

_TITLES = {"system": "system", "cuda": "CUDA"}


class SharedMemory:
    """The regions of all providers, by name. Providers are known by kind: ``system``, ``cuda``. On the event loop."""

    def __init__(self, providers: Mapping[str, MemoryProvider]) -> None:
        self.providers = providers

    def slice(self, region: str, offset: int, byte_size: int) -> RegionSlice:
        """Part of a region, offset and size in bytes.

        Raises :class:`~trivet.errors.NotFoundError`, in Triton's words, where no provider has the region, and what
        :meth:`~trivet.memory.MemoryProvider.slice` does.
        """
        for provider in self.providers.values():
            if region in provider:
                return provider.slice(region, offset, byte_size)
        raise NotFoundError(f"Unable to find shared memory region: '{region}'")

    def status(self, kind: str, name: str) -> list[RegionStatus]:
        """One region, or all of that kind where ``name`` is empty, by name.

        Raises :class:`~trivet.errors.NotFoundError` for one that is not registered.
        """
        provider = self.providers.get(kind)
        regions = provider.regions() if provider is not None else {}
        if not name:
            return [regions[each] for each in sorted(regions)]
        if name not in regions:
            raise NotFoundError(f"Unable to find {kind} shared memory region: '{name}'")
        return [regions[name]]

    def register(self, kind: str, name: str, byte_size: int, details: Mapping[str, Any]) -> None:
        """Raises :class:`~trivet.errors.AlreadyExistsError` for a name that any kind of memory has,
        :class:`~trivet.errors.UnavailableError` where no provider of that kind is installed, and what
        :meth:`~trivet.memory.MemoryProvider.register` does.
        """
        if any(name in provider for provider in self.providers.values()):
            raise AlreadyExistsError(f"shared memory region '{name}' already in manager")
        provider = self.providers.get(kind)
        if provider is None:
            raise UnavailableError(
                f"failed to register shared memory region '{name}': this server has no {_TITLES[kind]} shared memory;"
                f" pip install trivet-memory-{kind}"
            )
        provider.register(name, byte_size, details)

    def unregister(self, kind: str, name: str) -> None:
        """Forget one region, or all of that kind where ``name`` is empty.

        Clients do so before they register anything, whether or not there is such memory.
        """
        provider = self.providers.get(kind)
        if provider is not None:
            provider.unregister(name or None)


NO_MEMORY = SharedMemory({})
"""Where no provider is: every region is unknown."""
