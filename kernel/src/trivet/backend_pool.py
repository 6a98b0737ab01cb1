"""The backends of a server, each made once."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from trivet.backend import Backend

if TYPE_CHECKING:
    from trivet.hookspecs import BackendPlugin
    from trivet.plugins import PluginRegistry

logger = logging.getLogger(__name__)


class BackendPool:
    """The backends in use, each made once when the first model needs it. Thread-safe."""

    def __init__(self, registry: PluginRegistry) -> None:
        self._registry = registry
        self._backends: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def get(self, offer: BackendPlugin) -> Backend:
        """The backend; blocks while it imports its framework. Raises what :meth:`PluginRegistry.create` does."""
        with self._lock:
            backend = self._backends.get(offer.name)
            if backend is None:
                backend = self._backends[offer.name] = self._registry.create(offer, Backend)
            return backend

    def close(self) -> None:
        """Close all; from a worker thread. Failures are logged."""
        with self._lock:
            for name, backend in self._backends.items():
                try:
                    backend.close()
                except BaseException:
                    logger.exception("backend '%s' failed to close", name)
            self._backends.clear()
