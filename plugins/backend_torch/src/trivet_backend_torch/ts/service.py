"""``ts.service``: what handlers of old call once they have measured."""

from __future__ import annotations

from typing import Any


def emit_metrics(metrics: Any) -> None:
    """Nothing: what ``context.metrics`` is told is a metric of the server from then on."""
