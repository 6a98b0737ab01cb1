"""The front door: inference, model control, readiness, statistics.

Protocols and embedders talk to an :class:`Engine` and to nothing behind it. All of it runs on one event loop, which
owns every queue and every counter; so nothing here is locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Literal

from anyio import to_thread

from trivet import __version__
from trivet.caller import EngineCaller
from trivet.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RequestCancelledError,
    TrivetError,
    UnavailableError,
)
from trivet.extensions import FoundModel, ModelRepository
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.instance import Finished
from trivet.lifecycle import LoadedModel, ModelEvent, ModelState, ModelVersion
from trivet.loading import BackendPool, ModelLoader, ResolvedModel
from trivet.loop import LoopInbox
from trivet.placement import gpu_count
from trivet.plugins import PluginRegistry
from trivet.repository import open_repository
from trivet.statistics import ModelStatistics
from trivet.validation import validate

logger = logging.getLogger(__name__)

UNLOADED = "unloaded"
"""The reason of a version that was unloaded on request, as the repository index shows it."""

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
class EngineOptions:
    """How an engine is set up. Names are those of ``tritonserver``'s options."""

    model_repositories: Sequence[str] = ()
    model_control_mode: Literal["none", "explicit"] = "none"
    """``none`` loads every model at start; ``explicit`` those of ``load_models`` and what callers ask for."""
    load_models: Sequence[str] = ()
    """For ``explicit``; ``*`` loads all."""
    strict_readiness: bool = True
    """Ready only while every model that should be ready is."""
    strict_model_config: bool = False
    disable_auto_complete_config: bool = False
    model_config_name: str = ""
    backend_config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Options by backend name; those under ``""`` are for all."""
    model_load_thread_count: int = 4
    model_load_retry_count: int = 0


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


class Model:
    """All versions of one model."""

    __slots__ = ("fingerprint", "latest", "lock", "name", "versions")

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[int, ModelVersion] = {}
        self.latest: LoadedModel | None = None
        """The ready version with the highest number."""
        self.fingerprint: object = None
        """Of what is loaded; a load that would give the same does nothing."""
        self.lock = asyncio.Lock()
        """Held while the model loads or unloads."""

    def refresh(self) -> None:
        ready = [number for number, version in self.versions.items() if version.state is ModelState.READY]
        self.latest = self.versions[max(ready)].loaded if ready else None


class Engine:
    """Serves the models of one or more repositories. Constructed on the event loop that it then runs on."""

    def __init__(self, registry: PluginRegistry, options: EngineOptions) -> None:
        self.registry = registry
        self.options = options
        self.server_name = "trivet"
        self.version = __version__
        self.extensions: list[str] = []
        """Protocol extensions for server metadata; each protocol adds its own."""
        self.on_model_event: list[Callable[[ModelEvent], None]] = []
        """Called on the event loop when a model version changes its state."""
        self.on_finished: list[Callable[[InferenceRequest, InferenceResponse], None]] = []
        """Called on the event loop with each final response, after it went out: for exporters. Must not raise."""
        self._models: dict[str, Model] = {}
        self._repositories: list[ModelRepository] = []
        self._backends = BackendPool(registry)
        self._inbox: LoopInbox[Finished] = LoopInbox(asyncio.get_running_loop(), self._finished)
        self._loader = ModelLoader(
            registry,
            options,
            self._backends,
            gpus=gpu_count(),
            caller=EngineCaller(self, asyncio.get_running_loop()),
        )
        self._closing: set[asyncio.Task[None]] = set()
        self._started = False
        self._draining = False

    # --- readiness

    @property
    def live(self) -> bool:
        """The engine answers."""
        return True

    @property
    def ready(self) -> bool:
        """Models were loaded, the server does not stop; with strict readiness, every model that should be ready is."""
        if not self._started or self._draining:
            return False
        return not self.options.strict_readiness or all(
            version.state is ModelState.READY
            or version.state is ModelState.UNLOADING
            or (version.state is ModelState.UNAVAILABLE and version.reason == UNLOADED)
            for model in self._models.values()
            for version in model.versions.values()
        )

    def model_ready(self, name: str, version: str = "") -> bool:
        """Whether that version (the latest, when empty) can serve now; False for what is unknown."""
        if self._draining:
            return False
        try:
            self.model(name, version)
        except TrivetError:
            return False
        return True

    # --- lookup

    def model(self, name: str, version: str = "") -> LoadedModel:
        """The loaded model that would serve this name and version.

        Raises :class:`~trivet.errors.NotFoundError` where it is unknown or has no such ready version.
        """
        model = self._models.get(name)
        if model is None:
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        if not version:
            if model.latest is None:
                raise NotFoundError(f"Request for unknown model: '{name}' has no available versions")
            return model.latest
        entry = model.versions.get(parse_version(version))
        if entry is None:
            raise NotFoundError(f"Request for unknown model: '{name}' version {version} is not found")
        if entry.loaded is None or entry.state is not ModelState.READY:
            raise UnavailableError(f"Request for unknown model: '{name}' version {version} is not at ready state")
        return entry.loaded

    def versions(self, name: str) -> list[int]:
        """The ready versions, ascending. Raises :class:`~trivet.errors.NotFoundError` for an unknown model."""
        model = self._models.get(name)
        if model is None:
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        return sorted(number for number, entry in model.versions.items() if entry.state is ModelState.READY)

    # --- inference

    def submit(self, request: InferenceRequest) -> None:
        """Validate a request and queue it.

        Returns at once; ``request.on_response`` is then called on the event loop until a response is final. Raises a
        :class:`~trivet.errors.TrivetError` where the request is refused, and then never calls it.
        """
        if self._draining:
            raise UnavailableError("Server is stopping, it accepts no new inference requests")
        model = self.model(request.model_name, request.model_version)
        validate(model.spec, request)
        request.model = model
        request.queued_ns = perf_counter_ns()
        model.in_flight.add(request)
        try:
            model.scheduler.enqueue(request)
        except TrivetError:
            model.finished(request)
            model.statistics.request_failed(request, perf_counter_ns())
            raise

    def cancel(self, request: InferenceRequest) -> None:
        """Answer a request with :class:`~trivet.errors.RequestCancelledError` now, wherever it is.

        A waiting request leaves its queue; what an instance still computes for it is thrown away. Does nothing for a
        request that was answered already.
        """
        model = request.model
        if model is None or request not in model.in_flight:
            return
        request.cancelled = True
        if request.on_cancel is not None:
            request.on_cancel(request)
        self._reject(request, RequestCancelledError(f"[request id: {request.id or '<id_unknown>'}] Cancelled"))

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Submit a request and wait for its final response; errors are in the response or raised by :meth:`submit`.

        Cancelling the task cancels the request. Responses before the final one are dropped.
        """
        done: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()

        def on_response(_: InferenceRequest, response: InferenceResponse) -> None:
            if response.final and not done.done():
                done.set_result(response)

        request.on_response = on_response
        self.submit(request)
        try:
            return await done
        except asyncio.CancelledError:
            self.cancel(request)
            raise

    def _finished(self, item: Finished) -> None:
        """What instances post: answers, and batches that ended."""
        for request, response in item.responses:
            self._answer(request, response)
        batch = item.batch
        if batch is None:
            return
        executed = [request for request in batch.requests if request.compute_start_ns]
        model = batch.requests[0].model
        assert model is not None
        if executed:
            model.statistics.executed(executed)
        model.scheduler.batch_done(item.instance, batch)

    def _answer(self, request: InferenceRequest, response: InferenceResponse) -> None:
        model = request.model
        assert model is not None
        if request not in model.in_flight:
            # It was cancelled or rejected while an instance worked on it, and has its final response.
            return
        if response.final:
            model.finished(request)
            now = perf_counter_ns()
            if response.error is None:
                model.statistics.request_succeeded(request, now)
            else:
                model.statistics.request_failed(request, now)
        self._deliver(request, response)

    def _reject(self, request: InferenceRequest, error: TrivetError) -> None:
        """Give a request in flight an error as its final response."""
        request.done = True
        self._answer(request, InferenceResponse(error=error))

    def _deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        if request.on_response is not None:
            try:
                request.on_response(request, response)
            except Exception as error:
                # A protocol that fails to write one answer must not cost the answers behind it, and whoever asked still
                # waits for this one.
                logger.exception("response to request '%s' of model '%s' failed", request.id, request.model_name)
                if response.error is None:
                    failure = InternalError(
                        f"the response of model '{request.model_name}' cannot be sent: {type(error).__name__}: {error}"
                    )
                    self._deliver(request, InferenceResponse(error=failure, final=response.final))
                    return
        if response.final:
            for observer in self.on_finished:
                try:
                    observer(request, response)
                except Exception:
                    logger.exception("observer %r failed on a response of model '%s'", observer, request.model_name)

    # --- models

    async def start(self) -> list[LoadFailure]:
        """Open the repositories and load what the control mode says, concurrently.

        Returns the models that failed. Raises :class:`~trivet.errors.InvalidArgumentError` for a repository that cannot
        be opened or a named model that no repository holds.
        """
        self._repositories = [
            await to_thread.run_sync(open_repository, self.registry, url) for url in self.options.model_repositories
        ]
        names = await self._startup_models()
        results = await asyncio.gather(*(self._load(name) for name in names), return_exceptions=True)
        failures = []
        for name, result in zip(names, results, strict=True):
            if isinstance(result, TrivetError):
                failures.append(LoadFailure(name, str(result)))
            elif isinstance(result, BaseException):
                raise result
        self._started = True
        return failures

    async def load(self, name: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model; the versions that served before serve until the new ones are ready.

        ``config`` is a model configuration as JSON in place of the repository's; ``files`` (path in the model's folder
        to content) replace the folder and need ``config``. Raises :class:`~trivet.errors.TrivetError` where the model
        cannot be loaded; what was loaded before then serves on.
        """
        self._check_control()
        if files and config is None:
            raise InternalError(f"failed to load '{name}', failed to poll from model repository")
        await self._load(name, config, files)

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Take a model out of service. Returns when no new request reaches it; requests in flight finish behind.

        ``unload_dependents`` also unloads the models that only an ensemble of this name needed. An unknown model is
        nothing to unload, as in Triton.
        """
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

    async def repository_index(self, ready_only: bool = False) -> list[IndexEntry]:
        """Every model that the repositories hold or that is loaded, by name and version."""
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

    def statistics(self, name: str = "", version: str = "") -> list[ModelStatistics]:
        """Statistics of the ready versions: of all models, of one, or of one version of it.

        Raises :class:`~trivet.errors.InvalidArgumentError` where that model or version is not available.
        """
        if not name:
            return [stats for known in sorted(self._models) for stats in self._statistics(self._models[known])]
        model = self._models.get(name)
        if model is None or model.latest is None:
            raise InvalidArgumentError(f"requested model '{name}' is not available")
        if not version:
            return self._statistics(model)
        entry = model.versions.get(parse_version(version))
        if entry is None or entry.loaded is None or entry.state is not ModelState.READY:
            raise InvalidArgumentError(f"requested model version is not available for model '{name}'")
        return [entry.loaded.statistics]

    # --- stopping

    def begin_drain(self) -> None:
        """Not ready from now on, and every new request is refused as unavailable; those in flight go on."""
        self._draining = True

    async def drained(self, timeout_s: float) -> int:
        """Wait for the requests in flight, at most ``timeout_s`` seconds; returns how many are left."""
        loaded = [version.loaded for model in self._models.values() for version in model.versions.values()]
        waiting = [asyncio.ensure_future(model.drained()) for model in loaded if model is not None]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=timeout_s)
            for task in late:
                task.cancel()
        return sum(len(model.in_flight) for model in loaded if model is not None)

    async def stop(self) -> None:
        """Answer what is still in flight with an error, unload every model, close every backend."""
        self.begin_drain()
        for model in self._models.values():
            for entry in model.versions.values():
                if entry.loaded is not None:
                    for request in list(entry.loaded.in_flight):
                        request.cancelled = True
                        self._reject(request, UnavailableError("Server is stopping, the request was not finished"))
                if entry.state is ModelState.READY:
                    self._retire(entry)
        if self._closing:
            await asyncio.wait(self._closing)
        await to_thread.run_sync(self._backends.close)

    # --- behind the front door

    async def _load(self, name: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        model = self._models.get(name)
        if model is None:
            model = Model(name)
        async with model.lock:
            resolved = await to_thread.run_sync(self._resolve, name, config, files)
            if resolved is None:
                raise InternalError(f"failed to load '{name}', failed to poll from model repository")
            self._models.setdefault(name, model)
            ready = {number for number, entry in model.versions.items() if entry.state is ModelState.READY}
            if model.fingerprint == resolved.fingerprint and ready == set(resolved.versions) and not files:
                return
            await self._replace(model, resolved)

    async def _replace(self, model: Model, resolved: ResolvedModel) -> None:
        """Load all versions of ``resolved`` beside those that serve, then swap; on a failure the old ones serve on."""
        for number in resolved.versions:
            entry = model.versions.setdefault(number, ModelVersion(model.name, number))
            if entry.state is not ModelState.READY:
                await self._settled(entry)
                self._announce(entry.move(ModelState.LOADING))
        attempts = 1 + self.options.model_load_retry_count
        failures: dict[int, str] = {}
        loaded: dict[int, LoadedModel] = {}
        for attempt in range(attempts):
            failures, loaded = await self._load_versions(resolved)
            if not failures:
                break
            if attempt + 1 < attempts:
                logger.warning("model '%s' failed to load, trying again: %s", model.name, "; ".join(failures.values()))
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
            await to_thread.run_sync(self._loader.complete, resolved)
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

    def _resolve(self, name: str, config: str | None, files: Mapping[str, bytes] | None) -> ResolvedModel | None:
        found = self._find(name)
        if found is None:
            return None
        return self._loader.resolve(found, config, files)

    def _find(self, name: str) -> FoundModel | None:
        matches = [found for repository in self._repositories if (found := repository.find(name)) is not None]
        if len(matches) > 1:
            raise InvalidArgumentError(
                f"model '{name}' is in more than one repository: {', '.join(match.repository for match in matches)}"
            )
        return matches[0] if matches else None

    def _find_all(self) -> dict[str, FoundModel]:
        return {found.name: found for repository in self._repositories for found in repository.models()}

    async def _startup_models(self) -> list[str]:
        found = await to_thread.run_sync(self._find_all)
        wanted = list(self.options.load_models)
        if self.options.model_control_mode == "none" or "*" in wanted:
            return sorted(found)
        missing = [name for name in wanted if name not in found]
        if missing:
            places = ", ".join(self.options.model_repositories)
            raise InvalidArgumentError(f"--load-model names {missing}, which no model repository holds ({places})")
        return wanted

    def _check_control(self) -> None:
        if self.options.model_control_mode != "explicit":
            raise UnavailableError("explicit model load / unload is not allowed if polling is enabled")

    def _retire(self, entry: ModelVersion) -> None:
        """Take a ready version out of service and close it when its requests are answered."""
        loaded = entry.loaded
        assert loaded is not None
        self._announce(entry.move(ModelState.UNLOADING, loaded=loaded))
        self._close_later(loaded, entry)

    def _close_later(self, loaded: LoadedModel, entry: ModelVersion | None) -> None:
        task = asyncio.ensure_future(self._close(loaded, entry))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, loaded: LoadedModel, entry: ModelVersion | None) -> None:
        await loaded.close()
        if entry is not None and entry.state is ModelState.UNLOADING:
            self._announce(entry.move(ModelState.UNAVAILABLE, UNLOADED))

    async def _settled(self, entry: ModelVersion) -> None:
        """Wait until a version that is unloading is gone, so that it is not in memory twice."""
        while entry.state is ModelState.UNLOADING:
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)

    def _announce(self, event: ModelEvent) -> None:
        for observer in self.on_model_event:
            observer(event)

    def _statistics(self, model: Model) -> list[ModelStatistics]:
        entries = (model.versions[number] for number in sorted(model.versions))
        return [entry.loaded.statistics for entry in entries if entry.loaded and entry.state is ModelState.READY]


def parse_version(version: str) -> int:
    """A version as callers write it. Raises :class:`~trivet.errors.InvalidArgumentError` where it is no number."""
    if version.isascii() and version.isdecimal():
        return int(version)
    raise InvalidArgumentError(
        f"failed to get model version from specified version string '{version}' (details: stol), version should be an"
        " integral value > 0"
    )


def _reason(error: object, name: str) -> str:
    """Why a load failed, for the index and for the caller; an unexpected error goes to the log with its traceback."""
    if isinstance(error, TrivetError):
        return f"{_REASON_PREFIX[error.code]}: {error}"
    if isinstance(error, asyncio.CancelledError):
        raise error
    assert isinstance(error, BaseException)
    logger.error("model '%s' failed to load", name, exc_info=error)
    return f"Internal: {type(error).__name__}: {error}"
