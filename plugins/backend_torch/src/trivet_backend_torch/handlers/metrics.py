"""``context.metrics``: what handlers measure, as metrics of the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from trivet.errors import TrivetError
from trivet.metrics import MetricFamily, MetricKind, MetricRegistry

from trivet_backend_torch.ts.metrics.metric_type_enum import MetricTypes

_KINDS = {
    MetricTypes.COUNTER: MetricKind.COUNTER,
    MetricTypes.GAUGE: MetricKind.GAUGE,
    MetricTypes.HISTOGRAM: MetricKind.HISTOGRAM,
}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Of a histogram: those that TorchServe's have, whose metrics cannot name others."""


class HandlerMetric:
    """One name and kind; a handler updates it with the values of its dimensions. Any thread."""

    def __init__(
        self, metrics: HandlerMetrics, name: str, unit: str, dimension_names: Sequence[str] | None, kind: MetricTypes
    ) -> None:
        self._metrics = metrics
        self.metric_name = name
        self.unit = unit
        self.dimension_names = dimension_names
        """``None`` where nobody said them."""
        self.metric_type = kind

    def add_or_update(self, value: Any, dimension_values: Sequence[Any] = (), request_id: str = "") -> None:
        """Add to a counter, set a gauge, observe in a histogram. What cannot be is in the log, and raises nothing."""
        names = self.dimension_names
        if names is None:
            names = [f"dimension_{number}" for number in range(1, len(dimension_values) + 1)]
        if len(names) != len(dimension_values):
            self._metrics.refuse(
                self.metric_name, f"has the dimensions {list(names)} and got the values {list(dimension_values)}"
            )
            return
        labels = dict(zip(names, map(str, dimension_values), strict=True))
        self._metrics.update(self.metric_name, self.unit, self.metric_type, value, labels)

    def update(self, value: Any, request_id: str = "", dimensions: Sequence[Any] = ()) -> None:
        """:meth:`add_or_update` with dimensions that name themselves."""
        labels = {each.name: str(each.value) for each in dimensions}
        self._metrics.update(self.metric_name, self.unit, self.metric_type, value, labels)


class HandlerMetrics:
    """TorchServe's metrics cache. :meth:`close` it with the instance. Any thread.

    A metric that cannot be, such as one of a name that another has as another kind, costs no prediction: it is in the
    log once.
    """

    def __init__(self, registry: MetricRegistry | None, model_name: str, logger: logging.Logger) -> None:
        """``registry`` is ``None`` where nobody reads them."""
        self.model_name = model_name
        self.request_ids: Mapping[int, str] | str | None = None
        self.store: list[Any] = []
        """What handlers give ``emit_metrics``; there is nothing left to do."""
        self.cache: dict[tuple[MetricTypes, str], HandlerMetric] = {}
        self._registry = registry
        self._logger = logger
        self._families: dict[str, MetricFamily] = {}
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> HandlerMetric:
        """Declare a metric; it has no value yet."""
        metric = HandlerMetric(self, metric_name, unit, dimension_names, metric_type)
        self.cache[metric_type, metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> HandlerMetric:
        """A metric that was declared. Of another, which a server's ``metrics.yaml`` would, no dimensions are known."""
        metric = self.cache.get((metric_type, metric_name))
        return metric or HandlerMetric(self, metric_name, "", None, metric_type)

    def add_metric(
        self,
        name: str,
        value: Any,
        unit: str = "",
        idx: int | None = None,
        dimensions: Sequence[Any] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Update a metric with dimensions of its own and those that all have: ``ModelName`` and ``Level``."""
        self._add(name, value, unit, dimensions, metric_type)

    def add_counter(self, name: str, value: Any, idx: int | None = None, dimensions: Sequence[Any] = ()) -> None:
        """Add to a counter."""
        self._add(name, value, "count", dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Any] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """How long something took, in ``unit``."""
        self._add(name, value, unit, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Any] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """How large something is, in ``unit``."""
        self._add(name, value, unit, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        dimensions: Sequence[Any] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """A share, in percent."""
        self._add(name, value, "percent", dimensions, metric_type)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Any] = ()) -> None:
        """Add to a counter of errors."""
        self._add(name, value, "", dimensions, MetricTypes.COUNTER, level="Error")

    def _add(
        self, name: str, value: Any, unit: str, dimensions: Sequence[Any], kind: MetricTypes, level: str = "Model"
    ) -> None:
        labels = {"ModelName": self.model_name, "Level": level}
        if not isinstance(dimensions, (list, tuple)):
            self.refuse(name, f"got {dimensions!r} for dimensions, expected a list of Dimension")
            return
        labels |= {str(each.name): str(each.value) for each in dimensions}
        self.update(name, unit, kind, value, labels)

    def update(self, name: str, unit: str, kind: MetricTypes, value: Any, labels: Mapping[str, str]) -> None:
        """Update one metric. Raises nothing."""
        if self._registry is None:
            return
        try:
            number = float(value)
            metric = self._family(self._registry, name, unit, _KINDS[kind]).metric(
                labels, _BUCKETS if kind is MetricTypes.HISTOGRAM else None
            )
            match kind:
                case MetricTypes.COUNTER:
                    metric.increment(number)
                case MetricTypes.GAUGE:
                    metric.set(number)
                case _:
                    metric.observe(number)
        except (TrivetError, KeyError, TypeError, ValueError) as error:
            self.refuse(name, str(error))

    def _family(self, registry: MetricRegistry, name: str, unit: str, kind: MetricKind) -> MetricFamily:
        with self._lock:
            family = self._families.get(name)
            if family is None or family.kind is not kind:
                of_unit = f", in {unit}" if unit else ""
                family = registry.family(name, f"Measured by a handler of TorchServe{of_unit}", kind)
                self._families[name] = family
            return family

    def refuse(self, name: str, why: str) -> None:
        """Say once why a metric is not kept."""
        if name not in self._refused:
            self._refused.add(name)
            self._logger.warning("the handler's metric '%s' is not kept: %s", name, why)

    def close(self) -> None:
        """Let go of the metrics; a metric is gone with the last instance that has it."""
        with self._lock:
            families, self._families = self._families, {}
        if self._registry is not None:
            for family in families.values():
                self._registry.release(family)
        self._registry = None
