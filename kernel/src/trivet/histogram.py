"""Durations sorted into buckets: what sums cannot tell, for exporters to read. On the event loop.

Whoever measures only leaves a number; numbers are sorted many at a time, or when somebody asks.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import time
from typing import Any, NamedTuple

import numpy as np

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets for the times of requests."""

PENDING = 1024
"""So many numbers are to be sorted at last."""
_FEW = 64
"""Up to here NumPy costs more than it saves."""


class Exemplar(NamedTuple):
    """One observation among those that a bucket counts, to look at more closely."""

    trace_context: Any
    """Its request's :attr:`~trivet.inference.InferenceRequest.trace_context`."""
    ns: int
    time_s: float
    """When it was noted, in seconds since the epoch."""


class Histogram:
    """Counts by bucket of durations in nanoseconds. Append to :attr:`pending`, and :meth:`sort` when it is long."""

    __slots__ = ("_bounds_ns", "_counts", "_exemplars", "_total_ns", "bounds", "pending")

    def __init__(self, bounds: Sequence[float] = SECONDS, unit_ns: float = 1e9) -> None:
        """``bounds`` are ascending upper bounds without infinity, in units of so many nanoseconds."""
        self.bounds = tuple(bounds)
        # Whole numbers compare faster than a duration is converted.
        self._bounds_ns = array("q", [math.floor(bound * unit_ns) for bound in bounds])
        self._counts = [0] * (len(bounds) + 1)
        self._total_ns = 0
        self._exemplars: dict[int, Exemplar] = {}
        self.pending = array("q")

    def sort(self) -> None:
        """Put what is pending into its buckets."""
        pending = self.pending
        places: Iterable[tuple[int, int]]
        if len(pending) < _FEW:
            places = Counter(map(partial(bisect_left, self._bounds_ns), pending)).items()
            self._total_ns += sum(pending)
        else:
            values = np.array(pending, np.int64)
            places = enumerate(np.bincount(np.searchsorted(self._bounds_ns, values)).tolist())
            self._total_ns += int(values.sum())
        for place, count in places:
            self._counts[place] += count
        del pending[:]

    def exemplify(self, ns: int, trace_context: Any) -> None:
        """Keep an observation, which is pending too, as the newest of its bucket."""
        self._exemplars[bisect_left(self._bounds_ns, ns)] = Exemplar(trace_context, ns, time())

    @property
    def counts(self) -> Sequence[int]:
        """How many there were in each bucket alone; the last is what is above all bounds. A copy."""
        self.sort()
        return list(self._counts)

    @property
    def total_ns(self) -> int:
        """The sum of all."""
        self.sort()
        return self._total_ns

    @property
    def exemplars(self) -> Mapping[int, Exemplar]:
        """By the place of their bucket. A copy."""
        return dict(self._exemplars)
