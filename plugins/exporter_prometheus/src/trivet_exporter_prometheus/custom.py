"""Metrics that models keep themselves (``pb_utils.MetricFamily``)."""

from __future__ import annotations

from collections.abc import Iterator

from trivet.metrics import MetricKind, MetricRegistry

from trivet_exporter_prometheus.families import Family, Kind

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
            labels = dict(sample.labels)
            if sample.buckets:
                family.add_histogram(labels, sample.buckets, sample.value)
            else:
                family.add(labels, sample.value)
        yield family
