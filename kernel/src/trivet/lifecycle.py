"""The life of a model version: one state machine, and what it holds while it is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from time import perf_counter_ns
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from trivet import garbage
from trivet.errors import InternalError
from trivet.statistics import ModelStatistics

if TYPE_CHECKING:
    from trivet.backend import BackendModel
    from trivet.config import ModelConfig
    from trivet.config.spec import ModelSpec
    from trivet.dependencies import Members
    from trivet.inference import InferenceRequest
    from trivet.instance import Instance
    from trivet.model_cache import ModelCache
    from trivet.scheduling import Scheduler

logger = logging.getLogger(__name__)


class ModelState(Enum):
    """States of a model version; the values are what the repository index shows."""

    UNKNOWN = ""
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


# A ready version that is reloaded stays READY while its successor loads and when that takes its place.
_TRANSITIONS: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.UNKNOWN: frozenset({ModelState.LOADING}),
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.UNAVAILABLE}),
    ModelState.READY: frozenset({ModelState.READY, ModelState.UNLOADING}),
    ModelState.UNLOADING: frozenset({ModelState.UNAVAILABLE}),
    ModelState.UNAVAILABLE: frozenset({ModelState.LOADING}),
}


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A model version changed its state."""

    name: str
    version: int
    state: ModelState
    reason: str


class ModelVersion:
    """One version of one model: its state, the reason for it, and the loaded model while there is one."""

    __slots__ = ("loaded", "name", "reason", "state", "version")

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version
        self.state = ModelState.UNKNOWN
        self.reason = ""
        self.loaded: LoadedModel | None = None

    def move(self, state: ModelState, reason: str = "", loaded: LoadedModel | None = None) -> ModelEvent:
        """Change the state; raises :class:`~trivet.errors.InternalError` for a step that does not exist."""
        if state not in _TRANSITIONS[self.state]:
            raise InternalError(
                f"model '{self.name}' version {self.version} cannot go from {self.state.name} to {state.name}"
            )
        self.state = state
        self.reason = reason
        self.loaded = loaded
        return ModelEvent(self.name, self.version, state, reason)


class LoadedModel:
    """A model version in memory: configuration, scheduler, instances, statistics. Used on the event loop."""

    def __init__(
        self,
        *,
        version: int,
        config: ModelConfig,
        spec: ModelSpec,
        labels: Mapping[str, Sequence[str]],
        backend_model: BackendModel | None,
        instances: Sequence[Instance],
        scheduler: Scheduler,
        cache: ModelCache | None = None,
        identity: Callable[[], bytes | None] = lambda: None,
        on_close: Callable[[], None] | None = None,
        trim: Callable[[], None] | None = None,
    ) -> None:
        self.name = spec.name
        self.version = version
        self.config = config
        self.spec = spec
        self.labels = labels
        """Class labels by output name, for outputs that have a label file."""
        self.instances = instances
        self.scheduler = scheduler
        self.cache = cache
        """Stands before the scheduler, where the model's responses are cached."""
        self.identity = identity
        """What this model is, on a server that has a response cache: equal for models that answer the same. ``None``
        where that is not known."""
        self.statistics = ModelStatistics(spec.name, str(version))
        self.in_flight: set[InferenceRequest] = set()
        """Requests that were accepted and have no final response yet."""
        self.members: Members = {}
        """What an ensemble hands requests on to; it stays in memory until the ensemble is closed."""
        self._users: set[LoadedModel] = set()
        self._backend_model = backend_model
        self._on_close = on_close
        self._trim = trim
        self._made_ns = perf_counter_ns()
        self._idle: asyncio.Event | None = None
        self._closed = asyncio.Event()

    @property
    def platform(self) -> str:
        """What metadata calls the platform: the configuration's, else the backend's name."""
        return self.config.platform or self.config.backend

    def finished(self, request: InferenceRequest) -> None:
        """The request has its final response."""
        self.in_flight.discard(request)
        if request.on_done is not None:
            try:
                request.on_done(request)
            except Exception:
                # The response goes out all the same, and a model that unloads hears that it is idle.
                logger.exception("the scheduler of model '%s' failed when a request was done", self.name)
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    def drain_scheduler(self) -> None:
        """No further request comes. A scheduler that fails over that keeps no other model from being told."""
        try:
            self.scheduler.drain()
        except Exception:
            logger.exception("the scheduler of model '%s' failed to drain", self.name)

    async def drained(self) -> None:
        """Wait until no request is in flight. The caller has made sure that no new one comes."""
        while self.in_flight:
            # Shared: a model may be unloading while the server drains, and both wait for the same requests.
            if self._idle is None or self._idle.is_set():
                self._idle = asyncio.Event()
            await self._idle.wait()

    def use(self, members: Members) -> None:
        """Enter service as an ensemble of ``members``. Not for one that was used already."""
        self.members = members
        for member in members.values():
            member._users.add(self)

    @property
    def users(self) -> Collection[LoadedModel]:
        """The ensembles in memory that hand requests on to this."""
        return self._users

    async def close(self) -> None:
        """Wait for what is in flight, then free instances and model. Never raises for a plugin's failure.

        An ensemble that uses it goes first: what that has in flight may still be on its way here.
        """
        while self._users:
            await next(iter(self._users))._closed.wait()
        self.drain_scheduler()
        await self.drained()
        try:
            self.scheduler.close()
        except Exception:
            logger.exception("the scheduler of model '%s' failed to close", self.name)
        for instance in self.instances:
            instance.stop()
        # A thread beyond any limit: it waits for an instance that may hang, and must not keep others from theirs.
        await to_thread.run_sync(self._free, limiter=CapacityLimiter(1))
        for member in self.members.values():
            member._users.discard(self)
        self.members = {}
        self._closed.set()

    def _free(self) -> None:
        self._close_backend()
        garbage.release(self._made_ns)
        if self._trim is not None:
            try:
                self._trim()
            except BaseException:
                logger.exception("the backend of model '%s' failed to give memory back", self.name)

    def _close_backend(self) -> None:
        """To its end, so that nothing refers to instances and model when what they held is collected."""
        for instance in self.instances:
            instance.join()
        if self._backend_model is not None:
            try:
                self._backend_model.close()
            except BaseException:
                logger.exception("model '%s' version %d failed to close", self.name, self.version)
        self._backend_model = None
        if self._on_close is not None:
            self._on_close()
        self.instances = ()
