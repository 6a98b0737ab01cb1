"""Options that all client commands share."""

from __future__ import annotations

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


def server_options(command: Command) -> Command:
    """Add ``url``, ``timeout_s`` and ``ca_certificate`` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
