"""How long requests took, as distributions: what counters of the engine cannot tell.

Requests only leave their numbers here; they are sorted into buckets many at a time, or when somebody asks. On the event
loop.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter_ns, time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trivet_exporter_prometheus.families import Exemplar, Family, Histogram, with_label

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.lifecycle import LoadedModel
    from trivet.statistics import Duration

    from trivet_exporter_prometheus.options import MetricsSettings

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FIRST_RESPONSE_MS = (100.0, 500.0, 2000.0, 5000.0)
"""Triton's buckets, where ``model_metrics`` gives no others."""
_FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
_PENDING = 1024
_FEW = 64
"""Up to here NumPy costs more than it saves."""
_WINDOW_NS = 60 * 10**9
_WINDOW_SIZE = 2048
"""Requests of a model that its quantiles are made of, at most; those of the last minute."""

_Recent = tuple[int, int, int, int, int, int, int]
"""When a request ended, its five durations, and what the response cache took, in nanoseconds. The time of computing is
negative for one that the cache answered."""

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
_CACHE_SUMMARIES = (
    ("nv_cache_hit_summary_per_model", "Summary of cache hit counts/durations per model, in microseconds."),
    ("nv_cache_miss_summary_per_model", "Summary of cache miss counts/durations per model, in microseconds."),
)


class _Histogram:
    """Counts by bucket of durations that were left in ``pending``, in nanoseconds."""

    __slots__ = ("_bounds", "_bounds_ns", "_counts", "_exemplars", "_scale", "_total_ns", "pending")

    def __init__(self, bounds: Sequence[float], scale: float) -> None:
        """``scale`` is what one of the bounds' unit has of nanoseconds."""
        self._bounds = tuple(bounds)
        # Whole numbers compare faster than a duration is converted.
        self._bounds_ns = array("q", [math.floor(bound * scale) for bound in bounds])
        self._scale = scale
        self._counts = [0] * (len(bounds) + 1)
        self._total_ns = 0
        self._exemplars: dict[int, Exemplar] = {}
        self.pending = array("q")

    def digest(self) -> None:
        """Sort what is pending into the buckets."""
        places: Iterable[tuple[int, int]]
        if len(self.pending) < _FEW:
            places = Counter(map(partial(bisect_left, self._bounds_ns), self.pending)).items()
            self._total_ns += sum(self.pending)
        else:
            values = np.array(self.pending, np.int64)
            places = enumerate(np.bincount(np.searchsorted(self._bounds_ns, values)).tolist())
            self._total_ns += int(values.sum())
        for place, count in places:
            self._counts[place] += count
        del self.pending[:]

    def exemplify(self, ns: int, trace_id: str) -> None:
        """Keep this observation as the newest of its bucket."""
        self._exemplars[bisect_left(self._bounds_ns, ns)] = Exemplar(trace_id, ns / self._scale, time())

    def now(self, labels: str) -> Histogram:
        """As it is now, everything digested."""
        if self.pending:
            self.digest()
        total = self._total_ns / self._scale
        return Histogram(labels, self._bounds, list(self._counts), total, dict(self._exemplars))


class _Series:
    """What is kept of one model version."""

    __slots__ = ("first_response", "queue", "recent", "total")

    def __init__(self, model: LoadedModel, settings: MetricsSettings) -> None:
        self.queue = _Histogram(_SECONDS, 1e9)
        self.total = _Histogram(_SECONDS, 1e9)
        self.recent: deque[_Recent] | None = None
        if settings.summary_latencies:
            self.recent = deque(maxlen=_WINDOW_SIZE)
        self.first_response: _Histogram | None = None
        if settings.histogram_latencies and model.spec.decoupled:
            self.first_response = _Histogram(_first_response_bounds(model.config), 1e6)


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
            series.recent.append((answered_ns, total_ns, queue_ns, *_parts(request), request.cache_ns))
        if series.first_response is not None and request.infer_end_ns:
            series.first_response.pending.append(request.infer_end_ns - request.received_ns)

    def collect(self, models: Mapping[LoadedModel, str]) -> list[Family]:
        """The histograms of ``models``, given with their labels; what was kept of others is dropped."""
        self._series = {model: self._series.get(model) or _Series(model, self._settings) for model in models}
        queue = Family("trivet_queue_duration_seconds", "Time that requests waited for an instance", "histogram")
        total = Family("trivet_request_duration_seconds", "Time from a request's arrival to its response", "histogram")
        first = Family(_FIRST_RESPONSE, "Duration from request to first response in milliseconds", "histogram")
        for model, series in self._series.items():
            labels = models[model]
            queue.histograms.append(series.queue.now(labels))
            total.histograms.append(series.total.now(labels))
            if series.first_response is not None:
                first.histograms.append(series.first_response.now(labels))
        return [queue, total, *([first] if first.histograms else ())]

    def summaries(self, models: Mapping[LoadedModel, str]) -> Summaries | None:
        """What the summaries are made of, as it is now; ``None`` where there are none. After :meth:`collect`."""
        if not self._settings.summary_latencies:
            return None
        rows = [
            (
                labels,
                [(part.count, part.ns) for part in _durations(model)],
                list(self._series[model].recent or ()),
            )
            for model, labels in models.items()
        ]
        return Summaries(rows, self._settings.quantiles, perf_counter_ns() - _WINDOW_NS)


class Summaries:
    """The summaries at one moment. Quantiles take their time: for a worker thread."""

    def __init__(
        self,
        rows: Sequence[tuple[str, Sequence[tuple[int, int]], Sequence[_Recent]]],
        quantiles: Sequence[float],
        since_ns: int,
    ) -> None:
        """``rows``: of each model its labels, count and nanoseconds of each duration, and its last requests."""
        self._rows = rows
        self._quantiles = quantiles
        self._since_ns = since_ns

    def collect(self) -> list[Family]:
        """The families; a quantile is NaN where no request was answered since ``since_ns``."""
        families = [Family(name, description, "summary") for name, description in (*_SUMMARIES, *_CACHE_SUMMARIES)]
        for labels, durations, recent in self._rows:
            window = np.array([parts for parts in recent if parts[0] >= self._since_ns], np.int64).reshape(-1, 7)
            computed = window[window[:, 3] >= 0]
            # By column, and hits and misses of the cache apart.
            whole = self._quantiles_of(window[:, 1:3])
            parts = self._quantiles_of(computed[:, 3:6])
            hits = self._quantiles_of(window[window[:, 3] < 0][:, 6:])
            misses = self._quantiles_of(computed[computed[:, 6] > 0][:, 6:])
            # A model without a cache has no durations of one.
            for family, (count, ns), values in zip(families, durations, (*whole, *parts, *hits, *misses), strict=False):
                for quantile, value in zip(self._quantiles, values, strict=True):
                    family.add(with_label(labels, "quantile", f"{quantile:g}"), value)
                family.add(labels, count, "_count")
                family.add(labels, ns // 1000, "_sum")
        return [family for family in families if family.samples]

    def _quantiles_of(self, columns: NDArray[np.int64]) -> list[list[float]]:
        """Of each column, in microseconds."""
        if not len(columns):
            return [[math.nan] * len(self._quantiles)] * columns.shape[1]
        quantiles: list[list[float]] = (np.quantile(columns, self._quantiles, axis=0) / 1000).T.tolist()
        return quantiles


def _durations(model: LoadedModel) -> Sequence[Duration]:
    """In the order of :data:`_SUMMARIES` and :data:`_CACHE_SUMMARIES`."""
    statistics = model.statistics
    return (
        statistics.success,
        statistics.queue,
        statistics.compute_input,
        statistics.compute_infer,
        statistics.compute_output,
        *((statistics.cache_hit, statistics.cache_miss) if model.cache is not None else ()),
    )


def _parts(request: InferenceRequest) -> tuple[int, int, int]:
    if not request.compute_start_ns:
        return -1, -1, -1
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
