"""What the generators of the reference share."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from trivet.plugins import PluginRegistry

ROOT = Path(__file__).resolve().parents[1]


def own_registry() -> PluginRegistry:
    """The plugins of this repository, whatever else is installed."""
    projects = (tomllib.loads(file.read_text())["project"] for file in ROOT.glob("plugins/*/pyproject.toml"))
    own = {project["name"] for project in projects}
    return PluginRegistry(plugin for plugin in PluginRegistry.discover().plugins if plugin.package in own)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
