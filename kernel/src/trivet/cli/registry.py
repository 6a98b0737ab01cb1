"""What is installed, found once per run of the command line and only when a command asks."""

from __future__ import annotations

import click

from trivet.plugins import PluginRegistry


def installed(ctx: click.Context) -> PluginRegistry:
    """The registry of this run. A caller that has one already passes it as click's ``obj``."""
    root = ctx.find_root()
    if root.obj is None:
        root.obj = PluginRegistry.discover()
    registry: PluginRegistry = root.obj
    return registry
