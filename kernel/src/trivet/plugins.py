"""What is installed: discovery by entry point, and why something failed to load.

Discovery imports each plugin's entry-point module, which by contract imports no framework, and asks it once for its
descriptions. A plugin that breaks on the way is kept with its error and skipped; the server starts without it.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, TypeVar, cast, get_args

import click
import pluggy

from trivet import hookspecs
from trivet.errors import InternalError, InvalidArgumentError, UnavailableError, named_message_of
from trivet.hookspecs import (
    PROJECT,
    AgentPlugin,
    BackendPlugin,
    CachePlugin,
    ExporterPlugin,
    HttpTransportPlugin,
    MemoryPlugin,
    Offer,
    ProtocolPlugin,
    RepositoryPlugin,
    SchedulerPlugin,
)
from trivet.options import Kind, Option

logger = logging.getLogger(__name__)

T = TypeVar("T")
OfferT = TypeVar("OfferT", bound=Offer)

_OPTION_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

# Family as shown to people -> hook, and the type its descriptions must have.
FAMILIES: Mapping[str, tuple[str, type[Offer]]] = {
    "protocol": ("trivet_protocols", ProtocolPlugin),
    "http transport": ("trivet_http_transports", HttpTransportPlugin),
    "scheduler": ("trivet_schedulers", SchedulerPlugin),
    "backend": ("trivet_backends", BackendPlugin),
    "memory provider": ("trivet_memory_providers", MemoryPlugin),
    "exporter": ("trivet_exporters", ExporterPlugin),
    "model repository": ("trivet_repositories", RepositoryPlugin),
    "response cache": ("trivet_response_caches", CachePlugin),
    "repository agent": ("trivet_repository_agents", AgentPlugin),
}

KNOWN_BACKENDS: Mapping[str, str] = {
    "onnxruntime": "pip install 'trivet-backend-onnx[cpu]'",
    "python": "pip install trivet-backend-python",
    "pytorch": "pip install 'trivet-backend-torch[cpu]'",
    "tensorflow": "pip install 'trivet-backend-tf[cpu]'",
    "tensorrt": "pip install 'trivet-backend-trt[cu13]'",
}
"""How to get the backends of Triton's names, for the error that a missing one gives."""

KNOWN_SCHEDULERS: Mapping[str, str] = {
    "dynamic_batching": "pip install trivet-scheduler-dynamic",
    "sequence_batching": "pip install trivet-scheduler-sequence",
    "ensemble_scheduling": "pip install trivet-scheduler-ensemble",
}
"""How to get the schedulers of Triton's configuration fields."""

KNOWN_PLATFORMS: Mapping[str, str] = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tensorrt_plan": "tensorrt",
}
"""``platform`` values and the backend that each means, as in Triton, whether or not it is installed."""


class PluginConflictError(InvalidArgumentError):
    """Two plugins offer the same name in one family."""


@dataclass(slots=True)
class InstalledPlugin:
    """One entry point of group ``trivet``."""

    name: str
    """The entry point's name."""
    package: str
    version: str
    offers: list[tuple[str, Offer]] = field(default_factory=list)
    """(family, description) pairs."""
    commands: list[click.Command] = field(default_factory=list)
    error: str | None = None
    """Why it was skipped; ``None`` when it loaded."""


class PluginRegistry:
    """All plugins of this process. Built once before the event loop runs; read-only after, and then any thread's.

    Each family of plugins has a property that gives its offers by name.
    """

    def __init__(self, plugins: Iterable[InstalledPlugin]) -> None:
        self.plugins: list[InstalledPlugin] = list(plugins)

    @classmethod
    def discover(cls) -> PluginRegistry:
        """Import every installed entry point of group ``trivet`` and ask what it offers. No plugin makes this raise."""
        return cls([*(_load(entry_point, dist) for entry_point, dist in _entry_points())])

    @classmethod
    def of(cls, **modules: object) -> PluginRegistry:
        """A registry of the given plugin modules or objects by name: for tests and embedding without entry points."""
        return cls(_collect(InstalledPlugin(name, name, ""), module) for name, module in modules.items())

    def check(self) -> None:
        """Raise :class:`PluginConflictError` where two plugins offer the same name, naming both packages."""
        for family in FAMILIES:
            owners: dict[str, InstalledPlugin] = {}
            for plugin, offer in self._offers(family):
                first = owners.setdefault(offer.name, plugin)
                if first is not plugin:
                    raise PluginConflictError(
                        f"two plugins offer the {family} '{offer.name}': package '{first.package}' and package"
                        f" '{plugin.package}'; uninstall one of them (pip uninstall {plugin.package})"
                    )
        owner_of_option: dict[str, tuple[Option, str]] = {}
        for plugin in self.plugins:
            for _, offer in plugin.offers:
                for option in offer.options:
                    first_option, package = owner_of_option.setdefault(option.key, (option, plugin.package))
                    if first_option != option:
                        raise PluginConflictError(
                            f"two plugins define the option '--{option.name}' differently: package '{package}' and"
                            f" package '{plugin.package}'; uninstall one of them"
                        )

    def options(self) -> tuple[Option, ...]:
        """The options of all plugins, each once."""
        return tuple({o.key: o for p in self.plugins for _, offer in p.offers for o in offer.options}.values())

    @property
    def backends(self) -> dict[str, BackendPlugin]:
        return self._family("backend", BackendPlugin)

    @property
    def schedulers(self) -> dict[str, SchedulerPlugin]:
        return self._family("scheduler", SchedulerPlugin)

    @property
    def protocols(self) -> dict[str, ProtocolPlugin]:
        return self._family("protocol", ProtocolPlugin)

    @property
    def http_transports(self) -> dict[str, HttpTransportPlugin]:
        return self._family("http transport", HttpTransportPlugin)

    @property
    def exporters(self) -> dict[str, ExporterPlugin]:
        return self._family("exporter", ExporterPlugin)

    @property
    def memory_providers(self) -> dict[str, MemoryPlugin]:
        return self._family("memory provider", MemoryPlugin)

    @property
    def repositories(self) -> dict[str, RepositoryPlugin]:
        return self._family("model repository", RepositoryPlugin)

    @property
    def caches(self) -> dict[str, CachePlugin]:
        return self._family("response cache", CachePlugin)

    @property
    def agents(self) -> dict[str, AgentPlugin]:
        return self._family("repository agent", AgentPlugin)

    @property
    def commands(self) -> list[click.Command]:
        """The commands that plugins add to ``trivet``."""
        return [command for plugin in self.plugins for command in plugin.commands]

    def create(self, offer: Offer, kind: type[T], *args: Any) -> T:
        """Call the offer's factory with ``args``; ``kind`` is what it has to return.

        Raises :class:`~trivet.errors.UnavailableError` naming the package where the factory cannot be imported,
        :class:`~trivet.errors.InternalError` where it returns something else, and what the factory raises.
        """
        made = self._factory(offer)(*args)
        if not isinstance(made, kind):
            raise InternalError(
                f"the factory of '{offer.name}' of package '{self.package_of(offer)}' returned {made!r}, expected an"
                f" instance of {kind.__module__}.{kind.__qualname__}"
            )
        return made

    def _factory(self, offer: Offer) -> Callable[..., Any]:
        """The offer's factory, imported where it is given by name."""
        if not isinstance(offer.factory, str):
            return offer.factory
        module_name, _, attribute = offer.factory.partition(":")
        try:
            return cast("Callable[..., Any]", getattr(importlib.import_module(module_name), attribute))
        except Exception as error:
            logger.exception("cannot import %s for '%s'", offer.factory, offer.name)
            raise UnavailableError(
                f"'{offer.name}' of package '{self.package_of(offer)}' cannot be imported:"
                f" {type(error).__name__}: {error}"
            ) from error

    def package_of(self, offer: Offer) -> str:
        """The package whose plugin makes an offer."""
        packages = (p.package for p in self.plugins if any(own is offer for _, own in p.offers))
        return next(packages, "an unknown package")

    def backend_for(self, backend: str, platform: str) -> BackendPlugin:
        """The backend that a model configuration means.

        Raises :class:`~trivet.errors.InvalidArgumentError` with the ``pip install`` line where it is not installed.
        """
        for offer in self.backends.values():
            if backend == offer.name or (not backend and platform in offer.platforms):
                return offer
        name = backend or KNOWN_PLATFORMS.get(platform, "")
        broken = self._broken(name)
        if broken:
            raise UnavailableError(
                f"backend '{name}' of package '{broken[0].package}' failed to load: {broken[0].error}"
            )
        wanted = f"backend '{name}'" if name else f"platform '{platform}'"
        hint = KNOWN_BACKENDS.get(name)
        installed = ", ".join(sorted(self.backends)) or "none"
        raise InvalidArgumentError(
            f"unable to find {wanted}; "
            + (f"install it with: {hint}" if hint else f"installed backends are: {installed}")
        )

    def scheduler_for(self, choice: str) -> SchedulerPlugin:
        """The scheduler of that name, for a model that cannot do without.

        Raises :class:`~trivet.errors.InvalidArgumentError` where it is not installed, with the ``pip install`` line for
        those of Triton's fields.
        """
        offer = self.schedulers.get(choice)
        if offer is not None:
            return offer
        package = KNOWN_SCHEDULERS.get(choice, "").removeprefix("pip install ")
        broken = [p for p in self.plugins if p.error and p.package == package] or self._broken(choice)
        if broken:
            raise UnavailableError(
                f"scheduler '{choice}' of package '{broken[0].package}' failed to load: {broken[0].error}"
            )
        installed = ", ".join(sorted(self.schedulers)) or "none"
        hint = f"install it with: pip install {package}" if package else f"installed schedulers are: {installed}"
        raise InvalidArgumentError(f"unable to find scheduler '{choice}'; {hint}")

    def _broken(self, name: str) -> list[InstalledPlugin]:
        """Plugins that failed to load and are called like what is looked for."""
        return [p for p in self.plugins if p.error and name and name in (p.name, *p.package.split("-"))]

    def _offers(self, family: str) -> Iterator[tuple[InstalledPlugin, Offer]]:
        for plugin in self.plugins:
            for offered_family, offer in plugin.offers:
                if offered_family == family:
                    yield plugin, offer

    def _family(self, family: str, kind: type[OfferT]) -> dict[str, OfferT]:
        return {offer.name: offer for _, offer in self._offers(family) if isinstance(offer, kind)}


def _entry_points() -> Iterator[tuple[EntryPoint, Distribution]]:
    """Entry points of group ``trivet`` in stable order; a distribution that the path shows twice counts once."""
    seen: dict[str, Distribution] = {}
    for dist in distributions():
        # An interrupted uninstall leaves metadata without a name behind.
        name = (dist.metadata["Name"] or "") if dist.metadata else ""
        if name:
            seen.setdefault(name, dist)
    for name in sorted(seen):
        for entry_point in sorted(seen[name].entry_points, key=lambda e: e.name):
            if entry_point.group == PROJECT:
                yield entry_point, seen[name]


def _load(entry_point: EntryPoint, dist: Distribution) -> InstalledPlugin:
    plugin = InstalledPlugin(entry_point.name, dist.metadata["Name"], dist.version)
    try:
        module = entry_point.load()
    # Whatever a plugin raises on import is reported and must not stop the server; sys.exit() is no exception.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        plugin.error = named_message_of(error)
        logger.warning("plugin '%s' of package '%s' failed to load: %s", plugin.name, plugin.package, plugin.error)
        return plugin
    return _collect(plugin, module)


def _collect(plugin: InstalledPlugin, module: object) -> InstalledPlugin:
    """Ask one plugin for everything it offers. One pluggy manager each, so that one broken hook hurts no neighbour."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        wanted = getattr(module, "TRIVET_API_VERSION", hookspecs.API_VERSION)
        if wanted != hookspecs.API_VERSION:
            older = isinstance(wanted, int) and wanted < hookspecs.API_VERSION
            raise InvalidArgumentError(
                f"it was built for plugin API {wanted} and this kernel has {hookspecs.API_VERSION};"
                f" pip install --upgrade {plugin.package if older else 'trivet-kernel'}"
            )
        manager.register(module, name=plugin.name)
        manager.check_pending()
        for family, (hook, kind) in FAMILIES.items():
            plugin.offers += [(family, offer) for offer in _answers_of(manager, hook, kind)]
        plugin.commands += _answers_of(manager, "trivet_cli_commands", click.Command)
        _check_offers(plugin)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see _load
        plugin.error = named_message_of(error)
        plugin.offers.clear()
        plugin.commands.clear()
        logger.warning("plugin '%s' of package '%s' failed to load: %s", plugin.name, plugin.package, plugin.error)
    return plugin


def _answers_of(manager: pluggy.PluginManager, hook: str, kind: type[T]) -> list[T]:
    """What the one plugin of ``manager`` answers to a hook."""
    found: list[T] = []
    for answer in getattr(manager.hook, hook)():
        try:
            found += answer
        except TypeError:
            raise InternalError(f"{hook} returned {answer!r}, expected a sequence of {kind.__name__}") from None
    for one in found:
        if not isinstance(one, kind):
            raise InternalError(f"{hook} returned {one!r}, expected a sequence of {kind.__name__}")
    return found


def _check_offers(plugin: InstalledPlugin) -> None:
    """What would otherwise break the command line for everybody, or hide an offer behind another."""
    seen = set()
    for family, offer in plugin.offers:
        if (family, offer.name) in seen:
            raise InternalError(f"it offers the {family} '{offer.name}' twice")
        seen.add((family, offer.name))
        for option in offer.options:
            if not _OPTION_NAME.fullmatch(option.name) or option.kind not in get_args(Kind):
                raise InternalError(
                    f"it defines the option '{option.name}' of the kind '{option.kind}', expected lower-case letters,"
                    f" digits and hyphens, and one of the kinds {', '.join(get_args(Kind))}"
                )
