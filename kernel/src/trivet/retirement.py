"""How versions of models leave: out of service at once, out of memory when their requests are answered.

On the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from trivet.lifecycle import LoadedModel, ModelEvent, ModelState, ModelVersion
from trivet.model_table import UNLOADED, ModelTable

logger = logging.getLogger(__name__)

UNLOAD_PATIENCE_S = 30.0
"""How long loading a version again waits for the one of before to end what it executes."""


class Retirement:
    """Takes versions out of service, and knows those that are still in memory."""

    def __init__(self, table: ModelTable, announce: Callable[[ModelEvent], None]) -> None:
        self._table = table
        self._announce = announce
        self._closing: dict[asyncio.Task[None], LoadedModel] = {}

    @property
    def leaving(self) -> set[LoadedModel]:
        """What is out of service, or was replaced, and is not closed."""
        return set(self._closing.values())

    def retire(self, entry: ModelVersion, *, with_users: bool = True) -> None:
        """Take a ready version out of service and close it when its requests are answered.

        So go the ensembles that use it: they are closed before it is.
        """
        loaded = entry.loaded
        assert loaded is not None
        for user in loaded.users if with_users else ():
            ensemble = self._table.models[user.name]
            version = ensemble.versions[user.version]
            if version.loaded is user and version.state is ModelState.READY:
                self.retire(version)
                ensemble.refresh()
        self._announce(entry.move(ModelState.UNLOADING, loaded=loaded))
        self.close(loaded, entry)

    def close(self, loaded: LoadedModel, entry: ModelVersion | None = None) -> None:
        """Close what is out of service when its requests are answered, and mark ``entry`` as unloaded then."""
        task = asyncio.ensure_future(self._close(loaded, entry))
        self._closing[task] = loaded
        task.add_done_callback(self._closing.pop)

    async def _close(self, loaded: LoadedModel, entry: ModelVersion | None) -> None:
        await loaded.close()
        if entry is not None and entry.state is ModelState.UNLOADING and entry.loaded is loaded:
            self._announce(entry.move(ModelState.UNAVAILABLE, UNLOADED))

    async def settled(self, entry: ModelVersion) -> None:
        """Wait until a version that is unloading is gone, so that it is not in memory twice.

        Not for ever: one whose execution hangs never goes, and loading a better one in its place is the way out.
        """
        try:
            async with asyncio.timeout(UNLOAD_PATIENCE_S):
                while entry.state is ModelState.UNLOADING:
                    await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            logger.warning(
                "model '%s' version %d is still executing %g s after it was unloaded; loading it again beside that",
                entry.name,
                entry.version,
                UNLOAD_PATIENCE_S,
            )
            self._announce(entry.move(ModelState.UNAVAILABLE, UNLOADED))

    async def finished(self) -> None:
        """Wait until everything that is leaving is gone."""
        if self._closing:
            await asyncio.wait(self._closing)
