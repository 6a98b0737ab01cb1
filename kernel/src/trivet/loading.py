"""From a model's folder to a model in memory.

Reading, completing and checking the configuration and loading weights block, so they run on worker threads; instances
are created on their own threads; the event loop only puts the pieces together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from trivet import config as model_config
from trivet import garbage
from trivet.backend import BackendModel, ModelCaller, ModelContext
from trivet.backend_pool import BackendPool
from trivet.caching import ResponseCaching, cache_before, identify
from trivet.config.spec import ModelSpec
from trivet.config.validation.ensemble import ENSEMBLE_PLATFORM
from trivet.errors import InternalError, InvalidArgumentError, TrivetError, message_of
from trivet.extensions import FoundModel
from trivet.instance import Finished, Instance, WorkQueue
from trivet.lifecycle import LoadedModel
from trivet.loop import LoopInbox, LoopOutbox
from trivet.model_files import TemporaryFolder, file_stamps, write_files
from trivet.placement import Placement, place
from trivet.rate_limiter import LimitedScheduler, RateLimiter, Share
from trivet.repository import available_versions, read_labels
from trivet.scheduling import DefaultScheduler, IdleScheduler, ModelAccess, Scheduler, SchedulerContext
from trivet.warmup import WarmupSample, read_samples

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.engine import EngineOptions
    from trivet.hookspecs import BackendPlugin, SchedulerPlugin
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.metrics import MetricRegistry
    from trivet.plugins import PluginRegistry

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ResolvedModel:
    """A model whose configuration was read and whose backend and versions are known, before anything is loaded."""

    name: str
    path: Path
    config: ModelConfig
    origin: str
    """Where the configuration was written, for messages; empty where nobody wrote one."""
    offer: BackendPlugin | None
    """The backend; ``None`` for an ensemble, which is run by its scheduler alone."""
    versions: list[int]
    fingerprint: object
    """Equal for two loads that would give the same model."""
    temporary: TemporaryFolder | None = None

    @property
    def backend_name(self) -> str:
        """What runs the model, for people."""
        return self.offer.name if self.offer else ENSEMBLE_PLATFORM

    def release(self) -> None:
        """Whoever resolved the model is done with it; what was loaded from it keeps what it needs."""
        if self.temporary is not None:
            self.temporary.release()


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
    """Loads models. The coroutine runs on the event loop, everything else on worker threads."""

    def __init__(
        self,
        registry: PluginRegistry,
        options: EngineOptions,
        backends: BackendPool,
        ways: EngineWays | None = None,
        *,
        gpus: int,
        caching: ResponseCaching | None = None,
    ) -> None:
        """``ways`` are needed to :meth:`load`; without them configurations can be read and checked."""
        self._registry = registry
        self._options = options
        self._backends = backends
        self._gpus = gpus
        self._ways = ways
        self._caching = caching
        self._rate_limiter = (
            RateLimiter(options.rate_limit_resources) if options.rate_limit == "execution_count" else None
        )
        if options.rate_limit_resources and self._rate_limiter is None:
            logger.warning("--rate-limit-resource has no effect without --rate-limit=execution_count")
        self._limiter = CapacityLimiter(options.model_load_thread_count)

    def resolve(
        self, found: FoundModel, config_override: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> ResolvedModel:
        """Read the configuration, choose the backend, select the versions. Blocks.

        Raises :class:`~trivet.errors.TrivetError` saying what is wrong with the model.
        """
        temporary = write_files(found.name, files) if files else None
        try:
            path = temporary.path if temporary else found.path
            config_name = self._options.model_config_name or None
            if config_override is not None:
                origin = f"'config' of the load request for '{found.name}'"
            else:
                origin = str(model_config.find_config(path, config_name) or "")
            config = self.read(FoundModel(found.name, found.repository, path), config_override)
            if config.name and config.name != found.name:
                raise InvalidArgumentError(
                    f"unexpected directory name '{found.name}' for model '{config.name}', directory name must equal"
                    " model name"
                )
            config.name = found.name
            available = available_versions(path)
            versions = model_config.select_versions(config, available)
            if not versions:
                raise InvalidArgumentError(
                    f"at least one version must be available under the version policy of model '{found.name}'"
                )
            self._identify(config, path / str(versions[-1]))
            offer = self._runner(config)
            fingerprint = (config_override, config.SerializeToString(deterministic=True), file_stamps(path))
            return ResolvedModel(found.name, path, config, origin, offer, versions, fingerprint, temporary)
        except BaseException:
            if temporary:
                temporary.release()
            raise

    def read(
        self, found: FoundModel, config_override: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> ModelConfig:
        """The configuration as it is written, and nothing more. Blocks; raises :class:`~trivet.errors.TrivetError`."""
        if config_override is not None:
            return model_config.parse_json_config(config_override, f"'config' of the load request for '{found.name}'")
        return model_config.read_config(found.path, found.name, self._options.model_config_name or None)

    def complete(self, resolved: ResolvedModel) -> list[str]:
        """Fill in what the configuration leaves out, add the defaults, and check the whole. Blocks.

        Returns the warnings, which are in the log too. Raises :class:`~trivet.errors.TrivetError` for what is wrong.
        """
        context = self._model_context(resolved, resolved.versions[-1])
        config = resolved.config
        # What auto-completion adds for speed is nothing that the author asked for and would miss.
        warnings = [problem.message for problem in self._unsupported(resolved) if not problem.refused]
        completes = not (self._options.disable_auto_complete_config or self._options.strict_model_config)
        if completes and resolved.offer is not None:
            with _contained(f"failed to complete the configuration of model '{resolved.name}'"):
                self._backends.get(resolved.offer).auto_complete(context)
        model_config.normalize(config, backend=resolved.offer, gpu_count=self._gpus)
        model_config.validate(
            config,
            backend=resolved.offer,
            gpu_count=self._gpus,
            model_path=resolved.path,
            origin=resolved.origin,
        )
        refused = [problem.message for problem in self._unsupported(resolved) if problem.refused]
        if refused:
            raise InvalidArgumentError(f"model '{resolved.name}': {'; '.join(refused)}")
        for warning in warnings:
            logger.warning("model '%s': %s", resolved.name, warning)
        return warnings

    def place(self, config: ModelConfig) -> list[Placement]:
        """The instances of a completed model.

        Raises :class:`~trivet.errors.TrivetError` where one could not be created, or could never execute.
        """
        placements = place(config, self._gpus, self._options.host_policies)
        if self._rate_limiter is not None:
            self._rate_limiter.check(_shares(placements))
        return placements

    async def load(self, resolved: ResolvedModel, version: int) -> LoadedModel:
        """Load one version of a resolved and completed model. On the event loop.

        Raises :class:`~trivet.errors.TrivetError`, with nothing left behind, where model or instance cannot be made.
        """
        ways = self._ways
        assert ways is not None
        config = resolved.config
        spec = ModelSpec.from_config(config)
        context = self._model_context(resolved, version)
        placements = self.place(config)
        if resolved.temporary:
            resolved.temporary.acquire()
        try:
            identity = await identify(self._caching, config, version, resolved.path)
            labels, samples, model = await to_thread.run_sync(
                self._load_model, resolved, context, spec, limiter=self._limiter
            )
        except BaseException:
            if resolved.temporary:
                resolved.temporary.release()
            raise
        offer = self._scheduler(config)
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
                limited = self._rate_limiter.add(list(zip(executing, _shares(placements), strict=True)))
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
            await to_thread.run_sync(_abandon, instances, model, resolved)
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
    ) -> tuple[dict[str, list[str]], Sequence[WarmupSample], BackendModel | None]:
        labels = {
            name: read_labels(resolved.path / output.label_filename)
            for name, output in spec.outputs.items()
            if output.label_filename
        }
        samples = read_samples(resolved.config, context.version, resolved.path)
        if resolved.offer is None:
            return labels, samples, None
        with _contained(f"failed to load model '{resolved.name}'"):
            return labels, samples, self._backends.get(resolved.offer).load(context)

    def _unsupported(self, resolved: ResolvedModel) -> list[model_config.Unsupported]:
        """The fields that neither the kernel nor the model's backend and scheduler implement."""
        scheduler = self._scheduler(resolved.config)
        claimed = [*resolved.offer.config_fields] if resolved.offer else []
        if scheduler is not None:
            claimed += [scheduler.name, *scheduler.config_fields]
        claimed += [field for exporter in self._registry.exporters.values() for field in exporter.config_fields]
        return model_config.unsupported(resolved.config, claimed)

    def _scheduler(self, config: ModelConfig) -> SchedulerPlugin | None:
        """The plugin that the configuration chooses; ``None`` for the default scheduler.

        Where the chosen one is not installed :meth:`complete` has warned, or refused the model.
        """
        choice = config.WhichOneof("scheduling_choice")
        return self._registry.schedulers.get(choice) if choice else None

    def _runner(self, config: ModelConfig) -> BackendPlugin | None:
        if config.platform == ENSEMBLE_PLATFORM and not config.backend:
            self._registry.scheduler_for("ensemble_scheduling")
            return None
        return self._registry.backend_for(config.backend, config.platform)

    def _identify(self, config: ModelConfig, version_path: Path) -> None:
        """Name the backend of a configuration that names none, by the model's file.

        A framework's file comes before a generic one such as ``model.py``, which may lie beside it, as in Triton.
        """
        if config.backend or config.platform:
            return
        if config.HasField("ensemble_scheduling"):
            config.platform = ENSEMBLE_PLATFORM
            return
        names: list[str] = []
        for offer in sorted(self._registry.backends.values(), key=lambda offer: not offer.platforms):
            for filename in offer.model_filenames:
                if filename == config.default_model_filename or (version_path / filename).exists():
                    config.backend = offer.name
                    config.default_model_filename = filename
                    return
                names.append(filename)
        raise InvalidArgumentError(
            f"cannot tell the backend of model '{config.name}': its configuration names neither 'backend' nor"
            f" 'platform', and '{version_path}' holds none of the files that installed backends"
            f" know: {', '.join(sorted(names)) or 'there are none'}"
        )

    def _model_context(self, resolved: ResolvedModel, version: int) -> ModelContext:
        options = self._options.backend_config
        return ModelContext(
            name=resolved.name,
            version=version,
            model_path=resolved.path,
            version_path=resolved.path / str(version),
            config=resolved.config,
            logger=logging.getLogger(f"trivet.model.{resolved.name}"),
            backend_options={**options.get("", {}), **options.get(resolved.backend_name, {})},
            models=self._ways.caller if self._ways else None,
            metrics=self._ways.metrics if self._ways else None,
        )


def _shares(placements: Sequence[Placement]) -> list[Share]:
    """What the instances that execute want of the rate limiter."""
    return [placement.share for placement in placements if not placement.context.passive]


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


def _abandon(instances: Sequence[Instance], model: BackendModel | None, resolved: ResolvedModel) -> None:
    for instance in instances:
        instance.join()
    try:
        if model is not None:
            model.close()
    except BaseException:
        logger.exception("model '%s' failed to close after it failed to load", resolved.name)
    if resolved.temporary:
        resolved.temporary.release()


@contextmanager
def _contained(what: str) -> Iterator[None]:
    """Run a backend's code, which may run a model's. ``sys.exit`` there fails ``what``; it must not end the server."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise InternalError(f"{what}: {type(error).__name__}: {message_of(error)}") from error
