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
from trivet.backend_pool import BackendPool
from trivet.caching import caching_for
from trivet.caller import EngineCaller, MemberAccess
from trivet.delivery import Delivery
from trivet.errors import (
    InternalError,
    RequestCancelledError,
    TrivetError,
    UnavailableError,
    named_message_of,
)
from trivet.host_policy import HostPolicy
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.lifecycle import LoadedModel, ModelEvent
from trivet.loading import EngineWays, ModelLoader
from trivet.loop import LoopInbox
from trivet.memory import GpuMemory, PinnedMemory
from trivet.metrics import MetricRegistry
from trivet.model_control import IndexEntry, LoadFailure, ModelControl
from trivet.model_table import ModelTable
from trivet.placement import gpu_count
from trivet.plugins import PluginRegistry
from trivet.resources import ResourceSize
from trivet.statistics import FailureReason, ModelStatistics
from trivet.trace_file import TraceFiles
from trivet.trace_settings import TraceOptions
from trivet.tracing import Tracing
from trivet.validation import validate

logger = logging.getLogger(__name__)


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
    """The older name of ``disable_auto_complete_config``."""
    disable_auto_complete_config: bool = False
    """Take configurations as they are written; backends complete nothing."""
    model_config_name: str = ""
    """Read ``MODEL/configs/NAME.pbtxt`` in place of ``MODEL/config.pbtxt`` where a model has it."""
    backend_config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Options by backend name; those under ``""`` are for all."""
    rate_limit: Literal["off", "execution_count"] = "off"
    """``execution_count``: instances execute as their ``rate_limiter`` allows."""
    rate_limit_resources: Sequence[ResourceSize] = ()
    """How much there is of a resource; of one that is not named here, the most that any instance wants."""
    host_policies: Mapping[str, HostPolicy] = field(default_factory=dict)
    """By name; see ``instance_group.host_policy``."""
    cache_config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The response cache's options, by its name; empty for none."""
    trace: TraceOptions = field(default_factory=TraceOptions)
    """Which requests are traced when the server starts."""
    model_load_thread_count: int = 4
    """How many models load at the same time."""
    model_load_retry_count: int = 0
    """How often a failed load of a model is retried."""


class Engine:
    """Serves the models of one or more repositories. Constructed on the event loop that it then runs on."""

    def __init__(
        self,
        registry: PluginRegistry,
        options: EngineOptions,
        *,
        pinned_memory: PinnedMemory | None = None,
        gpu_memory: GpuMemory | None = None,
    ) -> None:
        """``pinned_memory`` and ``gpu_memory`` are for backends that use a GPU."""
        self.registry = registry
        self.options = options
        self.server_name = "trivet"
        self.version = __version__
        self.extensions: list[str] = [name for offer in registry.schedulers.values() for name in offer.extensions]
        """Protocol extensions for server metadata; those of the schedulers, and each protocol adds its own."""
        self.on_model_event: list[Callable[[ModelEvent], None]] = []
        """Called on the event loop when a model version changes its state."""
        self.tracing = Tracing(options.trace, TraceFiles())
        self._delivery = Delivery(self.tracing)
        self.on_finished: list[Callable[[InferenceRequest, InferenceResponse], None]] = self._delivery.on_finished
        """Called on the event loop with each final response, after it went out: for exporters. Must not raise. Requests
        that :meth:`submit` refused are not among them."""
        self.metrics = MetricRegistry()
        """What models measure themselves, for exporters."""
        self.on_refused: list[Callable[[InferenceRequest, TrivetError], None]] = []
        """Called on the event loop with each request that :meth:`submit` refuses, before it raises, or that a protocol
        tells :meth:`report_refused` of. Must not raise."""
        self._backends = BackendPool(registry)
        loop = asyncio.get_running_loop()
        self._caller = EngineCaller(self, loop)
        self._models = ModelTable()
        self.response_cache = caching_for(
            registry,
            options.cache_config,
            answer=self._delivery.answer,
            reject=self._delivery.reject,
            find=self._models.model,
        )
        """``None`` where the server has none."""
        self._control = ModelControl(
            registry,
            options,
            ModelLoader(
                registry,
                options,
                self._backends,
                EngineWays(
                    inbox=LoopInbox(loop, self._delivery.finished),
                    reject=self._delivery.reject,
                    respond=self._delivery.respond,
                    answer=self._delivery.answer,
                    models=MemberAccess(self._models, self._enter, self.cancel),
                    caller=self._caller,
                    metrics=self.metrics,
                ),
                gpus=gpu_count(),
                caching=self.response_cache,
                pinned_memory=pinned_memory,
                gpu_memory=gpu_memory,
            ),
            self._models,
            announce=self._announce,
        )
        self._started = False
        self._draining = False
        self._abandoned = False

    # --- readiness

    @property
    def draining(self) -> bool:
        """The server stops: it takes no new requests."""
        return self._draining

    @property
    def live(self) -> bool:
        """The engine answers."""
        return True

    @property
    def ready(self) -> bool:
        """Models were loaded, the server does not stop; with strict readiness, every model that should be ready is."""
        if not self._started or self._draining:
            return False
        return self._models.all_ready or not self.options.strict_readiness

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
        """The loaded model that would serve this name and version, the latest where none is named.

        Raises :class:`~trivet.errors.NotFoundError` where it is unknown or has no such version,
        :class:`~trivet.errors.UnavailableError` where that version is not ready, and
        :class:`~trivet.errors.InvalidArgumentError` for a version that is no number.
        """
        return self._models.model(name, version)

    def ready_models(self) -> list[LoadedModel]:
        """Every version that is ready, by name and version."""
        return self._models.ready()

    def versions(self, name: str) -> list[int]:
        """The ready versions, ascending. Raises :class:`~trivet.errors.NotFoundError` for an unknown model."""
        return self._models.versions(name)

    # --- inference

    def submit(self, request: InferenceRequest) -> None:
        """Validate a request and queue it.

        Returns at once; ``request.on_response`` is then called on the event loop until a response is final. Raises a
        :class:`~trivet.errors.TrivetError` where the request is refused, and then never calls it.
        """
        try:
            if self._draining:
                raise UnavailableError("Server is stopping, it accepts no new inference requests")
            model = self._models.model(request.model_name, request.model_version)
            if self.tracing.on:
                self.tracing.begin(request)
            self._enter(model, request)
        except TrivetError as error:
            self._tell_refused(request, error)
            raise

    def report_refused(self, model_name: str, error: TrivetError, *, model_version: str = "", id: str = "") -> None:
        """Let :attr:`on_refused` hear of an inference request that its protocol refuses, and never submits.

        It could not be read, or its caller may not ask. What is not known of it is empty. On the event loop.
        """
        self._tell_refused(InferenceRequest(model_name, {}, model_version=model_version, id=id), error)

    def _tell_refused(self, request: InferenceRequest, error: TrivetError) -> None:
        for observer in self.on_refused:
            observer(request, error)

    def _enter(self, model: LoadedModel, request: InferenceRequest) -> None:
        if request.parent is not None and request.parent.trace is not None:
            self.tracing.begin_nested(request, request.parent.trace)
        try:
            validate(model.spec, request)
            request.model = model
            if request.trace is not None and request.trace.sampler.tensors:
                self.tracing.note_inputs(request.trace, request)
            request.queued_ns = perf_counter_ns()
            model.in_flight.add(request)
            (model.cache or model.scheduler).enqueue(request)
        except Exception as error:
            if request.answered_ns:
                # A refusal would be a second final response.
                logger.exception("model '%s' answered a request and then failed to queue it", model.name)
                return
            if isinstance(error, TrivetError):
                self._refused(model, request, error, FailureReason.REJECTED)
                raise
            # A scheduler that stumbles over one request must not keep it, or its model could never be unloaded.
            logger.exception("model '%s' failed to queue a request", model.name)
            what = f"model '{model.name}' failed to queue the request: {named_message_of(error)}"
            request.cancelled = True  # for an instance that finds it in a queue all the same
            # Not in a variable: what is raised holds the frame, and with it the request's tensors.
            self._refused(model, request, InternalError(what), FailureReason.OTHER)
            raise InternalError(what) from error

    def _refused(self, model: LoadedModel, request: InferenceRequest, error: TrivetError, why: FailureReason) -> None:
        if request in model.in_flight:
            model.finished(request)
            model.statistics.request_failed(request, perf_counter_ns(), why)
        if request.trace is not None:
            self.tracing.end(request.trace, request, error)

    def submit_inner(self, request: InferenceRequest) -> None:
        """Like :meth:`submit`, for a request that another one in flight leads to: taken while the server drains, too.

        Else a draining server could not answer what it has accepted. Raises what :meth:`submit` does.
        """
        if self._abandoned:
            raise UnavailableError("Server is stopping, it accepts no new inference requests")
        self._enter(self._models.model(request.model_name, request.model_version), request)

    def cancel(self, request: InferenceRequest) -> None:
        """Answer a request with :class:`~trivet.errors.RequestCancelledError` now, wherever it is.

        A waiting request leaves its queue; what an instance still computes for it is thrown away. Does nothing for a
        request that was answered already.
        """
        model = request.model
        if model is None or request not in model.in_flight:
            return
        self._delivery.withdraw(request, RequestCancelledError(request.tagged("Cancelled")))
        execution = request.execution
        if execution is not None and execution.cancelled:
            for made in list(execution.made):
                self.cancel(made)

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

    # --- models

    async def start(self) -> list[LoadFailure]:
        """Open the repositories and load what the control mode says, concurrently.

        Returns the models that failed. Raises :class:`~trivet.errors.InvalidArgumentError` for a repository that cannot
        be opened or a named model that no repository holds.
        """
        if self.response_cache is not None:
            await self.response_cache.open()
        failures = await self._control.start()
        self._started = True
        return failures

    async def load(self, name: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model; the versions that served before serve until the new ones are ready.

        The members of an ensemble are loaded before it, and ensembles that need the model are built again after it.

        ``config`` is a model configuration as JSON in place of the repository's; ``files`` (path in the model's folder
        to content) replace the folder and need ``config``. Raises :class:`~trivet.errors.TrivetError` where the model
        cannot be loaded; what was loaded before then serves on.
        """
        await self._control.load(name, config, files)

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Take a model out of service. Returns when no new request reaches it; requests in flight finish behind.

        Ensembles that need it go with it, and come back when it is loaded again. ``unload_dependents`` also unloads
        the models that only an ensemble of this name needed, where nobody asked to load them. An unknown model is
        nothing to unload, as in Triton.
        """
        await self._control.unload(name, unload_dependents=unload_dependents)

    async def repository_index(self, ready_only: bool = False) -> list[IndexEntry]:
        """Every model that the repositories hold or that is loaded, by name and version."""
        return await self._control.index(ready_only)

    def statistics(self, name: str = "", version: str = "") -> list[ModelStatistics]:
        """Statistics of the ready versions: of all models, of one, or of one version of it.

        Raises :class:`~trivet.errors.InvalidArgumentError` where that model or version is not available.
        """
        return self._models.statistics(name, version)

    # --- stopping

    def begin_drain(self) -> None:
        """Not ready from now on, and every new request is refused as unavailable; those in flight go on."""
        self._draining = True

    async def drained(self, timeout_s: float) -> int:
        """Wait for the requests in flight, at most ``timeout_s`` seconds; returns how many are left."""
        loaded = self._control.loaded()
        for model in loaded:
            model.drain_scheduler()
        if loaded:
            _, late = await asyncio.wait(
                [asyncio.ensure_future(model.drained()) for model in loaded], timeout=timeout_s
            )
            for task in late:
                task.cancel()
        return sum(len(model.in_flight) for model in loaded)

    def abandon(self) -> None:
        """Answer what is still in flight with an error; what instances compute for it is thrown away."""
        self._abandoned = True
        for model in self._control.loaded():
            for request in list(model.in_flight):
                self._delivery.withdraw(request, UnavailableError("Server is stopping, the request was not finished"))

    async def stop(self) -> None:
        """Answer what is still in flight with an error, unload every model, close every backend."""
        self.begin_drain()
        self.abandon()
        await self._control.close()
        self._caller.close()
        await self.tracing.close()
        if self.response_cache is not None:
            await self.response_cache.close()
        await to_thread.run_sync(self._backends.close)

    def _announce(self, event: ModelEvent) -> None:
        for observer in self.on_model_event:
            try:
                observer(event)
            except Exception:
                # Half-way through a load: whoever only watches must not leave a model between two states.
                logger.exception("observer %r failed on model '%s'", observer, event.name)
