"""The command ``trivet``.

Nothing here imports the engine, numpy or a terminal library: commands do that when they run, so that ``trivet --help``
answers at once.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from trivet import __version__
from trivet.cli.check import check as check_command
from trivet.cli.doctor import doctor as doctor_command
from trivet.cli.plugins import plugins as plugins_command
from trivet.cli.registry import installed
from trivet.cli.serve import serve as serve_command
from trivet.errors import TrivetError


class TrivetGroup(click.Group):
    """The kernel's own commands, and after them those of plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = list(self.commands)
        return own + sorted({command.name for command in installed(ctx).commands if command.name} - set(own))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        return next((command for command in installed(ctx).commands if command.name == cmd_name), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            broken = [plugin.package for plugin in installed(ctx).plugins if plugin.error]
            if not broken:
                raise
            # The command may be one of theirs.
            hint = f" Plugins that failed to load: {', '.join(broken)}; see `trivet plugins`."
            raise click.UsageError(error.format_message() + hint, ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrivetError as error:
            raise click.ClickException(error.message) from error


@click.group(cls=TrivetGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="trivet", message="%(prog)s %(version)s")
def cli() -> None:
    """Serve trained models to any client of the Triton Inference Server, from pip packages."""


for _command in (serve_command, check_command, plugins_command, doctor_command):
    cli.add_command(_command)


def main() -> None:
    """The entry point of the console script."""
    # Until `serve` sets up logging, messages are for nobody: commands show what concerns them themselves.
    logging.getLogger("trivet").addHandler(logging.NullHandler())
    cli(prog_name="trivet")
