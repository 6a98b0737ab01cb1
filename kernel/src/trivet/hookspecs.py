"""Every extension point of Trivet, on one page.

A plugin is a package with an entry point in group ``trivet`` that names a module (or object) with functions marked
``@trivet.hookimpl``::

    [project.entry-points.trivet]
    onnxruntime = "trivet_backend_onnx.plugin"

A hook is called once, on the main thread, before the event loop runs. It returns descriptions, and each description
names a factory as ``"module:attribute"``, imported only when it is needed: so a plugin's entry-point module imports
nothing but its own package, the kernel and the standard library, and above all no framework. No hook is called while a
request is served. Two plugins that offer the same name in one family stop the server with an error that names both.

A factory given as a string is resolved by import; an import error then is reported with the package that it came from,
and fails only what needed it.

A module that sets ``TRIVET_API_VERSION`` to another number than :data:`API_VERSION` is refused. Offers of repository
agents are listed, and nothing in the kernel asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from trivet.options import Option

if TYPE_CHECKING:
    import click

PROJECT = "trivet"
API_VERSION = 1
"""The major version of everything public in ``trivet``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Factory = str | Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What all descriptions have in common."""

    name: str
    """Unique within the family; what configurations and options call it."""
    factory: Factory
    description: str = ""
    """One line for ``trivet plugins``."""
    options: tuple[Option, ...] = ()
    """Added to ``trivet serve``. The values come with the settings that the factory is given: protocols, transports,
    exporters and memory providers have them; the others are set up by a model's configuration or by an option that the
    kernel passes on (``--backend-config``, ``--cache-config``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlugin(Offer):
    """A framework. ``factory() -> trivet.backend.Backend``, called on a worker thread when the first model needs it."""

    platforms: tuple[str, ...] = ()
    """``platform`` values of a model configuration that mean this backend, e.g. ``("onnxruntime_onnx",)``. Where there
    are several, each belongs to the file name at its place in ``model_filenames``."""
    model_filenames: tuple[str, ...] = ()
    """Names in a version folder by which a model without configuration is recognized; the first is the default."""
    config_fields: tuple[str, ...] = ()
    """Configuration fields that the kernel does not implement and this backend does, as dotted paths."""
    default_cpu_instances: int = 1
    """Instances of a group on the CPU whose configuration gives no ``count`` (2 for ONNX Runtime in Triton)."""
    requires: tuple[str, ...] = ()
    """Modules that the framework comes in, for ``trivet doctor``; looked for, not imported. Either is enough of
    ``"one|other"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerPlugin(Offer):
    """A scheduler. ``factory(trivet.scheduling.SchedulerContext) -> trivet.scheduling.Scheduler``, on the event loop.

    Chosen for a model whose configuration sets the field ``name`` (``dynamic_batching``, ``sequence_batching``,
    ``ensemble_scheduling``), or, with any other name, whose parameter ``trivet.scheduler`` says it. A model that
    chooses none gets :class:`trivet.scheduling.DefaultScheduler`.
    """

    config_fields: tuple[str, ...] = ()
    """Further configuration fields that the scheduler implements, as dotted paths; for the models that choose it."""
    extensions: tuple[str, ...] = ()
    """Extensions of the KServe v2 protocol that requests have through this scheduler, for server metadata."""
    dedicated_queues: bool = False
    """True: each instance has a queue of its own, and the scheduler chooses with ``instance.submit``. False: all
    instances take from one queue, filled with ``submit_any``, and no instance idles while a batch waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolPlugin(Offer):
    """A wire protocol. ``factory(trivet.service.ServerContext) -> trivet.service.Protocol``, on the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTransportPlugin(Offer):
    """Who serves HTTP. ``factory(trivet.options.Settings) -> trivet.http.HttpTransport``, on the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterPlugin(Offer):
    """Metrics, traces or logs.

    ``factory(trivet.service.ServerContext) -> trivet.service.Exporter``, on the event loop.
    """

    config_fields: tuple[str, ...] = ()
    """Fields of model configurations that the exporter implements, as dotted paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlugin(Offer):
    """A kind of shared memory (``system``, ``cuda``).

    ``factory(trivet.options.Settings) -> trivet.memory.MemoryProvider``, on the event loop.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryPlugin(Offer):
    """A place that holds models, by URL scheme (``name`` is the scheme, e.g. ``s3``; the kernel offers ``file``).

    ``factory(url: str) -> trivet.extensions.ModelRepository``, on a worker thread.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlugin(Offer):
    """A response cache.

    ``factory(options: Mapping[str, str]) -> trivet.extensions.ResponseCache``, on the event loop; ``options`` are those
    of ``--cache-config=NAME,key=value``. The factory opens nothing; it raises
    :class:`~trivet.errors.InvalidArgumentError` for an option that is unknown or has no such value.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlugin(Offer):
    """A repository agent. ``factory() -> trivet.extensions.RepositoryAgent``, on a worker thread."""


@hookspec
def trivet_protocols() -> Sequence[ProtocolPlugin]:  # type: ignore[empty-body]
    """Wire protocols, all of which are served. Called once on the main thread before the server starts."""


@hookspec
def trivet_http_transports() -> Sequence[HttpTransportPlugin]:  # type: ignore[empty-body]
    """HTTP servers; one is used, by ``--http-transport`` where there are several."""


@hookspec
def trivet_schedulers() -> Sequence[SchedulerPlugin]:  # type: ignore[empty-body]
    """Schedulers, chosen by a model's configuration."""


@hookspec
def trivet_backends() -> Sequence[BackendPlugin]:  # type: ignore[empty-body]
    """Frameworks, chosen by ``backend`` or ``platform`` of a model's configuration, or by the model's file."""


@hookspec
def trivet_memory_providers() -> Sequence[MemoryPlugin]:  # type: ignore[empty-body]
    """Kinds of shared memory, chosen by the protocol's request."""


@hookspec
def trivet_exporters() -> Sequence[ExporterPlugin]:  # type: ignore[empty-body]
    """Exporters of metrics, traces and logs, all of which run."""


@hookspec
def trivet_repositories() -> Sequence[RepositoryPlugin]:  # type: ignore[empty-body]
    """Model repositories, chosen by the scheme of ``--model-repository``."""


@hookspec
def trivet_response_caches() -> Sequence[CachePlugin]:  # type: ignore[empty-body]
    """Response caches, chosen by ``--cache-config``."""


@hookspec
def trivet_repository_agents() -> Sequence[AgentPlugin]:  # type: ignore[empty-body]
    """Repository agents, chosen by ``model_repository_agents`` of a model's configuration."""


@hookspec
def trivet_cli_commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """Further commands of ``trivet``. Called when the command line starts, so import nothing heavy."""
