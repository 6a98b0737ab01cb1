"""What protocols and exporters have in common: they are started, they serve, they are stopped.

All methods run on the event loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trivet.http import Listener
from trivet.memory import MemoryProvider
from trivet.options import Settings

if TYPE_CHECKING:
    from trivet.engine import Engine


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What a service is given when the server makes it, before any model loads."""

    engine: Engine
    settings: Settings
    listeners: dict[str, Listener]
    memory: Mapping[str, MemoryProvider] = field(default_factory=dict)
    """The kinds of shared memory that are installed, by name (``system``, ``cuda``)."""

    def listener(self, name: str) -> Listener:
        """The listener of that name, made on first use. Mount routes on it before ``start`` is called."""
        if name not in self.listeners:
            self.listeners[name] = Listener(name)
        return self.listeners[name]


class Service(ABC):
    """A part of the server that talks to the outside."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to accept; returns when it does. Raises :class:`OSError` naming an address that cannot be bound."""

    @abstractmethod
    async def stop(self, grace_s: float) -> None:
        """Accept nothing new, let what is in flight finish for at most ``grace_s`` seconds, then end it."""

    @property
    def addresses(self) -> Mapping[str, Sequence[str]]:
        """What it listens on by itself, e.g. ``{"grpc": ["127.0.0.1:8001"]}``, routes mounted on HTTP left out."""
        return {}


class Protocol(Service):
    """A wire protocol: bytes in, ``Engine.submit``, bytes out."""


class Exporter(Service):
    """Sends what the engine measured somewhere: reads statistics and finished requests, measures nothing itself."""
