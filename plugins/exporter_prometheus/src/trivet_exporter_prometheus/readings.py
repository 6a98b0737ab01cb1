"""What the kernel and the models measure, as families."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from trivet.metrics import MetricKind, Reading

from trivet_exporter_prometheus.families import Family, Histogram, Kind, label_text

logger = logging.getLogger(__name__)

_SUFFIXES: Mapping[Kind, Sequence[str]] = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
_KINDS: dict[MetricKind, Kind] = {
    MetricKind.COUNTER: "counter",
    MetricKind.GAUGE: "gauge",
    MetricKind.HISTOGRAM: "histogram",
}


def families(readings: Iterable[Reading]) -> Iterator[Family]:
    """Each reading as a family. Any thread."""
    for reading in readings:
        family = Family(reading.name, reading.description, _KINDS[reading.kind])
        for sample in reading.samples:
            labels = label_text(dict(sample.labels))
            if sample.buckets:
                bounds = tuple(bound for bound, _ in sample.buckets[:-1])
                counts = [high - low for low, high in pairwise((0, *(count for _, count in sample.buckets)))]
                family.histograms.append(Histogram(labels, bounds, counts, sample.value, {}))
            else:
                family.add(labels, sample.value)
        yield family


class Apart:
    """Keeps families of models apart from the server's, and from each other: one page must not have a name twice.

    A parser would refuse all of it. One thread at a time.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, servers: Iterable[Family], models: Iterable[Family]) -> Iterator[Family]:
        """The server's families, then those of models; one whose samples have names of others is left out."""
        taken: set[str] = set()
        for family in servers:
            taken |= _names(family)
            yield family
        for family in models:
            names = _names(family)
            if taken.isdisjoint(names):
                taken |= names
                yield family
            elif family.name not in self._told:
                self._told.add(family.name)
                logger.warning(
                    "metrics '%s' of a model are not shown: there are others of that name; give them another",
                    family.name,
                )


def _names(family: Family) -> set[str]:
    """The family's and its samples'."""
    return {family.name, *(family.name + suffix for suffix in _SUFFIXES.get(family.kind, ()))}
