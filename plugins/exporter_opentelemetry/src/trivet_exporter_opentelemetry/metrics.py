"""Metrics of server, models and machine as OpenTelemetry's, under the names that Prometheus has them by.

Counters and histograms are cumulative since the server started, and read off the statistics when they are sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from trivet.engine import Engine
from trivet.histogram import Exemplar, Histogram
from trivet.lifecycle import LoadedModel
from trivet.metrics import MetricKind, Reading, Sample
from trivet.model_metrics import FAILURES, MODEL_COUNTERS, QUEUE_TIMES, REQUEST_TIMES, SIZES, WAITING
from trivet.statistics import BATCH_SIZES

from trivet_exporter_opentelemetry.attributes import readable, text
from trivet_exporter_opentelemetry.spans import caller_of

_CUMULATIVE = pb.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

Labels = Sequence[KeyValue]


class MetricEncoder:
    """Turns what was measured into the protocol's message."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        self._resource = Resource(attributes=[text(key, value) for key, value in resource.items()])
        self._scope = InstrumentationScope(name="trivet", version=version)
        self._start_ns = time.time_ns()

    def of_models(self, engine: Engine) -> list[pb.Metric]:
        """What the statistics of all models have now. On the event loop, so that numbers belong together."""
        now_ns = time.time_ns()
        models = {model: _labels_of(model) for model in engine.ready_models()}
        cached = {model: labels for model, labels in models.items() if model.cache is not None}
        return [
            *(
                _sum(
                    *counter[:2],
                    [
                        self._number(labels, now_ns, counter.read(model.statistics))
                        for model, labels in (cached if counter.of_cache else models).items()
                    ],
                )
                for counter in MODEL_COUNTERS
                if cached or not counter.of_cache
            ),
            _sum(
                *FAILURES,
                [
                    self._number([*labels, text("reason", reason.value)], now_ns, count)
                    for model, labels in models.items()
                    for reason, count in model.statistics.failures.items()
                ],
            ),
            _gauge(*WAITING, [self._number(each, now_ns, model.scheduler.queued) for model, each in models.items()]),
            _histogram(
                *REQUEST_TIMES,
                [self._times(labels, now_ns, model.statistics.request_times) for model, labels in models.items()],
            ),
            _histogram(
                *QUEUE_TIMES,
                [self._times(labels, now_ns, model.statistics.queue_times) for model, labels in models.items()],
            ),
            _histogram(
                *SIZES,
                [
                    self._buckets(labels, now_ns, *model.statistics.batch_sizes(), BATCH_SIZES)
                    for model, labels in models.items()
                ],
            ),
        ]

    def of_readings(self, readings: Iterable[Reading]) -> Iterator[pb.Metric]:
        """What was read elsewhere. Any thread."""
        now_ns = time.time_ns()
        for reading in readings:
            if reading.kind is MetricKind.HISTOGRAM:
                points = [self._sampled_buckets(sample, now_ns) for sample in reading.samples]
                yield _histogram(reading.name, reading.description, points)
            else:
                numbers = [self._number(_labels(sample), now_ns, sample.value) for sample in reading.samples]
                made = _gauge if reading.kind is MetricKind.GAUGE else _sum
                yield made(reading.name, reading.description, numbers)

    def encode(self, metrics: Sequence[pb.Metric]) -> bytes:
        """An ``ExportMetricsServiceRequest``. Any thread."""
        scope = pb.ScopeMetrics(scope=self._scope, metrics=metrics)
        return ExportMetricsServiceRequest(
            resource_metrics=[pb.ResourceMetrics(resource=self._resource, scope_metrics=[scope])]
        ).SerializeToString()

    def _number(self, labels: Labels, now_ns: int, value: float) -> pb.NumberDataPoint:
        point = pb.NumberDataPoint(attributes=labels, start_time_unix_nano=self._start_ns, time_unix_nano=now_ns)
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
        return point

    def _times(self, labels: Labels, now_ns: int, times: Histogram) -> pb.HistogramDataPoint:
        point = self._buckets(labels, now_ns, times.counts, times.total_ns / 1e9, times.bounds)
        point.exemplars.extend(filter(None, map(_exemplar, times.exemplars.values())))
        return point

    def _sampled_buckets(self, sample: Sample, now_ns: int) -> pb.HistogramDataPoint:
        counts = [high - low for low, high in pairwise((0, *(count for _, count in sample.buckets)))]
        bounds = [bound for bound, _ in sample.buckets[:-1]]
        return self._buckets(_labels(sample), now_ns, counts, sample.value, bounds)

    def _buckets(
        self, labels: Labels, now_ns: int, counts: Sequence[int], total: float, bounds: Sequence[float]
    ) -> pb.HistogramDataPoint:
        """``counts`` are those of each bucket alone, the last of what is above all ``bounds``."""
        return pb.HistogramDataPoint(
            attributes=labels,
            start_time_unix_nano=self._start_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=bounds,
        )


def _exemplar(exemplar: Exemplar) -> pb.Exemplar | None:
    caller = caller_of(exemplar.trace_context)
    if caller is None:
        return None
    return pb.Exemplar(
        time_unix_nano=int(exemplar.time_s * 1e9),
        as_double=exemplar.ns / 1e9,
        trace_id=caller.trace_id,
        span_id=caller.span_id,
    )


def _sum(name: str, description: str, points: Sequence[pb.NumberDataPoint]) -> pb.Metric:
    counter = pb.Sum(data_points=points, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
    return pb.Metric(name=name, description=readable(description), unit=_unit(name), sum=counter)


def _gauge(name: str, description: str, points: Sequence[pb.NumberDataPoint]) -> pb.Metric:
    return pb.Metric(name=name, description=readable(description), unit=_unit(name), gauge=pb.Gauge(data_points=points))


def _histogram(name: str, description: str, points: Sequence[pb.HistogramDataPoint]) -> pb.Metric:
    histogram = pb.Histogram(data_points=points, aggregation_temporality=_CUMULATIVE)
    return pb.Metric(name=name, description=readable(description), unit=_unit(name), histogram=histogram)


def _unit(name: str) -> str:
    """By UCUM, as OpenTelemetry has units; the names say what they are in."""
    return next(
        (unit for ending, unit in (("_us", "us"), ("_seconds", "s"), ("_bytes", "By")) if name.endswith(ending)), ""
    )


def _labels_of(model: LoadedModel) -> Labels:
    return [text("model", model.name), text("version", str(model.version))]


def _labels(sample: Sample) -> Labels:
    return [text(*label) for label in sample.labels]
