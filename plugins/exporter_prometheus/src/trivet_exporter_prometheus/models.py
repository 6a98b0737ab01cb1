"""Triton's metrics of models, read off the engine's statistics.

Source: Triton's user guide, "Metrics"; texts and order of the real server's ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from trivet.statistics import FailureReason, ModelStatistics

from trivet_exporter_prometheus.families import Family, Labels

if TYPE_CHECKING:
    from trivet.engine import Engine
    from trivet.lifecycle import LoadedModel

Read = Callable[[ModelStatistics], float]

_SUCCESS: tuple[str, str, Read] = (
    "nv_inference_request_success",
    "Number of successful inference requests, all batch sizes",
    lambda statistics: statistics.success.count,
)

_COUNTS: tuple[tuple[str, str, Read], ...] = (
    (
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        lambda statistics: statistics.inference_count,
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        lambda statistics: statistics.execution_count,
    ),
)

_DURATIONS: tuple[tuple[str, str, Read], ...] = (
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        lambda statistics: statistics.success.ns // 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        lambda statistics: statistics.queue.ns // 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        lambda statistics: statistics.compute_input.ns // 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        lambda statistics: statistics.compute_infer.ns // 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        lambda statistics: statistics.compute_output.ns // 1000,
    ),
)

_CACHE: tuple[tuple[str, str, Read], ...] = (
    (
        "nv_cache_num_hits_per_model",
        "Number of cache hits per model",
        lambda statistics: statistics.cache_hit.count,
    ),
    (
        "nv_cache_num_misses_per_model",
        "Number of cache misses per model",
        lambda statistics: statistics.cache_miss.count,
    ),
    (
        "nv_cache_hit_duration_per_model",
        "Total cache hit duration per model, in microseconds",
        lambda statistics: statistics.cache_hit.ns // 1000,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Total cache miss duration per model, in microseconds",
        lambda statistics: statistics.cache_miss.ns // 1000,
    ),
)

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def model_labels(model: LoadedModel) -> dict[str, str]:
    """How Triton labels a model's metrics: by name and version, and its configuration's ``metric_tags``."""
    return {"model": model.name, "version": str(model.version), **model.config.metric_tags}


class ModelFamilies:
    """Makes the families of all models. On the event loop, so that what belongs together is read together."""

    def __init__(self, *, counter_latencies: bool) -> None:
        self._durations = _DURATIONS if counter_latencies else ()
        self._labels: dict[LoadedModel, dict[str, str]] = {}

    def collect(self, engine: Engine) -> Iterator[Family]:
        """The families, each with the ready versions of all models."""
        models = {model: self._labels.get(model) or model_labels(model) for model in engine.ready_models()}
        self._labels = models
        yield _family(*_SUCCESS, models)
        failure = Family(
            "nv_inference_request_failure", "Number of failed inference requests, all batch sizes", "counter"
        )
        for model, labels in models.items():
            for reason in FailureReason:
                failure.add({**labels, "reason": reason.value}, model.statistics.failures[reason])
        yield failure
        for name, description, read in (*_COUNTS, *self._durations):
            yield _family(name, description, read, models)
        pending = Family(
            "nv_inference_pending_request_count",
            "Instantaneous number of pending requests awaiting execution per-model.",
            "gauge",
        )
        for model, labels in models.items():
            pending.add(labels, model.scheduler.queued)
        yield pending
        cached = {model: labels for model, labels in models.items() if model.cache is not None}
        if cached:
            for name, description, read in _CACHE:
                yield _family(name, description, read, cached)
        yield _batch_sizes(models)


def _family(name: str, description: str, read: Read, models: Mapping[LoadedModel, Labels]) -> Family:
    family = Family(name, description, "counter")
    for model, labels in models.items():
        family.add(labels, read(model.statistics))
    return family


def _batch_sizes(models: Mapping[LoadedModel, Labels]) -> Family:
    """Read off the statistics by batch size, so that no request pays for it."""
    family = Family("trivet_batch_size", "Executions by batch size, all requests of the batch together", "histogram")
    for model, labels in models.items():
        executions = {size: batch.compute_infer.count for size, batch in model.statistics.batches.items()}
        counts = [0] * (len(_BATCH_SIZES) + 1)
        for size, count in executions.items():
            place = next((index for index, bound in enumerate(_BATCH_SIZES) if size <= bound), len(_BATCH_SIZES))
            counts[place] += count
        buckets = zip((*map(float, _BATCH_SIZES), float("inf")), accumulate(counts), strict=True)
        family.add_histogram(labels, buckets, sum(size * count for size, count in executions.items()))
    return family
