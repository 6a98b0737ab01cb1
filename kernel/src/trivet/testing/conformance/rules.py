"""How a kit says that a rule of a contract is broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest

from trivet.hookspecs import Offer
from trivet.plugins import InstalledPlugin, PluginRegistry

PAGE = "docs/reference/contracts.md"
HOOKS_PAGE = "docs/reference/hooks.md"

OfferT = TypeVar("OfferT", bound=Offer)


def require(holds: object, rule: str, of: str, found: str = "") -> None:
    """Fail the test unless ``holds``: ``rule`` is broken, which the docstring of ``of`` (a dotted name) states."""
    __tracebackhide__ = True
    if not holds:
        where = HOOKS_PAGE if of.startswith("trivet.hookspecs") else f"{PAGE}#{''.join(of.split('.')[:2])}"
        lines = [f"broken: {rule}", f"found: {found}" if found else "", f"contract: {of} ({where})"]
        pytest.fail("\n".join(line for line in lines if line), pytrace=False)


def offered(name: str, offers: Callable[[PluginRegistry], Mapping[str, OfferT]]) -> tuple[PluginRegistry, OfferT]:
    """What is installed, and the plugin's offer in it."""
    __tracebackhide__ = True
    registry = PluginRegistry.discover()
    found = offers(registry)
    broken = [f"{plugin.package}: {plugin.error}" for plugin in registry.plugins if plugin.error]
    require(
        name in found,
        f"an installed package offers '{name}' through an entry point in group 'trivet'",
        "trivet.hookspecs",
        f"offers of {sorted(found)}" + (f"; plugins that failed to load: {'; '.join(broken)}" if broken else ""),
    )
    return registry, found[name]


def owner(registry: PluginRegistry, offer: Offer) -> InstalledPlugin:
    """The plugin that makes an offer."""
    return next(plugin for plugin in registry.plugins if any(own is offer for _, own in plugin.offers))


def imported_by_discovery(candidates: tuple[str, ...]) -> list[str]:
    """Which of these modules a fresh interpreter imports to find out what is installed."""
    program = (
        "import sys; from trivet.plugins import PluginRegistry; PluginRegistry.discover();"
        f" print(*[name for name in {candidates!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout.split()


def imported_by_entry_point(plugin: InstalledPlugin) -> list[str]:
    """The packages that its entry point's module imports, but for its own, the kernel and what that needs itself."""
    program = f"""
import sys
from importlib.metadata import distribution
import click, trivet.plugins
before = set(sys.modules)
entries = distribution({plugin.package!r}).entry_points.select(group="trivet", name={plugin.name!r})
for entry in entries:
    entry.load()
own = {{entry.module.partition(".")[0] for entry in entries}} | {{"trivet"}}
imported = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(imported - own - sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout.split()


class PluginRules:
    """What holds for the plugins of every family."""

    def _offered(self) -> tuple[PluginRegistry, Offer]:
        raise NotImplementedError

    def test_it_is_offered_and_conflicts_with_nothing(self) -> None:
        """Its package has an entry point that loads, and no other package offers the same."""
        registry, _ = self._offered()
        registry.check()

    def test_it_says_what_it_is(self) -> None:
        """``trivet plugins`` has a line to show."""
        _, offer = self._offered()
        require(
            offer.description and "\n" not in offer.description,
            "an offer has a description of one line",
            "trivet.hookspecs.Offer.description",
            repr(offer.description),
        )

    def test_finding_it_imports_none_of_what_it_needs(self) -> None:
        """An idle server pays nothing for it."""
        registry, offer = self._offered()
        if not isinstance(offer.factory, str):
            return
        module = offer.factory.partition(":")[0]
        found = [*imported_by_discovery((module,)), *imported_by_entry_point(owner(registry, offer))]
        require(
            not found,
            "the module of the entry point imports neither the implementation nor another package",
            "trivet.hookspecs",
            f"it imported {', '.join(found)}; import that in the module that the factory names",
        )
