"""``trivet plugins``."""

from __future__ import annotations

import json
from typing import Any

import click

from trivet.cli.output import console
from trivet.cli.registry import installed
from trivet.plugins import InstalledPlugin, PluginConflictError


@click.command(short_help="List what is installed, and why something failed to load.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List installed plugins: what each offers, from which package, and why one failed to load.

    The exit status is 1 when a plugin failed to load or two offer the same name.
    """
    registry = installed(ctx)
    conflict = ""
    try:
        registry.check()
    except PluginConflictError as error:
        conflict = error.message
    if as_json:
        click.echo(json.dumps({"plugins": [_describe(p) for p in registry.plugins], "conflict": conflict}, indent=2))
    else:
        _print_table(registry.plugins)
        if conflict:
            click.echo(f"\nConflict: {conflict}", err=True)
    if conflict or any(plugin.error for plugin in registry.plugins):
        ctx.exit(1)


def _describe(plugin: InstalledPlugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "package": plugin.package,
        "version": plugin.version,
        "offers": [
            {
                "family": family,
                "name": offer.name,
                "description": offer.description,
                "options": [f"--{option.name}" for option in offer.options],
            }
            for family, offer in plugin.offers
        ],
        "commands": [command.name for command in plugin.commands],
        "error": plugin.error,
    }


def _print_table(found: list[InstalledPlugin]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not found:
        click.echo(
            "No plugins are installed; start with: pip install trivet-protocol-kserve-v2 'trivet-backend-onnx[cpu]'"
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Name", "Family", "Package", "Version"):
        table.add_column(column, overflow="fold")
    table.add_column("Offers", overflow="fold")
    for plugin in found:
        origin = (plugin.package, plugin.version)
        if plugin.error:
            table.add_row(plugin.name, "-", *origin, Text(f"failed to load: {plugin.error}", style="red"))
            continue
        for family, offer in plugin.offers:
            table.add_row(offer.name, family, *origin, Text(offer.description))
        if plugin.commands:
            names = ", ".join(command.name or "" for command in plugin.commands)
            table.add_row(plugin.name, "command", *origin, Text(names))
    console().print(table)
