"""Sequences that wait for their next request, and the end of those that wait too long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivet.scheduling import SchedulerContext

    from trivet_scheduler_sequence.sequence import Sequence


class IdleSequences:
    """In the order in which they became idle, with one timer for all: coming and going costs the same for any number.

    The timer is set for whichever sequence was the first when it was set; that one is usually active again by then.
    """

    def __init__(self, context: SchedulerContext, limit_us: int, expire: Callable[[Sequence], None]) -> None:
        """``expire`` is called with each sequence that was idle for ``limit_us`` microseconds, and is not in here."""
        self._clock_ns = context.clock_ns
        self._call_later = context.call_later
        self._limit_ns = limit_us * 1000
        self._expire = expire
        self._since: OrderedDict[Sequence, int] = OrderedDict()
        self._timer: Any = None

    def add(self, sequence: Sequence) -> None:
        """It has no request from now on."""
        self._since[sequence] = self._clock_ns()
        if self._timer is None:
            self._timer = self._call_later(self._limit_ns / 1e9, self._check)

    def discard(self, sequence: Sequence) -> None:
        """It has a request again, or is over."""
        self._since.pop(sequence, None)

    def expire_first(self) -> None:
        """Expire the one that is idle for longest, before its time. There must be one."""
        self._expire(self._since.popitem(last=False)[0])

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __len__(self) -> int:
        return len(self._since)

    def _check(self) -> None:
        self._timer = None
        now = self._clock_ns()
        while self._since:
            sequence, since = next(iter(self._since.items()))
            left = since + self._limit_ns - now
            if left > 0:
                self._timer = self._call_later(left / 1e9, self._check)
                return
            del self._since[sequence]
            self._expire(sequence)
