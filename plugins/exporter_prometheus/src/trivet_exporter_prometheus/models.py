"""Metrics of models, read off the engine's statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trivet.model_metrics import FAILURES, MODEL_COUNTERS, SIZES, WAITING, ModelCounter
from trivet.statistics import BATCH_SIZES, FailureReason

from trivet_exporter_prometheus.families import Family, Histogram, label_text

if TYPE_CHECKING:
    from trivet.engine import Engine
    from trivet.lifecycle import LoadedModel


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
        self._counters = [each for each in MODEL_COUNTERS if counter_latencies or not each.is_duration]

    def collect(self, models: Mapping[LoadedModel, str]) -> list[Family]:
        """The families, each with all of ``models``, given with their labels."""
        failure = Family(*FAILURES, "counter")
        reasons = [(reason, f',reason="{reason.value}"}}') for reason in FailureReason]
        failure.samples = [
            (labels[:-1] + text, model.statistics.failures[reason])
            for model, labels in models.items()
            for reason, text in reasons
        ]
        pending = Family(*WAITING, "gauge")
        pending.samples = [(labels, model.scheduler.queued) for model, labels in models.items()]
        cached = {model: labels for model, labels in models.items() if model.cache is not None}
        success, *others = [_family(counter, models) for counter in self._counters if not counter.of_cache]
        of_cache = [_family(counter, cached) for counter in self._counters if counter.of_cache and cached]
        return [success, failure, *others, pending, *of_cache, _batch_sizes(models)]


def _family(counter: ModelCounter, models: Mapping[LoadedModel, str]) -> Family:
    read = counter.read
    samples: list[tuple[str, float]] = [(labels, read(model.statistics)) for model, labels in models.items()]
    return Family(counter.name, counter.description, "counter", samples)


def _batch_sizes(models: Mapping[LoadedModel, str]) -> Family:
    family = Family(*SIZES, "histogram")
    for model, labels in models.items():
        counts, total = model.statistics.batch_sizes()
        family.histograms.append(Histogram(labels, BATCH_SIZES, counts, total, {}))
    return family
