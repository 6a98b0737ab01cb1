"""How long requests took, as distributions: histograms that the engine's statistics keep, and what options add to them.

The options' part hears of each request, which only leaves its numbers here. On the event loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from trivet.histogram import PENDING
from trivet.histogram import Histogram as Durations
from trivet.model_metrics import QUEUE_TIMES, REQUEST_TIMES

from trivet_exporter_prometheus.families import Exemplar, Family, Histogram, with_label

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.lifecycle import LoadedModel
    from trivet.statistics import Duration

    from trivet_exporter_prometheus.options import MetricsSettings

_FIRST_RESPONSE_MS = (100.0, 500.0, 2000.0, 5000.0)
"""Triton's buckets, where ``model_metrics`` gives no others."""
_FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
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


class _Series:
    """What is kept of one model version."""

    __slots__ = ("first_response", "recent")

    def __init__(self, model: LoadedModel, settings: MetricsSettings) -> None:
        self.recent: deque[_Recent] | None = None
        if settings.summary_latencies:
            self.recent = deque(maxlen=_WINDOW_SIZE)
        self.first_response: Durations | None = None
        if settings.histogram_latencies and model.spec.decoupled:
            self.first_response = Durations(_first_response_bounds(model.config), 1e6)


class Latencies:
    """Reads the histograms, and hears of every final response where summaries or first responses are wanted."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self.observes = settings.summary_latencies or settings.histogram_latencies
        """Whether :meth:`observe` is to be called, as ``Engine.on_finished`` does."""
        self._series: dict[LoadedModel, _Series] = {}

    def observe(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Note one request that succeeded. Costs a request well below a microsecond."""
        model = request.model
        if response.error is not None or model is None:
            return
        series = self._series.get(model)
        if series is None:
            series = self._series[model] = _Series(model, self._settings)
        if series.recent is not None:
            answered_ns = request.answered_ns
            total_ns = answered_ns - request.received_ns
            # One that the response cache has answered was not executed.
            queue_ns = (request.compute_start_ns or answered_ns) - request.queued_ns
            series.recent.append((answered_ns, total_ns, queue_ns, *_parts(request), request.cache_ns))
        first = series.first_response
        if first is not None and request.infer_end_ns:
            first.pending.append(request.infer_end_ns - request.received_ns)
            if len(first.pending) >= PENDING:
                first.sort()

    def collect(self, models: Mapping[LoadedModel, str]) -> list[Family]:
        """The histograms of ``models``, given with their labels; what was kept of others is dropped."""
        queue, total = Family(*QUEUE_TIMES, "histogram"), Family(*REQUEST_TIMES, "histogram")
        for model, labels in models.items():
            queue.histograms.append(_histogram(model.statistics.queue_times, labels, 1e9))
            total.histograms.append(_histogram(model.statistics.request_times, labels, 1e9))
        if not self.observes:
            return [queue, total]
        self._series = {model: self._series.get(model) or _Series(model, self._settings) for model in models}
        first = Family(_FIRST_RESPONSE, "Duration from request to first response in milliseconds", "histogram")
        for model, series in self._series.items():
            if series.first_response is not None:
                first.histograms.append(_histogram(series.first_response, models[model], 1e6))
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


def _histogram(durations: Durations, labels: str, unit_ns: float) -> Histogram:
    """As it is now, in units of so many nanoseconds."""
    exemplars = {
        place: Exemplar(trace_id, ns / unit_ns, time_s)
        for place, (context, ns, time_s) in durations.exemplars.items()
        if (trace_id := _trace_id(context)) is not None
    }
    return Histogram(labels, durations.bounds, durations.counts, durations.total_ns / unit_ns, exemplars)


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
            return sorted(set(filter(math.isfinite, control.histogram_options.buckets)))
    return _FIRST_RESPONSE_MS
