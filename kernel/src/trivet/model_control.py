"""What changes which models are in memory: finding, loading, reloading, unloading. And the repository index.

Lives on the event loop; what blocks runs on worker threads. At most one load or unload of a model runs at a time, and
different models load concurrently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from trivet.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    TrivetError,
    UnavailableError,
    message_of,
)
from trivet.extensions import FoundModel, ModelRepository
from trivet.inference import InferenceRequest
from trivet.instance import Finished
from trivet.lifecycle import LoadedModel, ModelEvent, ModelState, ModelVersion
from trivet.loading import ModelLoader, ResolvedModel
from trivet.loop import LoopInbox
from trivet.model_table import UNLOADED, Model, ModelTable
from trivet.plugins import PluginRegistry
from trivet.repository import only_place, open_repository

if TYPE_CHECKING:
    from trivet.engine import EngineOptions

logger = logging.getLogger(__name__)

UNLOAD_PATIENCE_S = 30.0
"""How long loading a version again waits for the one of before to end what it executes."""

# How the reason of a failed load names its kind, in Triton's words.
_REASON_PREFIX: Mapping[Code, str] = {
    Code.NOT_FOUND: "Not found",
    Code.INVALID_ARGUMENT: "Invalid argument",
    Code.UNAVAILABLE: "Unavailable",
    Code.INTERNAL: "Internal",
    Code.ALREADY_EXISTS: "Already exists",
    Code.UNIMPLEMENTED: "Unsupported",
    Code.RESOURCE_EXHAUSTED: "Unavailable",
    Code.DEADLINE_EXCEEDED: "Unavailable",
    Code.CANCELLED: "Cancelled",
}


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A model that could not be loaded, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; a model that was never loaded has neither version nor state."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class ModelControl:
    """Changes the models of one engine, which shows most of these methods as its own and documents them.

    ``table`` is where they are kept, ``inbox`` where instances post what they finished; ``reject`` answers a queued
    request with an error, and ``announce`` is called on the event loop with each change of a version's state.
    """

    def __init__(
        self,
        registry: PluginRegistry,
        options: EngineOptions,
        loader: ModelLoader,
        table: ModelTable,
        *,
        inbox: LoopInbox[Finished],
        reject: Callable[[InferenceRequest, TrivetError], None],
        announce: Callable[[ModelEvent], None],
    ) -> None:
        self._registry = registry
        self._options = options
        self._loader = loader
        self._inbox = inbox
        self._reject = reject
        self._announce = announce
        # Completing a configuration runs a model's code, which may take long or hang; looking into repositories must
        # still find a thread then.
        self._completing = CapacityLimiter(options.model_load_thread_count)
        self._models = table.models
        self._repositories: list[ModelRepository] = []
        self._loading: set[asyncio.Task[None]] = set()
        self._closing: dict[asyncio.Task[None], LoadedModel] = {}

    def loaded(self) -> set[LoadedModel]:
        """All that is in memory: also what is being unloaded, or was replaced and still has requests in flight."""
        versions = (version for model in self._models.values() for version in model.versions.values())
        return {version.loaded for version in versions if version.loaded is not None} | {*self._closing.values()}

    async def start(self) -> list[LoadFailure]:
        """See :meth:`trivet.engine.Engine.start`."""
        self._repositories = [
            await to_thread.run_sync(open_repository, self._registry, url) for url in self._options.model_repositories
        ]
        names = await self._startup_models()
        results = await asyncio.gather(*(self._load(name) for name in names), return_exceptions=True)
        failures = []
        for name, result in zip(names, results, strict=True):
            if isinstance(result, TrivetError):
                failures.append(LoadFailure(name, str(result)))
            elif isinstance(result, BaseException):
                raise result
        return failures

    async def load(self, name: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """See :meth:`trivet.engine.Engine.load`."""
        self._check_control()
        if files and config is None:
            raise InternalError(f"failed to load '{name}', failed to poll from model repository")
        # Whoever asked may go away meanwhile; a load that has begun is finished all the same, never left half-way.
        task = asyncio.ensure_future(self._load(name, config, files))
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)
        await asyncio.shield(task)

    async def unload(self, name: str) -> None:
        """See :meth:`trivet.engine.Engine.unload`."""
        self._check_control()
        model = self._models.get(name)
        if model is None:
            return
        async with model.lock:
            for entry in model.versions.values():
                if entry.state is ModelState.READY:
                    self._retire(entry)
                elif entry.state is ModelState.UNAVAILABLE:
                    entry.reason = UNLOADED
            model.fingerprint = None
            model.refresh()

    async def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """See :meth:`trivet.engine.Engine.repository_index`."""
        names = set(self._models)
        if not ready_only:
            found = await to_thread.run_sync(self._find_all)
            names |= found.keys()
        entries: list[IndexEntry] = []
        for name in sorted(names):
            model = self._models.get(name)
            if model is None or not model.versions:
                if not ready_only:
                    entries.append(IndexEntry(name))
                continue
            for number in sorted(model.versions):
                version = model.versions[number]
                if not ready_only or version.state is ModelState.READY:
                    entries.append(IndexEntry(name, str(number), version.state.value, version.reason))
        return entries

    async def close(self) -> None:
        """Unload every model; returns when all are gone."""
        if self._loading:
            await asyncio.wait(self._loading)
        for model in self._models.values():
            for entry in model.versions.values():
                if entry.state is ModelState.READY:
                    self._retire(entry)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _load(self, name: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load one model; whatever is wrong with it ends in a :class:`~trivet.errors.TrivetError`."""
        try:
            await self._find_and_load(name, config, files)
        except TrivetError:
            raise
        except OSError as error:
            # Its folder changes or goes away while it is read.
            raise InternalError(f"failed to load '{name}': {error}") from error
        except Exception as error:
            logger.exception("model '%s' failed to load", name)
            raise InternalError(f"failed to load '{name}': {type(error).__name__}: {message_of(error)}") from error

    async def _find_and_load(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> None:
        found = await to_thread.run_sync(self._find, name)
        if found is None:
            # Callers can ask for any name: nothing is kept of those that no repository holds.
            raise InternalError(f"failed to load '{name}', failed to poll from model repository")
        model = self._models.setdefault(name, Model(name))
        async with model.lock:
            resolved = await to_thread.run_sync(self._loader.resolve, found, config, files)
            try:
                ready = {number for number, entry in model.versions.items() if entry.state is ModelState.READY}
                if model.fingerprint != resolved.fingerprint or ready != set(resolved.versions) or files:
                    await self._replace(model, resolved)
            finally:
                resolved.release()

    async def _replace(self, model: Model, resolved: ResolvedModel) -> None:
        """Load all versions of ``resolved`` beside those that serve, then swap; on a failure the old ones serve on."""
        for number in resolved.versions:
            entry = model.versions.setdefault(number, ModelVersion(model.name, number))
            if entry.state is not ModelState.READY:
                await self._settled(entry)
                self._announce(entry.move(ModelState.LOADING))
        attempts = 1 + self._options.model_load_retry_count
        written = resolved.config.SerializeToString()
        failures: dict[int, str] = {}
        loaded: dict[int, LoadedModel] = {}
        for attempt in range(attempts):
            failures, loaded = await self._load_versions(resolved)
            if not failures:
                break
            if attempt + 1 < attempts:
                logger.warning("model '%s' failed to load, trying again: %s", model.name, "; ".join(failures.values()))
                # The attempt completed it; the next one begins with what the author wrote.
                resolved.config.ParseFromString(written)
        if failures:
            for successor in loaded.values():
                self._close_later(successor, None)
            for number in resolved.versions:
                entry = model.versions[number]
                if entry.state is ModelState.LOADING:
                    reason = failures.get(number, "another version of the model failed to load")
                    self._announce(entry.move(ModelState.UNAVAILABLE, reason))
            details = "".join(
                f"version {number} is at UNAVAILABLE state: {reason};" for number, reason in failures.items()
            )
            raise InvalidArgumentError(f"load failed for model '{model.name}': {details}\n")
        for number, successor in loaded.items():
            entry = model.versions[number]
            predecessor = entry.loaded
            self._announce(entry.move(ModelState.READY, loaded=successor))
            if predecessor is not None:
                self._close_later(predecessor, None)
        for number, entry in model.versions.items():
            if number not in loaded and entry.state is ModelState.READY:
                self._retire(entry)
        model.fingerprint = resolved.fingerprint
        model.refresh()

    async def _load_versions(self, resolved: ResolvedModel) -> tuple[dict[int, str], dict[int, LoadedModel]]:
        try:
            await to_thread.run_sync(self._loader.complete, resolved, limiter=self._completing)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything about a model; it becomes the reason
            return dict.fromkeys(resolved.versions, _reason(error, resolved.name)), {}
        results = await asyncio.gather(
            *(self._loader.load(resolved, number, self._inbox, self._reject) for number in resolved.versions),
            return_exceptions=True,
        )
        failures: dict[int, str] = {}
        loaded: dict[int, LoadedModel] = {}
        for number, result in zip(resolved.versions, results, strict=True):
            if isinstance(result, LoadedModel):
                loaded[number] = result
            else:
                failures[number] = _reason(result, resolved.name)
        return failures, loaded

    def _find(self, name: str) -> FoundModel | None:
        places = [found for repository in self._repositories if (found := repository.find(name)) is not None]
        return only_place(places) if places else None

    def _find_all(self) -> dict[str, FoundModel]:
        return {found.name: found for repository in self._repositories for found in repository.models()}

    async def _startup_models(self) -> list[str]:
        found = await to_thread.run_sync(self._find_all)
        wanted = list(self._options.load_models)
        if self._options.model_control_mode == "none" or "*" in wanted:
            return sorted(found)
        missing = [name for name in wanted if name not in found]
        if missing:
            places = ", ".join(self._options.model_repositories)
            raise InvalidArgumentError(f"--load-model names {missing}, which no model repository holds ({places})")
        return wanted

    def _check_control(self) -> None:
        if self._options.model_control_mode != "explicit":
            raise UnavailableError("explicit model load / unload is not allowed if polling is enabled")

    def _retire(self, entry: ModelVersion) -> None:
        """Take a ready version out of service and close it when its requests are answered."""
        loaded = entry.loaded
        assert loaded is not None
        self._announce(entry.move(ModelState.UNLOADING, loaded=loaded))
        self._close_later(loaded, entry)

    def _close_later(self, loaded: LoadedModel, entry: ModelVersion | None) -> None:
        task = asyncio.ensure_future(self._close(loaded, entry))
        self._closing[task] = loaded
        task.add_done_callback(self._closing.pop)

    async def _close(self, loaded: LoadedModel, entry: ModelVersion | None) -> None:
        await loaded.close()
        if entry is not None and entry.state is ModelState.UNLOADING and entry.loaded is loaded:
            self._announce(entry.move(ModelState.UNAVAILABLE, UNLOADED))

    async def _settled(self, entry: ModelVersion) -> None:
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


def _reason(error: object, name: str) -> str:
    """Why a load failed, for the index and for the caller; an unexpected error goes to the log with its traceback."""
    if isinstance(error, TrivetError):
        return f"{_REASON_PREFIX[error.code]}: {message_of(error)}"
    if isinstance(error, asyncio.CancelledError):
        raise error
    assert isinstance(error, BaseException)
    logger.error("model '%s' failed to load", name, exc_info=error)
    return f"Internal: {type(error).__name__}: {message_of(error)}"
