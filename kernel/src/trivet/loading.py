"""From a configuration that is complete to a model in memory: weights, instances, scheduler.

Weights are loaded on worker threads, instances are created on their own; the event loop only puts the pieces together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from trivet import garbage
from trivet.backend import BackendModel, ModelCaller, ModelContext
from trivet.backend_pool import BackendPool
from trivet.caching import ResponseCaching, cache_before, identify
from trivet.config.spec import ModelSpec
from trivet.config.validation.ensemble import ENSEMBLE_PLATFORM
from trivet.errors import InternalError, TrivetError
from trivet.instance import Finished, Instance, WorkQueue
from trivet.lifecycle import LoadedModel
from trivet.loop import LoopInbox, LoopOutbox
from trivet.placement import shares
from trivet.rate_limiter import LimitedScheduler, rate_limiter_for
from trivet.repository import read_labels
from trivet.resolving import ModelResolver, ResolvedModel, contained
from trivet.scheduling import DefaultScheduler, IdleScheduler, ModelAccess, Scheduler, SchedulerContext
from trivet.warmup import WarmupSample, read_samples

if TYPE_CHECKING:
    from trivet.engine import EngineOptions
    from trivet.hookspecs import SchedulerPlugin
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.memory import GpuMemory, PinnedMemory
    from trivet.metrics import MetricRegistry
    from trivet.plugins import PluginRegistry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineWays:
    """The ways from a loaded model back into the engine."""

    inbox: LoopInbox[Finished]
    """Where instances post what they finished."""
    reject: Callable[[InferenceRequest, TrivetError], None]
    """Answers a queued request with an error."""
    respond: Callable[[InferenceRequest, InferenceResponse], None]
    """Answers a queued request without an instance."""
    answer: Callable[[InferenceRequest, InferenceResponse], None]
    """Sends an instance's response on its way."""
    models: ModelAccess
    """For schedulers, on the event loop."""
    caller: ModelCaller
    """For models, on their own threads."""
    metrics: MetricRegistry
    """For models that measure something themselves."""


class ModelLoader:
    """Loads models. Lives on the event loop."""

    def __init__(
        self,
        registry: PluginRegistry,
        options: EngineOptions,
        backends: BackendPool,
        ways: EngineWays,
        *,
        gpus: int,
        caching: ResponseCaching | None = None,
        pinned_memory: PinnedMemory | None = None,
        gpu_memory: GpuMemory | None = None,
    ) -> None:
        self._registry = registry
        self._backends = backends
        self._ways = ways
        self._caching = caching
        self._rate_limiter = rate_limiter_for(options)
        self.resolver = ModelResolver(
            registry,
            options,
            backends,
            gpus=gpus,
            rate_limiter=self._rate_limiter,
            caller=ways.caller,
            metrics=ways.metrics,
            pinned_memory=pinned_memory,
            gpu_memory=gpu_memory,
        )
        """What reads and checks the configurations that :meth:`load` is given."""
        self._limiter = CapacityLimiter(options.model_load_thread_count)

    async def load(self, resolved: ResolvedModel, version: int) -> LoadedModel:
        """Load one version of a model that was resolved and completed. On the event loop.

        Raises :class:`~trivet.errors.TrivetError`, with nothing left behind, where model or instance cannot be made.
        """
        ways = self._ways
        config = resolved.config
        spec = ModelSpec.from_config(config)
        context = self.resolver.context(resolved, version)
        placements = self.resolver.place(config)
        if resolved.temporary:
            resolved.temporary.acquire()
        try:
            identity = await identify(self._caching, config, version, resolved.path)
            labels, samples, model, trim = await to_thread.run_sync(
                self._load_model, resolved, context, spec, limiter=self._limiter
            )
        except BaseException:
            if resolved.temporary:
                resolved.temporary.release()
            raise
        offer = self.resolver.scheduler(config)
        loop = asyncio.get_running_loop()
        shared: WorkQueue = LoopOutbox(loop)
        dedicated = self._rate_limiter is not None or (offer is not None and offer.dedicated_queues)
        instances = [
            Instance(
                model,
                place.context,
                spec,
                LoopOutbox(loop) if dedicated or place.context.passive else shared,
                ways.inbox,
                () if place.context.passive else samples,
            )
            for place in placements
            if model is not None
        ]
        limited = None
        try:
            await _start(instances)
            await to_thread.run_sync(garbage.trim)
            executing = [instance for instance in instances if not instance.context.passive]
            if self._rate_limiter is not None and model is not None:
                limited = self._rate_limiter.add(list(zip(executing, shares(placements), strict=True)))
            scheduling = SchedulerContext(
                config=config,
                spec=spec,
                instances=executing,
                submit_any=limited.submit_any if limited else shared.put,
                waiting=limited.waiting if limited else shared.__len__,
                reject=ways.reject,
                call_later=loop.call_later,
                model_path=resolved.path,
                models=ways.models,
                respond=ways.respond,
                answer=ways.answer,
            )
            scheduler = self._make_scheduler(offer, scheduling)
            if limited is not None:
                scheduler = LimitedScheduler(scheduler, limited)
        except BaseException:
            if limited is not None:
                limited.close()
            # Every thread that started must end before the model that it holds is closed.
            for instance in instances:
                instance.stop()
            await to_thread.run_sync(_abandon, instances, model, trim, resolved)
            raise
        loaded = LoadedModel(
            version=version,
            config=config,
            spec=spec,
            labels=labels,
            backend_model=model,
            instances=instances,
            scheduler=scheduler,
            cache=cache_before(scheduler, self._caching, config, spec, identity),
            identity=identity,
            on_close=resolved.temporary.release if resolved.temporary else None,
            trim=trim,
        )
        for instance in instances:
            instance.count_warmup(loaded.statistics)
        return loaded

    def _make_scheduler(self, offer: SchedulerPlugin | None, context: SchedulerContext) -> Scheduler:
        if not context.instances and context.config.platform != ENSEMBLE_PLATFORM:
            return IdleScheduler(context)
        return DefaultScheduler(context) if offer is None else self._registry.create(offer, Scheduler, context)

    def _load_model(
        self, resolved: ResolvedModel, context: ModelContext, spec: ModelSpec
    ) -> tuple[dict[str, list[str]], Sequence[WarmupSample], BackendModel | None, Callable[[], None] | None]:
        labels = {
            name: read_labels(resolved.path / output.label_filename)
            for name, output in spec.outputs.items()
            if output.label_filename
        }
        samples = read_samples(resolved.config, context.version, resolved.path)
        if resolved.offer is None:
            return labels, samples, None, None
        with contained(f"failed to load model '{resolved.name}'"):
            backend = self._backends.get(resolved.offer)
            model: object = backend.load(context)
            if not isinstance(model, BackendModel):
                raise InternalError(
                    f"backend '{resolved.offer.name}' gave {model!r} for model '{resolved.name}', expected a"
                    " BackendModel"
                )
            return labels, samples, model, backend.trim


async def _start(instances: Sequence[Instance]) -> None:
    """Start all instances at once and wait for all; raise the first failure."""
    loop = asyncio.get_running_loop()

    async def start(instance: Instance) -> None:
        done: asyncio.Future[Exception | None] = loop.create_future()

        def started(error: Exception | None) -> None:
            loop.call_soon_threadsafe(done.set_result, error)

        instance.start(started)
        error = await done
        if error is not None:
            raise error

    results = await asyncio.gather(*map(start, instances), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _abandon(
    instances: Sequence[Instance], model: BackendModel | None, trim: Callable[[], None] | None, resolved: ResolvedModel
) -> None:
    for instance in instances:
        instance.join()
    try:
        if model is not None:
            model.close()
        if trim is not None:
            trim()
    except BaseException:
        logger.exception("model '%s' failed to close after it failed to load", resolved.name)
    if resolved.temporary:
        resolved.temporary.release()
