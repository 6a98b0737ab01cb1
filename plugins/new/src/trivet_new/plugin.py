"""What this package offers to Trivet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet.hookspecs import hookimpl

from trivet_new.command import new

if TYPE_CHECKING:
    import click


@hookimpl
def trivet_cli_commands() -> Sequence[click.Command]:
    """The one command of this package."""
    return (new,)
