"""What validation finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a configuration cannot be served."""

    field: str
    """Where in the configuration, e.g. ``input[0].dims``."""
    message: str
    """In Triton's words where it has any."""
