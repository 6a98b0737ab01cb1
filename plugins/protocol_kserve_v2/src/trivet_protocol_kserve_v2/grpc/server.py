"""What a server has to do that the service runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod


class GrpcServer(ABC):
    """What runs the service. All methods on the event loop."""

    @abstractmethod
    async def start(self) -> int:
        """Listen; returns the port. Raises :class:`OSError` naming the address that cannot be bound."""

    @abstractmethod
    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, let those in flight finish for at most ``grace_s`` seconds, then end them."""
