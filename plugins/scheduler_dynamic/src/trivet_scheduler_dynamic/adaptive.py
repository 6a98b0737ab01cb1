"""``max_queue_delay: auto``: batch size and delay from what was measured, for the most throughput in an objective.

No clock and no event loop here: measurements come in, a :class:`Choice` comes out.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

_KEPT = 32
"""Measurements per batch size."""
_KEPT_NS = 10_000_000_000
"""How long a measurement counts. What was slow once is tried again after that."""
_QUANTILE = 0.95
"""Of the measurements of one size, which is taken for the slow case. With 32 of them, the third slowest."""
_MARGIN = 0.9
"""The part of the objective that is planned with."""
_BUSY = 0.5
"""The part of the instances' time, if each request were executed alone, from which on it pays to save executions."""
_RATE_NS = 500_000_000
"""Time constant of the arrival rate."""
_RATE_STEP_NS = 20_000_000


class Choice(NamedTuple):
    """What the batcher is to do."""

    limit: int
    """Rows of the largest batch."""
    delay_ns: int
    """How long an instance that is free waits for more requests than there are."""


class ComputeTimes:
    """How long an execution takes, by its rows: the recent measurements, and estimates between and beyond them."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[int, int]]] = {}
        self._largest = 0

    @property
    def sizes(self) -> list[int]:
        """The sizes that were measured, ascending."""
        return sorted(self._samples)

    def add(self, rows: int, took_ns: int, now_ns: int) -> None:
        """One more execution."""
        samples = self._samples.get(rows)
        if samples is None:
            samples = self._samples[rows] = deque(maxlen=_KEPT)
        samples.append((now_ns, took_ns))

    def forget(self, now_ns: int) -> None:
        """Drop what is too old to count; the last measurement of all stays."""
        for rows, samples in list(self._samples.items()):
            while samples and now_ns - samples[0][0] > _KEPT_NS and (len(samples) > 1 or len(self._samples) > 1):
                samples.popleft()
            if not samples:
                del self._samples[rows]

    def typical(self, rows: int) -> float:
        """The median, ns."""
        return self._estimate(rows, 0.5)

    def slow(self, rows: int) -> float:
        """What only few executions exceed, ns."""
        return self._estimate(rows, _QUANTILE)

    def _estimate(self, rows: int, quantile: float) -> float:
        """Measured, between two measured sizes on the line between them, below the smallest as that, and beyond the
        largest in proportion: more than it will be, as a batch costs less than its requests one by one.
        """
        if rows in self._samples:
            return self._measured(rows, quantile)
        sizes = self.sizes
        below = max((size for size in sizes if size < rows), default=None)
        above = min((size for size in sizes if size > rows), default=None)
        if below is None:
            assert above is not None
            return self._measured(above, quantile)
        low = self._measured(below, quantile)
        if above is None:
            return low * rows / below
        return low + (self._measured(above, quantile) - low) * (rows - below) / (above - below)

    def _measured(self, rows: int, quantile: float) -> float:
        times = sorted(took for _, took in self._samples[rows])
        return times[math.ceil(quantile * len(times)) - 1]


class ArrivalRate:
    """Rows per nanosecond that arrive, smoothed exponentially over half a second."""

    def __init__(self) -> None:
        self.per_ns = 0.0
        self._rows = 0
        self._since_ns = 0

    def add(self, rows: int) -> None:
        """So many rows have arrived."""
        self._rows += rows

    def update(self, now_ns: int) -> None:
        """Bring the rate up to date."""
        elapsed = now_ns - self._since_ns
        if elapsed < _RATE_STEP_NS:
            return
        share = 1 - math.exp(-elapsed / _RATE_NS) if self._since_ns else 1.0
        self.per_ns += share * (self._rows / elapsed - self.per_ns)
        self._rows = 0
        self._since_ns = now_ns


def choose(times: ComputeTimes, rate_per_ns: float, *, instances: int, objective_ns: int, max_rows: int) -> Choice:
    """Batch size and delay with the most throughput whose predicted p99 is within the objective.

    *Size.* A request that just missed a batch waits for it and is computed in the next, so that two slow executions of
    the largest size must fit. Of the sizes that do, the one with the most rows per second; a size that was not measured
    is tried when the next smaller one was, at most twice as large. Where none fits, the objective is lost for now, and
    what is left to do is not to fall behind: the smallest size that carries the load, or else the fastest.

    *Delay.* Under steady load batches grow by themselves, and a delay only adds to latency. It pays where it saves an
    execution, as with clients that all ask again when they are answered: waiting is worth as much as an execution costs
    beside its rows, and where to stop is the problem of renting or buying: after as long as that, which never costs
    more than twice what it would cost to know. So the delay is that fixed cost, where the instances are busy, at least
    one request is expected meanwhile, and the objective has room for it beside the two executions.
    """
    sizes = [size for size in times.sizes if size <= max_rows]
    if not sizes:
        return Choice(1, 0)
    budget_ns = _MARGIN * objective_ns
    largest = sizes[-1]
    next_size = min(2 * largest, max_rows, int(budget_ns / 2 / times.slow(largest) * largest))
    candidates = sorted({1, *sizes, max(next_size, largest)})
    within = [size for size in candidates if 2 * times.slow(size) <= budget_ns]
    if not within:
        carrying = [size for size in candidates if size * instances > rate_per_ns * times.typical(size)]
        return Choice(carrying[0] if carrying else max(candidates, key=lambda size: size / times.typical(size)), 0)
    # Among equals the smaller; what was not measured is optimistic by nothing, so it must be preferred to be tried.
    limit = max(within, key=lambda size: (size / _hopeful(times, size, largest), -size))
    alone_ns = times.typical(1)
    if rate_per_ns * alone_ns / instances < _BUSY or limit == 1:
        return Choice(limit, 0)
    fixed_ns = max(0.0, (limit * alone_ns - times.typical(limit)) / (limit - 1))
    delay_ns = min(fixed_ns, budget_ns - 2 * times.slow(limit))
    return Choice(limit, int(delay_ns) if rate_per_ns * delay_ns >= 1 else 0)


def _hopeful(times: ComputeTimes, size: int, largest: int) -> float:
    """The typical time, and of a size that is larger than any measured a little less than in proportion."""
    return times.typical(size) * (0.99 if size > largest else 1)
