"""How long requests took, as distributions: what counters of the engine cannot tell.

Requests only leave their numbers here; they are sorted into buckets many at a time, or when somebody asks. On the event
loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter_ns, time
from typing import TYPE_CHECKING, Any

import numpy as np

from trivet_exporter_prometheus.families import Exemplar, Family
from trivet_exporter_prometheus.models import model_labels

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.engine import Engine
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.lifecycle import LoadedModel

    from trivet_exporter_prometheus.options import MetricsSettings

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FIRST_RESPONSE_MS = (100.0, 500.0, 2000.0, 5000.0)
"""Triton's buckets, where ``model_metrics`` gives no others."""
_FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
_PENDING = 4096
_WINDOW_NS = 60 * 10**9
_WINDOW_SIZE = 2048
"""Requests of a model that its quantiles are made of, at most; those of the last minute."""

_SUMMARIES = (
    (
        "nv_inference_request_summary_us",
        "Summary of inference request duration in microseconds (includes cached requests)",
    ),
    (
        "nv_inference_queue_summary_us",
        "Summary of inference queuing duration in microseconds (includes cached requests)",
    ),
    (
        "nv_inference_compute_input_summary_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
    ),
    (
        "nv_inference_compute_infer_summary_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
    ),
    (
        "nv_inference_compute_output_summary_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
    ),
)


class _Histogram:
    """Counts by bucket of values that were left in ``pending``."""

    __slots__ = ("_counts", "_total", "bounds", "exemplars", "pending", "scale")

    def __init__(self, bounds: Sequence[float], scale: float) -> None:
        """``scale`` makes what the bounds are in of nanoseconds."""
        self.bounds = np.array(bounds)
        self.scale = scale
        self.pending: list[int] = []
        self.exemplars: dict[float, Exemplar] = {}
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._total = 0.0

    def digest(self) -> None:
        """Sort what is pending into the buckets."""
        values = np.array(self.pending, np.int64) * self.scale
        self.pending.clear()
        self._counts += np.bincount(np.searchsorted(self.bounds, values), minlength=len(self._counts))
        self._total += float(values.sum())

    def exemplify(self, ns: int, trace_id: str) -> None:
        """Keep this observation as the newest of its bucket."""
        value = ns * self.scale
        place = int(np.searchsorted(self.bounds, value))
        bound = float(self.bounds[place]) if place < len(self.bounds) else math.inf
        self.exemplars[bound] = Exemplar(trace_id, value, time())

    def add_to(self, family: Family, labels: Mapping[str, str]) -> None:
        """Its samples."""
        if self.pending:
            self.digest()
        bounds = (*self.bounds.tolist(), math.inf)
        buckets = zip(bounds, np.cumsum(self._counts).tolist(), strict=True)
        family.add_histogram(labels, buckets, self._total, self.exemplars)


class _Series:
    """What is kept of one model version."""

    __slots__ = ("first_response", "queue", "recent", "total")

    def __init__(self, model: LoadedModel, settings: MetricsSettings) -> None:
        self.queue = _Histogram(_SECONDS, 1e-9)
        self.total = _Histogram(_SECONDS, 1e-9)
        self.recent: deque[tuple[int, int, int, int, int, int]] | None = None
        """When the request ended, and its five durations, in nanoseconds."""
        if settings.summary_latencies:
            self.recent = deque(maxlen=_WINDOW_SIZE)
        self.first_response: _Histogram | None = None
        if settings.histogram_latencies and model.spec.decoupled:
            self.first_response = _Histogram(_first_response_bounds(model.config), 1e-6)


class Latencies:
    """Hears of every final response, as ``Engine.on_finished`` tells."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._series: dict[LoadedModel, _Series] = {}

    def observe(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Note one request that succeeded. Costs a request well below a microsecond."""
        model = request.model
        if response.error is not None or model is None:
            return
        series = self._series.get(model)
        if series is None:
            series = self._series[model] = _Series(model, self._settings)
        answered_ns = request.answered_ns
        total_ns = answered_ns - request.received_ns
        # One that the response cache has answered was not executed.
        queue_ns = (request.compute_start_ns or answered_ns) - request.queued_ns
        series.queue.pending.append(queue_ns)
        pending = series.total.pending
        pending.append(total_ns)
        if len(pending) >= _PENDING:
            series.queue.digest()
            series.total.digest()
        if request.trace_context is not None:
            trace_id = _trace_id(request.trace_context)
            if trace_id is not None:
                series.queue.exemplify(queue_ns, trace_id)
                series.total.exemplify(total_ns, trace_id)
        if series.recent is not None:
            series.recent.append((answered_ns, total_ns, queue_ns, *_parts(request)))
        if series.first_response is not None and request.infer_end_ns:
            series.first_response.pending.append(request.infer_end_ns - request.received_ns)

    def collect(self, engine: Engine) -> Iterator[Family]:
        """The families, of the models that are ready; what was kept of others is dropped."""
        models = engine.ready_models()
        self._series = {model: self._series.get(model) or _Series(model, self._settings) for model in models}
        queue = Family("trivet_queue_duration_seconds", "Time that requests waited for an instance", "histogram")
        total = Family("trivet_request_duration_seconds", "Time from a request's arrival to its response", "histogram")
        first = Family(_FIRST_RESPONSE, "Duration from request to first response in milliseconds", "histogram")
        for model, series in self._series.items():
            labels = model_labels(model)
            series.queue.add_to(queue, labels)
            series.total.add_to(total, labels)
            if series.first_response is not None:
                series.first_response.add_to(first, labels)
        yield queue
        yield total
        if first.samples:
            yield first
        if self._settings.summary_latencies:
            yield from self._summaries()

    def _summaries(self) -> Iterator[Family]:
        families = [Family(name, description, "summary") for name, description in _SUMMARIES]
        since_ns = perf_counter_ns() - _WINDOW_NS
        for model, series in self._series.items():
            labels = model_labels(model)
            statistics = model.statistics
            recent = np.array([parts[1:] for parts in series.recent or () if parts[0] >= since_ns], np.float64) / 1000
            durations = (
                statistics.success,
                statistics.queue,
                statistics.compute_input,
                statistics.compute_infer,
                statistics.compute_output,
            )
            for column, (family, duration) in enumerate(zip(families, durations, strict=True)):
                for quantile in self._settings.quantiles:
                    value = float(np.quantile(recent[:, column], quantile)) if len(recent) else math.nan
                    family.add({**labels, "quantile": f"{quantile:g}"}, value)
                family.add(labels, duration.count, "_count")
                family.add(labels, duration.ns // 1000, "_sum")
        yield from families


def _parts(request: InferenceRequest) -> tuple[int, int, int]:
    return (
        request.input_end_ns - request.compute_start_ns,
        request.infer_end_ns - request.input_end_ns,
        request.compute_end_ns - request.infer_end_ns,
    )


def _trace_id(context: Any) -> str | None:
    """Of a W3C trace context, ``version-traceid-spanid-flags``; ``None`` where it is malformed."""
    parts = str(context.get("traceparent", "")).split("-") if isinstance(context, Mapping) else []
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None


def _first_response_bounds(config: ModelConfig) -> Sequence[float]:
    for control in config.model_metrics.metric_control:
        if control.metric_identifier.family == _FIRST_RESPONSE:
            return sorted(control.histogram_options.buckets)
    return _FIRST_RESPONSE_MS
