"""How late the event loop is: the first thing to look at where a server is slow and its models are not."""

from __future__ import annotations

import asyncio
from bisect import bisect_left

from trivet_exporter_prometheus.families import Family, Histogram

_INTERVAL_S = 0.1
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class LoopLag:
    """Asks the loop to call back ten times a second, and notes how much later it does. On the event loop."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._total_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._due_s = loop.time() + _INTERVAL_S
        self._timer = loop.call_at(self._due_s, self._called)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def collect(self) -> Family:
        """The histogram so far."""
        family = Family(
            "trivet_event_loop_lag_seconds", "How much later than due the event loop ran a timer", "histogram"
        )
        family.histograms.append(Histogram("", _SECONDS, list(self._counts), self._total_s, {}))
        return family

    def _called(self) -> None:
        # Some loops call a timer up to a clock tick early.
        lag_s = max(0.0, asyncio.get_running_loop().time() - self._due_s)
        self._counts[bisect_left(_SECONDS, lag_s)] += 1
        self._total_s += lag_s
        self.start()
