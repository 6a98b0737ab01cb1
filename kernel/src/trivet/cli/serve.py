"""``trivet serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from trivet.cli.parameters import OptionsCommand, from_command_line
from trivet.cli.registry import installed
from trivet.cli.values import DEFAULT_FILE, ENVIRONMENT_PREFIX, Resolved, from_environment, from_file, resolve
from trivet.options import Option
from trivet.plugins import PluginRegistry
from trivet.server_options import KERNEL_OPTIONS, log_options

_EPILOG = f"""Every option can also be given as a variable ({ENVIRONMENT_PREFIX}HTTP_PORT=8000) or in a TOML file
(http-port = 8000). The command line wins over variables, variables over the file, the file over defaults."""


class ServeCommand(OptionsCommand):
    """``trivet serve`` with the options of the kernel and of every installed plugin."""

    def sections(self, ctx: click.Context) -> Mapping[str, Sequence[Option]]:
        """The kernel's headings, then one for each package."""
        sections: dict[str, list[Option]] = {title: list(options) for title, options in KERNEL_OPTIONS.items()}
        seen = {option.key for options in sections.values() for option in options}
        for plugin in installed(ctx).plugins:
            for _, offer in plugin.offers:
                for option in offer.options:
                    if option.key not in seen:
                        seen.add(option.key)
                        sections.setdefault(f"Plugin {plugin.package}", []).append(option)
        return sections


@click.command(cls=ServeCommand, short_help="Serve the models of one or more repositories.", epilog=_EPILOG)
@click.argument("repositories", metavar="[REPOSITORY]...", nargs=-1)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help=f"Read options from this TOML file. Without it, {DEFAULT_FILE} in the current folder is read if it is there.",
)
@click.pass_context
def serve(ctx: click.Context, /, repositories: tuple[str, ...], config_file: str | None, **params: Any) -> None:
    """Serve the models of one or more repositories until SIGTERM or SIGINT.

    Options have the names and defaults of tritonserver's. A boolean is written --flag, --flag=true or --flag=false.
    """
    registry = installed(ctx)
    registry.check()
    command = ctx.command
    assert isinstance(command, OptionsCommand)
    resolved = resolve_settings(command.all_options(ctx), repositories_of(repositories, params), config_file)
    if not resolved.settings["model_repository"]:
        raise click.UsageError(
            "which models? Name a repository: trivet serve REPOSITORY (or --model-repository,"
            f" {ENVIRONMENT_PREFIX}MODEL_REPOSITORY, or model-repository in {DEFAULT_FILE})",
            ctx,
        )
    sys.exit(serve_until_signalled(registry, resolved))


def repositories_of(positional: tuple[str, ...], params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with the repositories that were given without an option before those that were given with one."""
    return {**params, "model_repository": (*positional, *(params.get("model_repository") or ()))}


def resolve_settings(options: tuple[Option, ...], params: Mapping[str, Any], config_file: str | None) -> Resolved:
    """Merge command line, environment and file. Raises :class:`click.UsageError` naming where a bad value came from."""
    sources = [from_command_line(options, params), from_environment(options, os.environ)]
    path = config_file or os.environ.get(ENVIRONMENT_PREFIX + "CONFIG") or DEFAULT_FILE
    notes = []
    if path != DEFAULT_FILE or config_file or Path(path).is_file():
        sources.append(from_file(options, Path(path)))
        notes.append(f"options from {path}")
    resolved = resolve(options, sources)
    resolved.notes.extend(notes)
    return resolved


def serve_until_signalled(registry: PluginRegistry, resolved: Resolved) -> int:
    """Set up logging and run the server. Returns the exit status."""
    import logging  # noqa: PLC0415

    from trivet import logs  # noqa: PLC0415

    try:
        logs.configure(log_options(resolved.settings), packages={"trivet", *_plugin_packages(registry)})
    except OSError as error:
        raise click.UsageError(f"--log-file: cannot write {error.filename}: {error.strerror}") from error
    log = logging.getLogger(__name__)
    for note in resolved.notes:
        log.info("%s", note)
    for warning in resolved.warnings:
        log.warning("%s", warning)
    for plugin in registry.plugins:
        if plugin.error:
            log.warning("plugin '%s' of package '%s' was skipped: %s", plugin.name, plugin.package, plugin.error)

    from trivet.server import run  # noqa: PLC0415 - imports numpy and the engine

    return run(registry, resolved.settings)


def _plugin_packages(registry: PluginRegistry) -> set[str]:
    """The import names of plugins: the first part of every factory's path."""
    factories = (offer.factory for plugin in registry.plugins for _, offer in plugin.offers)
    return {factory.partition(":")[0].partition(".")[0] for factory in factories if isinstance(factory, str)}
