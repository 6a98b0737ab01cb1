"""Whether models would load, as far as can be told without loading them: what ``trivet check`` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trivet.backend_pool import BackendPool
from trivet.engine import EngineOptions
from trivet.errors import InvalidArgumentError, TrivetError
from trivet.extensions import FoundModel
from trivet.loading import ModelLoader
from trivet.placement import gpu_count
from trivet.plugins import PluginRegistry
from trivet.repository import only_place, open_repository

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
    loader = ModelLoader(registry, options, backends, gpus=gpu_count())
    try:
        return list(_check(loader, [found[name] for name in wanted or sorted(found)]))
    finally:
        backends.close()


def _check(loader: ModelLoader, models: Sequence[Sequence[FoundModel]]) -> Iterator[CheckResult]:
    for places in models:
        name = places[0].name
        backend = ""
        versions: tuple[int, ...] = ()
        try:
            resolved = loader.resolve(only_place(places))
            backend, versions = resolved.offer.name, tuple(resolved.versions)
            warnings = loader.complete(resolved)
        except TrivetError as error:
            yield CheckResult(name, False, backend, versions, (error.message,))
        except Exception as error:
            # A backend may raise anything about a model file; the next model is checked all the same.
            logger.exception("model '%s' could not be checked", name)
            yield CheckResult(name, False, backend, versions, (f"{type(error).__name__}: {error}",))
        else:
            yield CheckResult(name, True, backend, versions, tuple(warnings))
