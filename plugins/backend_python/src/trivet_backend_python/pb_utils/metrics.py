"""``pb_utils.MetricFamily``: metrics that a model keeps itself.

Source: Triton's Python backend, "Custom Metrics". Messages are Triton's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, ClassVar

from trivet import metrics
from trivet.errors import TrivetError
from trivet.metrics import MetricRegistry

from trivet_backend_python import scope
from trivet_backend_python.pb_utils.errors import TritonModelException


class MetricKind(IntEnum):
    """Kinds of metric, with Triton's numbers."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class Metric:
    """One metric of a family, made with :meth:`MetricFamily.Metric`. Any thread may use it.

    Every method raises :class:`TritonModelException` where the kind of the metric does not allow it, and
    :class:`TypeError` for what is no number.
    """

    __slots__ = ("_family", "_metric")

    def __init__(self, family: MetricFamily, metric: metrics.Metric) -> None:
        # The family lives as long as its metrics, where in Triton they can be used no more once it is gone.
        self._family = family
        self._metric = metric

    def increment(self, value: float) -> None:
        """Add to a counter, which cannot shrink, or to a gauge."""
        _do("increment metric value", self._metric.increment, _number(value))

    def set(self, value: float) -> None:
        """Set a gauge."""
        _do("set metric value", self._metric.set, _number(value))

    def observe(self, value: float) -> None:
        """Count one observation in a histogram."""
        _do("observe metric value", self._metric.observe, _number(value))

    def value(self) -> float:
        """What a counter or gauge shows."""
        try:
            return self._metric.value
        except TrivetError as error:
            raise TritonModelException(f"Failed to get metric value: {error.message}") from error


class MetricFamily:
    """Metrics of one name, for an exporter. Families of equal name are one, whichever models make them.

    It is gone when nothing refers to it or its metrics any more, at the latest when the model is unloaded.
    """

    COUNTER: ClassVar = MetricKind.COUNTER
    GAUGE: ClassVar = MetricKind.GAUGE
    HISTOGRAM: ClassVar = MetricKind.HISTOGRAM

    __slots__ = ("__weakref__", "_family", "_registry")

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        """Raises :class:`TritonModelException` for a name that no metric can have or that one of another kind has."""
        self._registry: MetricRegistry | None = None
        given: tuple[object, ...] = (name, description, kind)
        if not all(map(isinstance, given, (str, str, MetricKind))):
            raise TypeError(
                "MetricFamily takes a name, a description and a kind: MetricFamily.COUNTER, GAUGE or HISTOGRAM"
            )
        place = scope.find()
        registry = None if place is None else place.package.context.metrics
        if place is None or registry is None:
            raise TritonModelException("MetricFamily works only in the code of a model that the server runs")
        try:
            self._family = registry.family(name, description, metrics.MetricKind[kind.name])
        except TrivetError as error:
            raise TritonModelException(f"Error when creating MetricFamily: {error.message}") from error
        self._registry = registry
        place.package.resources.add(self)

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The metric with these labels, the same one each time. ``buckets`` are the upper bounds of a histogram's.

        Raises :class:`TritonModelException` for labels or buckets that cannot be.
        """
        if labels is not None and not isinstance(labels, Mapping):
            raise TritonModelException("Failed to create metric. Labels must be a dictionary.")
        if buckets is not None and not isinstance(buckets, list | tuple):
            raise TritonModelException("Failed to create metric. Buckets must be a list.")
        if (buckets is None) == (self._family.kind is metrics.MetricKind.HISTOGRAM):
            what = "Missing required buckets" if buckets is None else "Unexpected buckets found"
            raise TritonModelException(f"Failed to create metric. {what}.")
        for name, value in (labels or {}).items():
            if not all(isinstance(part, str) for part in (name, value)):
                raise TritonModelException(
                    f"Error when creating Metric: labels are pairs of str, got {name!r}: {value!r}"
                )
        bounds = None if buckets is None else [_number(bound) for bound in buckets]
        try:
            return Metric(self, self._family.metric(labels or {}, bounds))
        except TrivetError as error:
            raise TritonModelException(f"Error when creating Metric: {error.message}") from error

    def close(self) -> None:
        """Let go of the family; what its metrics count from now on nobody sees."""
        registry, self._registry = self._registry, None
        if registry is not None:
            registry.release(self._family)

    def __del__(self) -> None:
        self.close()


def _do(what: str, act: Callable[[float], None], value: float) -> None:
    try:
        act(value)
    except TrivetError as error:
        raise TritonModelException(f"Failed to {what}: {error.message}") from error


def _number(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"a metric takes numbers, got {type(value).__name__}")
    return float(value)
