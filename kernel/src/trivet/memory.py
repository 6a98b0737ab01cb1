"""Memory providers: regions that a client shares with the server, so that tensors need not travel.

Source: Triton's system shared memory and CUDA shared memory extensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trivet.datatypes import DataType
from trivet.tensor import Tensor


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """A registered region. ``details`` are the provider's own fields (``key``, ``offset``; ``device_id``)."""

    name: str
    byte_size: int
    details: Mapping[str, Any]


class MemoryProvider(ABC):
    """One kind of shared memory. Every method is called on the event loop and must not block for long."""

    @abstractmethod
    def register(self, name: str, byte_size: int, details: Mapping[str, Any]) -> None:
        """Map a region. Raises ``AlreadyExistsError``, ``InvalidArgumentError`` or ``UnavailableError``."""

    @abstractmethod
    def unregister(self, name: str | None) -> None:
        """Forget one region or, with ``None``, all. Memory stays mapped while requests in flight use it."""

    @abstractmethod
    def regions(self) -> Mapping[str, RegionStatus]:
        """What is registered now, by name."""

    @abstractmethod
    def tensor(
        self, region: str, offset: int, byte_size: int, name: str, datatype: DataType, shape: tuple[int, ...]
    ) -> Tensor:
        """View part of a region as an input. Raises where it is not registered or the range leaves it."""

    @abstractmethod
    def write(self, region: str, offset: int, byte_size: int, tensor: Tensor) -> int:
        """Put an output into a region and return the bytes written; raises where it does not fit."""
