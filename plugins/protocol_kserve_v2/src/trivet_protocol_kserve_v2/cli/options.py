"""Options that all client commands share, and how values are read off a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--url",
        default="http://localhost:8000",
        envvar="TRIVET_URL",
        show_default=True,
        metavar="URL",
        help="The server, as HOST:PORT or http(s)://HOST:PORT. Also the variable TRIVET_URL.",
    ),
    click.option(
        "--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait for an answer."
    ),
    click.option("--ca-certificate", metavar="FILE", help="PEM file of the authority to trust, for https."),
)


def key_and_value(option: str, given: str, kinds: tuple[type, ...], key: str = "KEY") -> tuple[str, Any]:
    """Take ``KEY=VALUE`` apart. A value that is JSON of one of these ``kinds`` is that; any other is text.

    Raises :class:`click.UsageError` where there is no ``=`` or nothing before it, naming ``option`` and ``key``.
    """
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{option} {given}: expected {key}=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, kinds) else value


def server_options(command: Command) -> Command:
    """Add ``url``, ``timeout_s`` and ``ca_certificate`` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
