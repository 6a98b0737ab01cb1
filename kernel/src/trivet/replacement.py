"""How a model takes the place of what it was: loaded beside the versions that serve, and swapped when all are there.

Lives on the event loop; what blocks runs on worker threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from trivet import garbage
from trivet.dependencies import Members, are_current, complete_ensemble, find_members, inherited_labels
from trivet.errors import Code, InvalidArgumentError, TrivetError, message_of, named_message_of
from trivet.lifecycle import LoadedModel, ModelEvent, ModelState, ModelVersion
from trivet.loading import ModelLoader
from trivet.model_table import UNLOADED, Model, ModelTable
from trivet.resolving import ResolvedModel
from trivet.retirement import Retirement

if TYPE_CHECKING:
    from trivet.engine import EngineOptions

logger = logging.getLogger(__name__)

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


class Replacement:
    """Loads models, one version beside another. The caller holds the lock of the model."""

    def __init__(
        self,
        options: EngineOptions,
        loader: ModelLoader,
        table: ModelTable,
        retirement: Retirement,
        announce: Callable[[ModelEvent], None],
    ) -> None:
        self._attempts = 1 + options.model_load_retry_count
        self._loader = loader
        self._models = table.models
        self._retirement = retirement
        self._announce = announce
        # Completing a configuration runs a model's code, which may take long or hang; looking into repositories must
        # still find a thread then.
        self._completing = CapacityLimiter(options.model_load_thread_count)

    async def replace(self, model: Model, resolved: ResolvedModel) -> bool:
        """Load all versions of ``resolved`` beside those that serve, then swap; on a failure the old ones serve on.

        Returns false where a member of an ensemble was replaced or unloaded meanwhile: it has to be done again. Raises
        :class:`~trivet.errors.InvalidArgumentError` with what each version failed with.
        """
        for number in resolved.versions:
            entry = model.versions.setdefault(number, ModelVersion(model.name, number))
            if entry.state not in (ModelState.READY, ModelState.LOADING):
                await self._retirement.settled(entry)
                self._announce(entry.move(ModelState.LOADING))
        failures, loaded, members = await self._load(resolved)
        is_current = are_current(self._models, members)
        if failures or not is_current:
            for successor in loaded.values():
                self._retirement.close(successor)
        if failures:
            raise self._failed(model, resolved, failures)
        if is_current:
            self._swap(model, loaded, members)
            model.fingerprint = resolved.fingerprint
            model.refresh()
        return is_current

    def _failed(self, model: Model, resolved: ResolvedModel, failures: Mapping[int, str]) -> InvalidArgumentError:
        """The error for it, after the versions that were loading are marked with their reasons."""
        for number in resolved.versions:
            entry = model.versions[number]
            if entry.state is ModelState.LOADING:
                reason = failures.get(number, "another version of the model failed to load")
                self._announce(entry.move(ModelState.UNAVAILABLE, reason))
        details = "".join(f"version {number} is at UNAVAILABLE state: {reason};" for number, reason in failures.items())
        if resolved.offer is None:
            details = next(iter(failures.values()))
        return InvalidArgumentError(f"load failed for model '{model.name}': {details}\n")

    def _swap(self, model: Model, successors: Mapping[int, LoadedModel], members: Members) -> None:
        """Put the successors into service, and out of it what was there and what has none."""
        for number, successor in successors.items():
            entry = model.versions[number]
            predecessor = entry.loaded
            successor.use(members)
            successor.labels = {**inherited_labels(successor.config, members), **successor.labels}
            self._announce(entry.move(ModelState.READY, loaded=successor))
            if predecessor is not None:
                self._retirement.close(predecessor)
        for number, entry in model.versions.items():
            if number not in successors and entry.state is ModelState.READY:
                # Ensembles that use it are built again next, and serve until then.
                self._retirement.retire(entry, with_users=False)

    async def _load(self, resolved: ResolvedModel) -> tuple[dict[int, str], dict[int, LoadedModel], Members]:
        """As often as is allowed: the reasons of the versions that fail, the others, and an ensemble's members."""
        written = resolved.config.SerializeToString()
        for _ in range(self._attempts - 1):
            failures, loaded, members = await self._load_once(resolved)
            if not failures:
                return failures, loaded, members
            for successor in loaded.values():
                self._retirement.close(successor)
            logger.warning("model '%s' failed to load, trying again: %s", resolved.name, "; ".join(failures.values()))
            # The attempt completed it; the next one begins with what the author wrote.
            resolved.config.ParseFromString(written)
        return await self._load_once(resolved)

    async def _load_once(self, resolved: ResolvedModel) -> tuple[dict[int, str], dict[int, LoadedModel], Members]:
        began_ns = perf_counter_ns()
        failures, loaded, members = await self._attempt(resolved)
        if failures:
            # Errors refer to what was being loaded, by the frames that they came through, and often those to them.
            await to_thread.run_sync(garbage.release, began_ns)
        return failures, loaded, members

    async def _attempt(self, resolved: ResolvedModel) -> tuple[dict[int, str], dict[int, LoadedModel], Members]:
        resolver = self._loader.resolver
        try:
            await to_thread.run_sync(resolver.fill_in, resolved, limiter=self._completing)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything about a model; it becomes the reason
            # Of the version whose files were looked at: nothing is known against the others.
            return {resolved.versions[-1]: _reason(error, resolved)}, {}, {}
        try:
            await to_thread.run_sync(resolver.check, resolved, limiter=self._completing)
            members = find_members(resolved.name, resolved.config, self._models, unloaded=UNLOADED)
            if resolved.offer is None:
                configs = {name: loaded.config for (name, _), loaded in members.items()}
                complete_ensemble(resolved.config, configs, resolved.origin)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the reason
            return dict.fromkeys(resolved.versions, _reason(error, resolved)), {}, {}
        results = await asyncio.gather(
            *(self._loader.load(resolved, number) for number in resolved.versions), return_exceptions=True
        )
        failures: dict[int, str] = {}
        loaded: dict[int, LoadedModel] = {}
        for number, result in zip(resolved.versions, results, strict=True):
            if isinstance(result, LoadedModel):
                loaded[number] = result
            else:
                failures[number] = _reason(result, resolved)
        return failures, loaded, members


def _reason(error: object, resolved: ResolvedModel) -> str:
    """Why a load failed, for the index and for the caller; an unexpected error goes to the log with its traceback."""
    if isinstance(error, TrivetError) and resolved.offer is None:
        return message_of(error)
    if isinstance(error, TrivetError):
        return f"{_REASON_PREFIX[error.code]}: {message_of(error)}"
    if isinstance(error, asyncio.CancelledError):
        raise error
    assert isinstance(error, BaseException)
    logger.error("model '%s' failed to load", resolved.name, exc_info=error)
    return f"Internal: {named_message_of(error)}"
