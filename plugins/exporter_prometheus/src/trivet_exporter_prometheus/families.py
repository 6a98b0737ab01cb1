"""What a scrape shows, as data: families of samples, before they become text.

Families are filled on the event loop, so they take what costs least there: labels that are text already, and of
histograms the counts as they are kept. Everything else is done when they become text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram", "summary"]


class Exemplar(NamedTuple):
    """One observation among those that a bucket counts, to look at more closely."""

    trace_id: str
    value: float
    time_s: float
    """Seconds since the epoch."""


class Histogram(NamedTuple):
    """One histogram of a family."""

    labels: str
    bounds: tuple[float, ...]
    """Upper bounds of the buckets, without infinity."""
    counts: Sequence[int]
    """Observations in each bucket alone; the last is what is above all bounds."""
    total: float
    """The sum of all observations."""
    exemplars: Mapping[int, Exemplar]
    """By the place of the bucket."""


@dataclass(slots=True)
class Family:
    """Samples of one name."""

    name: str
    description: str
    kind: Kind
    samples: list[tuple[str, float]] = field(default_factory=list)
    """Suffix of the name and labels together, and value: one line each."""
    histograms: list[Histogram] = field(default_factory=list)

    def add(self, labels: str, value: float, suffix: str = "") -> None:
        """One more sample. ``labels`` are from :func:`label_text`, ``suffix`` follows the family's name (``_sum``)."""
        self.samples.append((suffix + labels, value))


def label_text(labels: Mapping[str, str]) -> str:
    """Labels as they are written, ``{model="m",version="1"}``; empty for none. To be kept where it is needed again."""
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{escaped(value)}"' for name, value in labels.items()]) + "}"


def with_label(labels: str, name: str, value: str) -> str:
    """The text of ``labels`` with one label more, whose value needs no escaping."""
    return f'{labels[:-1]},{name}="{value}"}}' if labels else f'{{{name}="{value}"}}'


def escaped(value: str) -> str:
    """As it stands between quotation marks."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
