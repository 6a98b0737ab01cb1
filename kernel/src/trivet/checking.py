"""Whether models would load, as far as can be told without loading them: what ``trivet check`` does."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trivet.backend_pool import BackendPool
from trivet.dependencies import LATEST, complete_ensemble, members_of
from trivet.engine import EngineOptions
from trivet.errors import InvalidArgumentError, TrivetError
from trivet.extensions import FoundModel
from trivet.placement import describe, gpu_count
from trivet.plugins import PluginRegistry
from trivet.rate_limiter import rate_limiter_for
from trivet.repository import only_place, open_repository
from trivet.resolving import ModelResolver

if TYPE_CHECKING:
    from trivet.config import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was found out about one model."""

    model: str
    ok: bool
    backend: str
    """"" where it could not be told."""
    versions: tuple[int, ...]
    """Those that the version policy would serve."""
    messages: tuple[str, ...]
    """The error first, then warnings."""
    instances: str = ""
    """How many there would be, and where: ``2 CPU``; "" where it could not be told, and for an ensemble."""


def check_repository(registry: PluginRegistry, options: EngineOptions) -> list[CheckResult]:
    """Read, complete and validate the configuration of every model, or of ``options.load_models``.

    Backends look into model files to complete configurations; no instance is created. Blocks. Raises
    :class:`~trivet.errors.InvalidArgumentError` for a repository that cannot be opened or a model that is not there.
    """
    found: dict[str, list[FoundModel]] = {}
    for url in options.model_repositories:
        for model in open_repository(registry, url).models():
            found.setdefault(model.name, []).append(model)
    wanted = [name for name in options.load_models if name != "*"]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidArgumentError(f"no model repository holds {', '.join(missing)}")
    backends = BackendPool(registry)
    resolver = ModelResolver(registry, options, backends, gpus=gpu_count(), rate_limiter=rate_limiter_for(options))
    check = _Check(resolver, found)
    try:
        return [check.result(name) for name in wanted or sorted(found)]
    finally:
        backends.close()


class _Check:
    """Looks at each model once; an ensemble needs what was found out about its members."""

    def __init__(self, resolver: ModelResolver, found: Mapping[str, Sequence[FoundModel]]) -> None:
        self._resolver = resolver
        self._found = found
        self._results: dict[str, CheckResult] = {}
        self._configs: dict[str, ModelConfig] = {}
        self._path: list[str] = []

    def result(self, name: str) -> CheckResult:
        if name not in self._results:
            self._path.append(name)
            self._results[name] = self._look(name)
            self._path.pop()
        return self._results[name]

    def _look(self, name: str) -> CheckResult:
        backend = ""
        versions: tuple[int, ...] = ()
        instances = ""
        try:
            resolved = self._resolver.resolve(only_place(self._found[name]))
            backend, versions = resolved.backend_name, tuple(resolved.versions)
            warnings = self._resolver.complete(resolved)
            if resolved.offer is None:
                complete_ensemble(resolved.config, self._members(resolved.config), resolved.origin)
            instances = describe(self._resolver.place(resolved.config))
            self._configs[name] = resolved.config
        except TrivetError as error:
            return CheckResult(name, False, backend, versions, (error.message,))
        except Exception as error:
            # A backend may raise anything about a model file; the next model is checked all the same.
            logger.exception("model '%s' could not be checked", name)
            return CheckResult(name, False, backend, versions, (f"{type(error).__name__}: {error}",))
        return CheckResult(name, True, backend, versions, tuple(warnings), instances)

    def _members(self, config: ModelConfig) -> dict[str, ModelConfig]:
        needed = members_of(config)
        missing = [name for name in sorted(needed) if name not in self._found]
        if missing:
            raise InvalidArgumentError(
                f"ensemble {config.name} contains models that are not available or ambiguous: {', '.join(missing)}"
            )
        members: dict[str, ModelConfig] = {}
        for name, numbers in needed.items():
            if name in self._path:
                circle = [*self._path[self._path.index(name) :], name]
                raise InvalidArgumentError(f"circular dependency between ensembles: {' -> '.join(circle)}")
            result = self.result(name)
            if not result.ok:
                raise InvalidArgumentError(
                    f"ensemble '{config.name}' depends on '{name}' which is not valid. Model '{name}' failed with"
                    f" error: {result.messages[0]}"
                )
            absent = [number for number in sorted(numbers) if number not in (LATEST, *result.versions)]
            if absent:
                raise InvalidArgumentError(
                    f"ensemble '{config.name}' depends on '{name}' whose required version {absent[0]} is not loaded."
                )
            members[name] = self._configs[name]
        return members
