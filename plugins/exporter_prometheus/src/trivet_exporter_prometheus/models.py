"""Triton's metrics of models, read off the engine's statistics.

Source: Triton's user guide, "Metrics"; texts and order of the real server's ``/metrics``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from trivet.statistics import FailureReason, ModelStatistics

from trivet_exporter_prometheus.families import Family, Histogram, label_text

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
        "Total cache miss (insert+lookup) duration per model, in microseconds",
        lambda statistics: statistics.cache_miss.ns // 1000,
    ),
)

_BATCH_SIZES: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ModelLabels:
    """The labels of each model's metrics, as text that is made once. On the event loop."""

    def __init__(self) -> None:
        self._texts: dict[LoadedModel, str] = {}

    def of(self, engine: Engine) -> Mapping[LoadedModel, str]:
        """Those of the models that are ready now: name and version, as in Triton, and the configuration's
        ``metric_tags``, which Triton begins with a ``_``.
        """
        known = self._texts
        self._texts = {model: known.get(model) or _text(model) for model in engine.ready_models()}
        return self._texts


def _text(model: LoadedModel) -> str:
    tags = {f"_{tag}": value for tag, value in model.config.metric_tags.items()}
    return label_text({"model": model.name, "version": str(model.version), **tags})


class ModelFamilies:
    """Makes the families of all models. On the event loop, so that what belongs together is read together."""

    def __init__(self, *, counter_latencies: bool) -> None:
        self._durations = _DURATIONS if counter_latencies else ()

    def collect(self, models: Mapping[LoadedModel, str]) -> list[Family]:
        """The families, each with all of ``models``, given with their labels."""
        failure = Family(
            "nv_inference_request_failure", "Number of failed inference requests, all batch sizes", "counter"
        )
        reasons = [(reason, f',reason="{reason.value}"}}') for reason in FailureReason]
        failure.samples = [
            (labels[:-1] + text, model.statistics.failures[reason])
            for model, labels in models.items()
            for reason, text in reasons
        ]
        pending = Family(
            "nv_inference_pending_request_count",
            "Instantaneous number of pending requests awaiting execution per-model.",
            "gauge",
        )
        pending.samples = [(labels, model.scheduler.queued) for model, labels in models.items()]
        cached = {model: labels for model, labels in models.items() if model.cache is not None}
        return [
            _family(*_SUCCESS, models),
            failure,
            *(_family(*row, models) for row in (*_COUNTS, *self._durations)),
            pending,
            *(_family(*row, cached) for row in _CACHE if cached),
            _batch_sizes(models),
        ]


def _family(name: str, description: str, read: Read, models: Mapping[LoadedModel, str]) -> Family:
    samples = [(labels, read(model.statistics)) for model, labels in models.items()]
    return Family(name, description, "counter", samples)


def _batch_sizes(models: Mapping[LoadedModel, str]) -> Family:
    """Read off the statistics by batch size, so that no request pays for it."""
    family = Family("trivet_batch_size", "Executions by batch size, all requests of the batch together", "histogram")
    for model, labels in models.items():
        counts, total = [0] * (len(_BATCH_SIZES) + 1), 0
        for size, batch in model.statistics.batches.items():
            count = batch.compute_infer.count
            counts[bisect_left(_BATCH_SIZES, size)] += count
            total += size * count
        family.histograms.append(Histogram(labels, _BATCH_SIZES, counts, total, {}))
    return family
