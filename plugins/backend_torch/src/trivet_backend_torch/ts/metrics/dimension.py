"""``ts.metrics.dimension``: what tells the metrics of one name apart."""

from __future__ import annotations

from typing import Any


class Dimension:
    """A label of a metric and its value."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"
