"""What changes which models are in memory: finding, loading, reloading, unloading. And the repository index.

Lives on the event loop; what blocks runs on worker threads. At most one load or unload of a model runs at a time, and
different models load concurrently.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from trivet.dependencies import are_current, find_circles, in_order, members_of, with_dependents
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, UnavailableError, named_message_of
from trivet.extensions import FoundModel
from trivet.lifecycle import LoadedModel, ModelEvent, ModelState
from trivet.loading import ModelLoader
from trivet.model_files import AS_IS, Override, write_files
from trivet.model_table import UNLOADED, Model, ModelTable
from trivet.plugins import PluginRegistry
from trivet.replacement import Replacement
from trivet.repository import Repositories
from trivet.resolving import ResolvedModel
from trivet.retirement import Retirement

if TYPE_CHECKING:
    from trivet.engine import EngineOptions

logger = logging.getLogger(__name__)


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

    ``table`` is where they are kept; ``announce`` is called on the event loop with each change of a version's state.
    """

    def __init__(
        self,
        registry: PluginRegistry,
        options: EngineOptions,
        loader: ModelLoader,
        table: ModelTable,
        *,
        announce: Callable[[ModelEvent], None],
    ) -> None:
        self._registry = registry
        self._options = options
        self._resolver = loader.resolver
        self._models = table.models
        self._repositories = Repositories()
        self._loading: set[asyncio.Task[BaseException | None]] = set()
        self._retirement = Retirement(table, announce)
        self._replacement = Replacement(options, loader, table, self._retirement, announce)

    def loaded(self) -> set[LoadedModel]:
        """All that is in memory: also what is being unloaded, or was replaced and still has requests in flight."""
        versions = (version for model in self._models.values() for version in model.versions.values())
        return {version.loaded for version in versions if version.loaded is not None} | self._retirement.leaving

    async def start(self) -> list[LoadFailure]:
        """See :meth:`trivet.engine.Engine.start`."""
        await to_thread.run_sync(self._repositories.open, self._registry, self._options.model_repositories)
        names = await self._startup_models()
        results = await self._load_together(dict.fromkeys(names, AS_IS))
        failures = []
        for name in names:
            result = results[name]
            if isinstance(result, TrivetError):
                failures.append(LoadFailure(name, str(result)))
            elif result is not None:
                raise result
        return failures

    async def load(self, name: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """See :meth:`trivet.engine.Engine.load`."""
        self._check_control()
        if files and config is None:
            raise InternalError(f"failed to load '{name}', failed to poll from model repository")
        # Whoever asked may go away meanwhile; a load that has begun is finished all the same, never left half-way.
        task = asyncio.ensure_future(self._load_asked(name, config, files))
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)
        error = await asyncio.shield(task)
        try:
            if error is not None:
                raise error
        finally:
            # Its traceback refers to this frame: with them, the request's files would stay until a collection.
            del error, task

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """See :meth:`trivet.engine.Engine.unload`."""
        self._check_control()
        model = self._models.get(name)
        if model is None:
            return
        async with model.lock:
            model.wanted = model.explicit = False
            for entry in model.versions.values():
                if entry.state is ModelState.READY:
                    self._retirement.retire(entry)
                elif entry.state is ModelState.UNAVAILABLE:
                    entry.reason = UNLOADED
            model.fingerprint = None
            model.keep(AS_IS)
            model.refresh()
        if not unload_dependents:
            return
        for member in sorted(model.members):
            other = self._models.get(member)
            if (
                other is not None
                and not other.explicit
                and next(with_dependents((member,), self._models), None) is None
            ):
                await self.unload(member, unload_dependents=True)

    async def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """See :meth:`trivet.engine.Engine.repository_index`."""
        names = set(self._models)
        if not ready_only:
            found = await to_thread.run_sync(self._repositories.find_all)
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
            model.keep(AS_IS)
            for entry in model.versions.values():
                if entry.state is ModelState.READY:
                    self._retirement.retire(entry)
        await self._retirement.finished()

    async def _load_asked(
        self, name: str, config: str | None, files: Mapping[str, bytes] | None
    ) -> BaseException | None:
        """Load what a request asks for. Returns what went wrong; raises for files that cannot be written."""
        folder = await to_thread.run_sync(write_files, name, files) if files else None
        override = Override(config, folder)
        try:
            return (await self._load_together({name: override}))[name]
        finally:
            override.release()

    async def _load_together(self, wanted: Mapping[str, Override]) -> dict[str, BaseException | None]:
        """Load models, before them those that they are made of, and after them the ensembles that need any of these.

        Returns what went wrong with each of ``wanted``, and with what belongs to them.
        """
        graph: dict[str, Collection[str]] = {}
        names: Collection[str] = wanted
        while names:
            needs = await asyncio.gather(
                *(to_thread.run_sync(self._needs, name, self._override(name, wanted.get(name))) for name in names)
            )
            graph.update(zip(names, needs, strict=True))
            names = {need for some in needs for need in some} - graph.keys()
        results = await self._load_in_order(graph, wanted)
        tried: set[str] = set()
        # Until none is left: others may begin to need a model while it is replaced.
        while waiting := {
            name: self._models[name].members
            for name in with_dependents(graph, self._models)
            if name not in tried and not self._serves(self._models[name]) and self._has_members(self._models[name])
        }:
            tried |= waiting.keys()
            results |= await self._load_in_order(waiting, {})
        return results

    async def _load_in_order(
        self, graph: Mapping[str, Collection[str]], wanted: Mapping[str, Override]
    ) -> dict[str, BaseException | None]:
        circles = find_circles(graph)

        async def load(name: str) -> None:
            try:
                if name in circles:
                    raise InvalidArgumentError(
                        f"load failed for model '{name}': circular dependency between ensembles: {circles[name]}\n"
                    )
                await self._load(name, wanted.get(name))
            finally:
                self._retire_stale(name)

        return await in_order({name: () if name in circles else needs for name, needs in graph.items()}, load)

    def _override(self, name: str, asked: Override | None) -> Override:
        """What to load a model with: what was asked for, and where it was not asked for what it has."""
        if asked is not None:
            return asked
        return self._models[name].override if name in self._models else AS_IS

    def _needs(self, name: str, override: Override) -> Collection[str]:
        """The models that a model is made of; none where it cannot be told, which its load then explains. Blocks."""
        try:
            found = self._find(name, override)
            return () if found is None else members_of(self._resolver.read(found, override.config))
        except (TrivetError, OSError):
            return ()

    def _find(self, name: str, override: Override) -> FoundModel | None:
        """Where a model is, ``None`` where it is nowhere. Blocks."""
        found = self._repositories.find(name)
        if found is None and override.folder:
            # It may be a model that no repository holds.
            return FoundModel(name, "", Path(name))
        return found

    async def _load(self, name: str, asked: Override | None) -> None:
        """Load one model; whatever is wrong with it ends in a :class:`~trivet.errors.TrivetError`.

        ``asked`` is what the request for it brought; ``None`` for a model that others need, which is loaded as it was.
        """
        try:
            await self._find_and_load(name, asked)
        except TrivetError:
            raise
        except OSError as error:
            # Its folder changes or goes away while it is read.
            raise InternalError(f"failed to load '{name}': {error}") from error
        except Exception as error:
            logger.exception("model '%s' failed to load", name)
            raise InternalError(f"failed to load '{name}': {named_message_of(error)}") from error

    async def _find_and_load(self, name: str, asked: Override | None) -> None:
        found = await to_thread.run_sync(self._find, name, self._override(name, asked))
        if found is None:
            # Callers can ask for any name: nothing is kept of those that no repository holds.
            raise InternalError(f"failed to load '{name}', failed to poll from model repository")
        model = self._models.setdefault(name, Model(name))
        async with model.lock:
            model.wanted = True
            model.explicit = model.explicit or asked is not None
            override = self._override(name, asked)
            resolved = await to_thread.run_sync(self._resolver.resolve, found, override)
            model.forget_failures(resolved.versions)
            before, members = model.override.hold(), model.members
            try:
                model.keep(override)
                model.members = members_of(resolved.config)
                while model.wanted and self._differs(model, resolved):
                    if await self._replacement.replace(model, resolved):
                        break
            except BaseException:
                # What was loaded before serves on, with the members that it has. An ensemble that does not load may
                # wait for its members, and then is built of what the request brought.
                if model.latest is not None or not model.members:
                    model.keep(before)
                    model.members = members
                raise
            finally:
                before.release()
                resolved.release()

    def _differs(self, model: Model, resolved: ResolvedModel) -> bool:
        """Whether loading would change anything."""
        ready = {number for number, entry in model.versions.items() if entry.state is ModelState.READY}
        return model.fingerprint != resolved.fingerprint or ready != set(resolved.versions) or not self._serves(model)

    def _serves(self, model: Model) -> bool:
        """Whether it has ready versions, made of what is the latest of their members."""
        ready = [entry.loaded for entry in model.versions.values() if entry.state is ModelState.READY]
        return bool(ready) and all(loaded is not None and are_current(self._models, loaded.members) for loaded in ready)

    def _has_members(self, model: Model) -> bool:
        return all(member in self._models and self._models[member].latest for member in model.members)

    def _retire_stale(self, name: str) -> None:
        """Take an ensemble out of service that could not be built again after one of its members was replaced."""
        model = self._models.get(name)
        if model is None or self._serves(model):
            return
        for entry in model.versions.values():
            stale = entry.loaded is not None and not are_current(self._models, entry.loaded.members)
            if stale and entry.state is ModelState.READY:
                self._retirement.retire(entry)
        model.refresh()

    async def _startup_models(self) -> list[str]:
        found = await to_thread.run_sync(self._repositories.find_all)
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
