"""Turns :class:`~trivet.options.Option` into click parameters, the way tritonserver's command line spells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from trivet.cli.tritonserver import refusal
from trivet.cli.values import BOOLEANS, Source, ValueProblem, convert
from trivet.options import Option

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # Generic for type checkers since click 8.5; older ones do fine.
    _ParamType = click.ParamType

ALIASES: Mapping[str, str] = {"model-store": "model-repository"}
"""Other spellings of tritonserver for an option."""

_METAVARS = {"string": "TEXT", "integer": "INTEGER", "number": "NUMBER", "boolean": "BOOLEAN", "path": "PATH"}


class OptionType(_ParamType):
    """Checks a value on the command line with the conversion that all sources share."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = _METAVARS.get(option.kind, "|".join(option.choices))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return convert(self.option, value)
        except ValueProblem as problem:
            self.fail(f"{problem}.", param, ctx)


def click_option(option: Option) -> click.Option:
    """The parameter for ``option``. Its default stays out of click, so that an absent one can come from elsewhere."""
    names = [f"--{option.name}", *(f"--{alias}" for alias, name in ALIASES.items() if name == option.name)]
    return click.Option(
        [*names, option.key],
        type=OptionType(option),
        metavar=_METAVARS.get(option.kind) or "[" + "|".join(option.choices) + "]",
        multiple=option.multiple,
        help=_help(option),
    )


class OptionsCommand(click.Command):
    """A command whose options are in sections, with booleans as ``--flag``, ``--flag=false`` or ``--flag false``.

    ``sections`` are read when the command runs or shows its help, since plugins add to them.
    """

    def sections(self, ctx: click.Context) -> Mapping[str, Sequence[Option]]:
        """The options by heading."""
        raise NotImplementedError

    def all_options(self, ctx: click.Context) -> tuple[Option, ...]:
        """The options of all sections."""
        return tuple(option for options in self.sections(ctx).values() for option in options)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        cached = ctx.meta.get("trivet.params")
        if cached is None:
            own = super().get_params(ctx)
            cached = [*own[:-1], *map(click_option, self.all_options(ctx)), *own[-1:]]  # --help comes last
            ctx.meta["trivet.params"] = cached
        return list(cached)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {option.name: option for option in self.all_options(ctx)}
        return super().parse_args(ctx, _spell_booleans(ctx, args, options))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own_options = [param for param in super().get_params(ctx) if isinstance(param, click.Option)]
        own = [record for record in (option.get_help_record(ctx) for option in own_options) if record]
        with formatter.section("Options"):
            formatter.write_dl(own)
        for title, options in self.sections(ctx).items():
            records = [record for record in (click_option(o).get_help_record(ctx) for o in options) if record]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def from_command_line(options: Sequence[Option], params: Mapping[str, Any]) -> Source:
    """What was given on the command line, of click's ``params``."""
    given = {o.key: params[o.key] for o in options if params.get(o.key) not in (None, ())}
    return Source(given, {o.key: f"--{o.name}" for o in options})


def _help(option: Option) -> str:
    default = option.default
    if default is None or default == "" or option.multiple:
        return option.help
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return f"{option.help}  [default: {shown}]"


def _spell_booleans(ctx: click.Context, args: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """Give each boolean option its value with ``=``, and refuse by name what only tritonserver has.

    click's own optional values would take a repository that follows a bare flag for the flag's value.
    """
    spelled: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            return [*spelled, arg, *rest]
        name, equals, _ = arg.removeprefix("--").partition("=")
        if arg.startswith("--"):
            option = options.get(ALIASES.get(name, name))
            refused = refusal(name) if option is None else None
            if refused:
                raise click.UsageError(refused, ctx)
            if option is not None and option.kind == "boolean" and not equals:
                arg += "=" + (rest.pop(0) if rest and rest[0].lower() in BOOLEANS else "true")
            elif option is not None and not equals and rest:
                # The value of this option is not an option, whatever it looks like.
                spelled.append(arg)
                arg = rest.pop(0)
        spelled.append(arg)
    return spelled
