"""``trivet check``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from trivet.cli.output import console
from trivet.cli.parameters import OptionsCommand
from trivet.cli.registry import installed
from trivet.cli.serve import repositories_of, resolve_settings
from trivet.options import Option, Settings
from trivet.server_options import ALL_OPTIONS, engine_options

if TYPE_CHECKING:
    from trivet.checking import CheckResult

_USED = (
    "model-repository",
    "disable-auto-complete-config",
    "strict-model-config",
    "model-config-name",
    "backend-config",
)


class CheckCommand(OptionsCommand):
    """``trivet check`` with those options of ``trivet serve`` that matter to it."""

    def sections(self, ctx: click.Context) -> Mapping[str, Sequence[Option]]:
        """One heading."""
        return {"Model repository": [option for option in ALL_OPTIONS if option.name in _USED]}


@click.command(cls=CheckCommand, short_help="Validate a model repository without serving it.")
@click.argument("repositories", metavar="[REPOSITORY]...", nargs=-1)
@click.option("--model", "models", multiple=True, metavar="NAME", help="Check this model only; repeat it for several.")
@click.option(
    "--config", "config_file", metavar="FILE", help="Read options from this TOML file, as `trivet serve` does."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    repositories: tuple[str, ...],
    models: tuple[str, ...],
    config_file: str | None,
    as_json: bool,
    **params: Any,
) -> None:
    """Validate the models of one or more repositories without serving them.

    Reads every configuration, lets the backends complete it from the model files, and says what is wrong. The exit
    status is 1 when a model would not load, so a pipeline can stop on it.
    """
    registry = installed(ctx)
    registry.check()
    settings = resolve_settings(
        (*ALL_OPTIONS, *registry.options()), repositories_of(repositories, params), config_file
    ).settings
    if not settings["model_repository"]:
        raise click.UsageError("which models? Name a repository: trivet check REPOSITORY", ctx)

    from trivet.checking import check_repository  # noqa: PLC0415 - imports numpy and the engine

    options = engine_options(Settings({**settings, "load_model": list(models)}))
    results = check_repository(registry, options)
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
    else:
        _print(results)
    if not all(result.ok for result in results):
        ctx.exit(1)


def _print(results: Sequence[CheckResult]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not results:
        click.echo("no models")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Model", "", "Backend", "Versions", "Instances", "Details"):
        table.add_column(column, overflow="fold")
    for result in results:
        if not result.ok:
            status = Text("bad", style="red")
        else:
            status = Text("warning", style="yellow") if result.messages else Text("ok", style="green")
        versions = ", ".join(map(str, result.versions))
        details = Text("\n".join(result.messages))
        table.add_row(
            Text(result.model), status, result.backend or "-", versions or "-", result.instances or "-", details
        )
    console().print(table)
