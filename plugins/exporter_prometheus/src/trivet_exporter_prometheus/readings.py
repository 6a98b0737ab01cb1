"""What the kernel and the models measure, as families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from trivet.metrics import MetricKind, Reading

from trivet_exporter_prometheus.families import Family, Histogram, Kind, label_text

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
