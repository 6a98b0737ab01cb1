"""Metrics: families of counters, gauges and histograms that models keep themselves, and what an exporter reads of any.

The data model is that of Prometheus, the rules and messages are those of Triton's custom metrics. Any thread may use
everything here; values are written from models' threads and read by an exporter on its own.
"""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from trivet.errors import AlreadyExistsError, InvalidArgumentError, UnimplementedError

_FAMILY_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)

Labels = tuple[tuple[str, str], ...]


class MetricKind(Enum):
    """What a metric's value may do."""

    COUNTER = "counter"
    """Only grows."""
    GAUGE = "gauge"
    """Goes up and down."""
    HISTOGRAM = "histogram"
    """Counts observations by size."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One metric as it was at one moment."""

    labels: Labels
    """Names and values, by name."""
    value: float = 0.0
    """Of a counter or gauge; the sum of the observations of a histogram."""
    buckets: tuple[tuple[float, int], ...] = ()
    """Of a histogram: for each upper bound, infinity the last, how many observations were not above it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A family as it was at one moment, for exporters."""

    name: str
    description: str
    kind: MetricKind
    samples: Sequence[Sample]


class Metric:
    """One counter, gauge or histogram of a family, with its own labels."""

    __slots__ = ("_bounds", "_counts", "_lock", "_value", "kind", "labels")

    def __init__(self, kind: MetricKind, labels: Labels, bounds: Sequence[float] = ()) -> None:
        self.kind = kind
        self.labels = labels
        self._lock = threading.Lock()
        self._value = 0.0
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)

    @property
    def value(self) -> float:
        """What a counter or gauge shows. Raises :class:`~trivet.errors.UnimplementedError` for a histogram."""
        if self.kind is MetricKind.HISTOGRAM:
            raise self._unsupported("Value")
        return self._value

    def increment(self, by: float) -> None:
        """Add to a counter or gauge.

        Raises :class:`~trivet.errors.InvalidArgumentError` where a counter would shrink, and
        :class:`~trivet.errors.UnimplementedError` for a histogram.
        """
        if self.kind is MetricKind.HISTOGRAM:
            raise self._unsupported("Increment")
        # Written so that a counter refuses NaN too, which it would never lose again.
        if self.kind is MetricKind.COUNTER and not by >= 0:
            raise InvalidArgumentError(
                "TRITONSERVER_METRIC_KIND_COUNTER can only be incremented monotonically by non-negative values."
            )
        with self._lock:
            self._value += by

    def set(self, value: float) -> None:
        """Set a gauge. Raises :class:`~trivet.errors.UnimplementedError` for another kind."""
        if self.kind is not MetricKind.GAUGE:
            raise self._unsupported("Set")
        self._value = value

    def observe(self, value: float) -> None:
        """Count one observation in a histogram. Raises :class:`~trivet.errors.UnimplementedError` for another kind."""
        if self.kind is not MetricKind.HISTOGRAM:
            raise self._unsupported("Observe")
        place = bisect_left(self._bounds, value) if value == value else len(self._bounds)  # noqa: PLR0124 - NaN
        with self._lock:
            self._counts[place] += 1
            self._value += value

    def sample(self) -> Sample:
        """The metric now, its parts read together."""
        with self._lock:
            value, counts = self._value, list(self._counts)
        if self.kind is not MetricKind.HISTOGRAM:
            return Sample(self.labels, value)
        total = 0
        buckets: list[tuple[float, int]] = []
        for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
            total += count
            buckets.append((bound, total))
        return Sample(self.labels, value, tuple(buckets))

    @property
    def bounds(self) -> tuple[float, ...]:
        """Upper bounds of a histogram's buckets, without infinity."""
        return self._bounds

    def _unsupported(self, operation: str) -> UnimplementedError:
        return UnimplementedError(f"TRITONSERVER_METRIC_KIND_{self.kind.name} does not support {operation}")


class MetricFamily:
    """Metrics of one name and kind, told apart by their labels."""

    __slots__ = ("_lock", "_metrics", "description", "kind", "name")

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        self.name = name
        self.description = description
        self.kind = kind
        self._metrics: dict[Labels, Metric] = {}
        self._lock = threading.Lock()

    def metric(self, labels: Mapping[str, str], buckets: Iterable[float] | None = None) -> Metric:
        """The metric with these labels; the same one for whoever asks with the same.

        ``buckets`` are the upper bounds of a histogram, ascending; a last one for all that is larger is added. Raises
        :class:`~trivet.errors.InvalidArgumentError` for a label's name or bounds that cannot be.
        """
        for label in labels:
            # A histogram's samples have a label "le" of their own.
            if not _LABEL_NAME.fullmatch(label) or (label == "le" and self.kind is MetricKind.HISTOGRAM):
                raise InvalidArgumentError("Invalid label name")
        bounds = [float(bound) for bound in buckets or ()]
        if any(not low < high for low, high in pairwise(bounds)) or any(map(math.isnan, bounds)):
            raise InvalidArgumentError("Bucket Boundaries must be strictly sorted")
        if bounds and bounds[-1] == math.inf:
            bounds.pop()
        key = tuple(sorted(labels.items()))
        with self._lock:
            metric = self._metrics.get(key)
            if metric is None:
                metric = self._metrics[key] = Metric(self.kind, key, bounds)
            return metric

    def samples(self) -> list[Sample]:
        """All metrics of the family as they are now, in the order in which they were made."""
        with self._lock:
            metrics = list(self._metrics.values())
        return [metric.sample() for metric in metrics]


class MetricRegistry:
    """The families of one server. Who asks for a family holds it until it lets it go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, tuple[MetricFamily, int]] = {}

    def family(self, name: str, description: str, kind: MetricKind) -> MetricFamily:
        """Hold the family of that name, made where there is none; a description that differs from the first is dropped.

        Pair each call with one of :meth:`release`. Raises :class:`~trivet.errors.InvalidArgumentError` for a name that
        no metric can have, :class:`~trivet.errors.AlreadyExistsError` where there is one of another kind.
        """
        if not _FAMILY_NAME.fullmatch(name):
            raise InvalidArgumentError("Invalid metric name")
        with self._lock:
            family, holders = self._families.get(name) or (MetricFamily(name, description, kind), 0)
            if family.kind is not kind:
                raise AlreadyExistsError("Family name already exists")
            self._families[name] = family, holders + 1
            return family

    def release(self, family: MetricFamily) -> None:
        """Let go of a family; it is gone with the last one that held it."""
        with self._lock:
            held, holders = self._families[family.name]
            assert held is family
            if holders > 1:
                self._families[family.name] = family, holders - 1
            else:
                del self._families[family.name]

    def families(self) -> list[MetricFamily]:
        """All families, by name."""
        with self._lock:
            return [family for _, (family, _) in sorted(self._families.items())]

    def read(self) -> list[Reading]:
        """All families as they are now, by name."""
        return [Reading(each.name, each.description, each.kind, each.samples()) for each in self.families()]
