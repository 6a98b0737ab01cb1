"""Statistics as OpenTelemetry's metrics, under the names that Prometheus has them by.

Counters are cumulative since the server started, and read off the engine's statistics when they are sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from trivet.engine import Engine
from trivet.metrics import MetricFamily, MetricKind, Sample
from trivet.statistics import ModelStatistics

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

_COUNTERS: tuple[tuple[str, str, str, Callable[[ModelStatistics], int]], ...] = (
    ("nv_inference_request_success", "Successful inference requests", "{request}", lambda s: s.success.count),
    ("nv_inference_count", "Inferences performed, a batch of n is n", "{inference}", lambda s: s.inference_count),
    ("nv_inference_exec_count", "Executions of the model", "{execution}", lambda s: s.execution_count),
    ("nv_inference_request_duration_us", "Time of requests, from end to end", "us", lambda s: s.success.ns // 1000),
    ("nv_inference_queue_duration_us", "Time of requests in the queue", "us", lambda s: s.queue.ns // 1000),
    ("nv_inference_compute_input_duration_us", "Time of inputs", "us", lambda s: s.compute_input.ns // 1000),
    ("nv_inference_compute_infer_duration_us", "Time of the model", "us", lambda s: s.compute_infer.ns // 1000),
    ("nv_inference_compute_output_duration_us", "Time of outputs", "us", lambda s: s.compute_output.ns // 1000),
)


class MetricEncoder:
    """Turns what the engine counted into the protocol's message."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        self._resource = Resource(attributes=[_label(key, value) for key, value in resource.items()])
        self._scope = InstrumentationScope(name="trivet", version=version)
        self._start_ns = time.time_ns()

    def collect(self, engine: Engine) -> list[Metric]:
        """All metrics as they are now. On the event loop, so that numbers belong together."""
        now_ns = time.time_ns()
        return [*self._counters(engine, now_ns), *self._custom(engine, now_ns)]

    def encode(self, metrics: Sequence[Metric]) -> bytes:
        """An ``ExportMetricsServiceRequest``. On any thread."""
        scope = ScopeMetrics(scope=self._scope, metrics=metrics)
        return ExportMetricsServiceRequest(
            resource_metrics=[ResourceMetrics(resource=self._resource, scope_metrics=[scope])]
        ).SerializeToString()

    def _counters(self, engine: Engine, now_ns: int) -> Iterator[Metric]:
        models = engine.ready_models()
        labels = {model: [_label("model", model.name), _label("version", str(model.version))] for model in models}
        for name, description, unit, read in _COUNTERS:
            points = [self._point(labels[model], now_ns, read(model.statistics)) for model in models]
            yield _sum(name, description, unit, points)
        yield _sum(
            "nv_inference_request_failure",
            "Failed inference requests",
            "{request}",
            [
                self._point([*labels[model], _label("reason", reason.value)], now_ns, count)
                for model in models
                for reason, count in model.statistics.failures.items()
            ],
        )
        pending = [self._point(labels[model], now_ns, model.scheduler.queued) for model in models]
        yield Metric(
            name="nv_inference_pending_request_count",
            description="Requests that wait to be executed",
            unit="{request}",
            gauge=Gauge(data_points=pending),
        )

    def _custom(self, engine: Engine, now_ns: int) -> Iterator[Metric]:
        """What models and plugins measure themselves."""
        for family in engine.metrics.families():
            yield self._family(family, now_ns)

    def _family(self, family: MetricFamily, now_ns: int) -> Metric:
        samples = family.samples()
        metric = Metric(name=family.name, description=family.description)
        if family.kind is MetricKind.HISTOGRAM:
            points = [self._histogram(sample, now_ns) for sample in samples]
            metric.histogram.CopyFrom(Histogram(data_points=points, aggregation_temporality=_CUMULATIVE))
            return metric
        numbers = [
            NumberDataPoint(
                attributes=[_label(*label) for label in sample.labels],
                start_time_unix_nano=self._start_ns,
                time_unix_nano=now_ns,
                as_double=sample.value,
            )
            for sample in samples
        ]
        if family.kind is MetricKind.GAUGE:
            metric.gauge.CopyFrom(Gauge(data_points=numbers))
        else:
            metric.sum.CopyFrom(Sum(data_points=numbers, aggregation_temporality=_CUMULATIVE, is_monotonic=True))
        return metric

    def _histogram(self, sample: Sample, now_ns: int) -> HistogramDataPoint:
        totals = [count for _, count in sample.buckets]
        return HistogramDataPoint(
            attributes=[_label(*label) for label in sample.labels],
            start_time_unix_nano=self._start_ns,
            time_unix_nano=now_ns,
            count=totals[-1],
            sum=sample.value,
            bucket_counts=[total - before for total, before in zip(totals, (0, *totals), strict=False)],
            explicit_bounds=[bound for bound, _ in sample.buckets[:-1]],
        )

    def _point(self, labels: Sequence[KeyValue], now_ns: int, value: int) -> NumberDataPoint:
        return NumberDataPoint(
            attributes=labels, start_time_unix_nano=self._start_ns, time_unix_nano=now_ns, as_int=value
        )


def _sum(name: str, description: str, unit: str, points: Sequence[NumberDataPoint]) -> Metric:
    counter = Sum(data_points=points, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
    return Metric(name=name, description=description, unit=unit, sum=counter)


def _label(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
