"""Metrics of models, read off their statistics: names, texts and values, for exporters. On the event loop.

Source: Triton's user guide, "Metrics"; texts of the real server's ``/metrics``. Those that begin with ``trivet_`` are
Trivet's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trivet.statistics import ModelStatistics

_INFERENCES = "(does not include cached requests)"
_ALL = "(includes cached requests)"


class ModelMetric(NamedTuple):
    """A family that has one metric, or one for each reason, of each model version."""

    name: str
    description: str


class ModelCounter(NamedTuple):
    """A family of counters, with its value of one model version."""

    name: str
    description: str
    read: Callable[[ModelStatistics], int]
    is_duration: bool = False
    """In microseconds, and left out where somebody wants no durations as counters."""
    of_cache: bool = False
    """Of models that use the response cache alone."""


def _us(part: str) -> Callable[[ModelStatistics], int]:
    return lambda statistics: int(getattr(statistics, part).ns) // 1000


MODEL_COUNTERS = (
    ModelCounter(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda statistics: statistics.success.count,
    ),
    ModelCounter(
        "nv_inference_count",
        f"Number of inferences performed {_INFERENCES}",
        lambda statistics: statistics.inference_count,
    ),
    ModelCounter(
        "nv_inference_exec_count",
        f"Number of model executions performed {_INFERENCES}",
        lambda statistics: statistics.execution_count,
    ),
    ModelCounter(
        "nv_inference_request_duration_us",
        f"Cumulative inference request duration in microseconds {_ALL}",
        _us("success"),
        is_duration=True,
    ),
    ModelCounter(
        "nv_inference_queue_duration_us",
        f"Cumulative inference queuing duration in microseconds {_ALL}",
        _us("queue"),
        is_duration=True,
    ),
    ModelCounter(
        "nv_inference_compute_input_duration_us",
        f"Cumulative compute input duration in microseconds {_INFERENCES}",
        _us("compute_input"),
        is_duration=True,
    ),
    ModelCounter(
        "nv_inference_compute_infer_duration_us",
        f"Cumulative compute inference duration in microseconds {_INFERENCES}",
        _us("compute_infer"),
        is_duration=True,
    ),
    ModelCounter(
        "nv_inference_compute_output_duration_us",
        f"Cumulative inference compute output duration in microseconds {_INFERENCES}",
        _us("compute_output"),
        is_duration=True,
    ),
    ModelCounter(
        "nv_cache_num_hits_per_model",
        "Number of cache hits per model",
        lambda statistics: statistics.cache_hit.count,
        of_cache=True,
    ),
    ModelCounter(
        "nv_cache_num_misses_per_model",
        "Number of cache misses per model",
        lambda statistics: statistics.cache_miss.count,
        of_cache=True,
    ),
    ModelCounter(
        "nv_cache_hit_duration_per_model",
        "Total cache hit duration per model, in microseconds",
        _us("cache_hit"),
        of_cache=True,
    ),
    ModelCounter(
        "nv_cache_miss_duration_per_model",
        "Total cache miss (insert+lookup) duration per model, in microseconds",
        _us("cache_miss"),
        of_cache=True,
    ),
)
FAILURES = ModelMetric("nv_inference_request_failure", "Number of failed inference requests, all batch sizes")
"""Counters by :class:`~trivet.statistics.FailureReason`."""
WAITING = ModelMetric(
    "nv_inference_pending_request_count",
    "Instantaneous number of pending requests awaiting execution per-model.",
)
"""A gauge: ``queued`` of the model's scheduler."""
REQUEST_TIMES = ModelMetric("trivet_request_duration_seconds", "Time from a request's arrival to its response")
"""A histogram: ``request_times`` of the statistics."""
QUEUE_TIMES = ModelMetric("trivet_queue_duration_seconds", "Time that requests waited for an instance")
"""A histogram: ``queue_times`` of the statistics."""
SIZES = ModelMetric("trivet_batch_size", "Executions by batch size, all requests of the batch together")
"""A histogram: :meth:`~trivet.statistics.ModelStatistics.batch_sizes`."""
