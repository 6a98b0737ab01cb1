"""Metrics that models keep themselves (``pb_utils.MetricFamily``)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from trivet.metrics import MetricKind, MetricRegistry

from trivet_exporter_prometheus.families import Family, Histogram, Kind, label_text

_KINDS: dict[MetricKind, Kind] = {
    MetricKind.COUNTER: "counter",
    MetricKind.GAUGE: "gauge",
    MetricKind.HISTOGRAM: "histogram",
}


def collect(registry: MetricRegistry) -> Iterator[Family]:
    """The families of all models. Any thread."""
    for source in registry.families():
        family = Family(source.name, source.description, _KINDS[source.kind])
        for sample in source.samples():
            labels = label_text(dict(sample.labels))
            if sample.buckets:
                bounds = tuple(bound for bound, _ in sample.buckets[:-1])
                counts = [high - low for low, high in pairwise((0, *(count for _, count in sample.buckets)))]
                family.histograms.append(Histogram(labels, bounds, counts, sample.value, {}))
            else:
                family.add(labels, sample.value)
        yield family
