"""From a model's folder to a configuration that is complete and checked, with nothing loaded: what a load begins with,
and all of ``trivet check``. Reads files and asks backends, so it blocks: it runs on worker threads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trivet import config as model_config
from trivet.backend import ModelCaller, ModelContext
from trivet.backend_pool import BackendPool
from trivet.config.validation.ensemble import ENSEMBLE_PLATFORM
from trivet.errors import InternalError, InvalidArgumentError, named_message_of
from trivet.extensions import FoundModel
from trivet.model_files import AS_IS, Override, TemporaryFolder, file_stamps
from trivet.placement import Placement, place, shares
from trivet.plugins import KNOWN_SCHEDULERS
from trivet.rate_limiter import RateLimiter
from trivet.repository import available_versions

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.engine import EngineOptions
    from trivet.hookspecs import BackendPlugin, SchedulerPlugin
    from trivet.memory import GpuMemory, PinnedMemory
    from trivet.metrics import MetricRegistry
    from trivet.plugins import PluginRegistry

logger = logging.getLogger(__name__)

SCHEDULER = "trivet.scheduler"
"""Parameter of a model that names its scheduler, for those that Triton's configuration has no field for."""


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


class ModelResolver:
    """Reads, completes and checks models' configurations, by what is installed and what the engine's options say."""

    def __init__(
        self,
        registry: PluginRegistry,
        options: EngineOptions,
        backends: BackendPool,
        *,
        gpus: int,
        rate_limiter: RateLimiter | None = None,
        caller: ModelCaller | None = None,
        metrics: MetricRegistry | None = None,
        pinned_memory: PinnedMemory | None = None,
        gpu_memory: GpuMemory | None = None,
    ) -> None:
        """``gpus`` is how many there are. ``caller``, ``metrics`` and the kinds of memory are for models, which have
        them once an engine loads them.
        """
        self._registry = registry
        self._options = options
        self._backends = backends
        self._gpus = gpus
        self._rate_limiter = rate_limiter
        self._caller = caller
        self._metrics = metrics
        self._pinned_memory = pinned_memory
        self._gpu_memory = gpu_memory

    def resolve(self, found: FoundModel, override: Override = AS_IS) -> ResolvedModel:
        """Read the configuration, choose the backend, select the versions. Blocks.

        Raises :class:`~trivet.errors.TrivetError` saying what is wrong with the model.
        """
        temporary = override.hold().folder
        try:
            path = temporary.path if temporary else found.path
            config_name = self._options.model_config_name or None
            if override.config is not None:
                origin = f"'config' of the load request for '{found.name}'"
            else:
                origin = str(model_config.find_config(path, config_name) or "")
            config = self.read(FoundModel(found.name, found.repository, path), override.config)
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
            # With the folder: files that came with two requests may have the same size and time.
            fingerprint = (override.config, config.SerializeToString(deterministic=True), path, file_stamps(path))
            return ResolvedModel(found.name, path, config, origin, offer, versions, fingerprint, temporary)
        except BaseException:
            override.release()
            raise

    def read(self, found: FoundModel, config_override: str | None = None) -> ModelConfig:
        """The configuration as it is written, and nothing more. Blocks; raises :class:`~trivet.errors.TrivetError`."""
        if config_override is not None:
            return model_config.parse_json_config(config_override, f"'config' of the load request for '{found.name}'")
        return model_config.read_config(found.path, found.name, self._options.model_config_name or None)

    def complete(self, resolved: ResolvedModel) -> list[str]:
        """:meth:`fill_in`, then :meth:`check`; returns and raises what they do. Blocks."""
        warnings = self.fill_in(resolved)
        self.check(resolved)
        return warnings

    def fill_in(self, resolved: ResolvedModel) -> list[str]:
        """Let the backend fill in what the configuration leaves out, by the latest version. Blocks.

        Returns the warnings, which are in the log too. Raises what the backend does.
        """
        context = self.context(resolved, resolved.versions[-1])
        # What auto-completion adds for speed is nothing that the author asked for and would miss.
        warnings = [problem.message for problem in self._unsupported(resolved) if not problem.refused]
        completes = not (self._options.disable_auto_complete_config or self._options.strict_model_config)
        if completes and resolved.offer is not None:
            with contained(f"failed to complete the configuration of model '{resolved.name}'"):
                self._backends.get(resolved.offer).auto_complete(context)
        for warning in warnings:
            logger.warning("model '%s': %s", resolved.name, warning)
        return warnings

    def check(self, resolved: ResolvedModel) -> None:
        """Add the defaults to a configuration that was filled in, and check the whole.

        Raises :class:`~trivet.errors.TrivetError` for what is wrong.
        """
        config = resolved.config
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

    def place(self, config: ModelConfig) -> list[Placement]:
        """The instances of a completed model.

        Raises :class:`~trivet.errors.TrivetError` where one could not be created, or could never execute.
        """
        placements = place(config, self._gpus, self._options.host_policies)
        if self._rate_limiter is not None:
            self._rate_limiter.resources.check(shares(placements))
        return placements

    def context(self, resolved: ResolvedModel, version: int) -> ModelContext:
        """What a version's backend is given."""
        options = self._options.backend_config
        return ModelContext(
            name=resolved.name,
            version=version,
            model_path=resolved.path,
            version_path=resolved.path / str(version),
            config=resolved.config,
            logger=logging.getLogger(f"trivet.model.{resolved.name}"),
            backend_options={**options.get("", {}), **options.get(resolved.backend_name, {})},
            models=self._caller,
            metrics=self._metrics,
            pinned_memory=self._pinned_memory,
            gpu_memory=self._gpu_memory,
        )

    def scheduler(self, config: ModelConfig) -> SchedulerPlugin | None:
        """The plugin that the configuration chooses; ``None`` for the default scheduler.

        Where the one of a field is not installed :meth:`complete` has warned, or refused the model. Raises
        :class:`~trivet.errors.InvalidArgumentError` for a name that nothing installed has.
        """
        choice = config.WhichOneof("scheduling_choice")
        if SCHEDULER not in config.parameters:
            return self._registry.schedulers.get(choice) if choice else None
        named = config.parameters[SCHEDULER].string_value
        if named in KNOWN_SCHEDULERS:
            raise InvalidArgumentError(
                f"model '{config.name}': parameter '{SCHEDULER}' is '{named}', which a configuration chooses with its"
                f" field '{named}'"
            )
        return self._registry.scheduler_for(named)

    def _unsupported(self, resolved: ResolvedModel) -> list[model_config.Unsupported]:
        """The fields that neither the kernel nor the model's backend and scheduler implement."""
        scheduler = self.scheduler(resolved.config)
        claimed = [*resolved.offer.config_fields] if resolved.offer else []
        if scheduler is not None:
            claimed += [scheduler.name, *scheduler.config_fields]
        claimed += [field for exporter in self._registry.exporters.values() for field in exporter.config_fields]
        return model_config.unsupported(resolved.config, claimed)

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


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Run a backend's code, which may run a model's. ``sys.exit`` there must not end the server.

    Raises :class:`~trivet.errors.InternalError`, which begins with ``what``, in its place; any exception as it is.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise InternalError(f"{what}: {named_message_of(error)}") from error
