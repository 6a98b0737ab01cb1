"""How commands print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Standard output. Into a pipe lines are as long as they need to be, so that grep finds what was said."""
    from rich.console import Console  # noqa: PLC0415 - 50 ms that only commands with a table should pay

    return Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, emoji=False)
