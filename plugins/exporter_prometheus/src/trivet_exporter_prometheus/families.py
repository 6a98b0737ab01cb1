"""What a scrape shows, as data: families of samples, before they become text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram", "summary"]
Labels = Mapping[str, str]


class Exemplar(NamedTuple):
    """One observation among those that a bucket counts, to look at more closely."""

    trace_id: str
    value: float
    time_s: float
    """Seconds since the epoch."""


class FamilySample(NamedTuple):
    """One line. ``suffix`` is what follows the family's name (``_bucket``)."""

    suffix: str
    labels: Labels
    value: float
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class Family:
    """Samples of one name."""

    name: str
    description: str
    kind: Kind
    samples: list[FamilySample] = field(default_factory=list)

    def add(self, labels: Labels, value: float, suffix: str = "") -> None:
        """One more sample."""
        self.samples.append(FamilySample(suffix, labels, value))

    def add_histogram(
        self,
        labels: Labels,
        buckets: Iterable[tuple[float, int]],
        total: float,
        exemplars: Mapping[float, Exemplar] | None = None,
    ) -> None:
        """The samples of one histogram.

        ``buckets`` are upper bounds, infinity the last, and how many observations are not above each.
        """
        count = 0
        for bound, count in buckets:
            exemplar = exemplars.get(bound) if exemplars else None
            self.samples.append(FamilySample("_bucket", {**labels, "le": _bound(bound)}, count, exemplar))
        self.samples.append(FamilySample("_count", labels, count))
        self.samples.append(FamilySample("_sum", labels, total))


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))
