"""``max_inflight_requests``: how many requests a step may have at its model, and how far a producer may run ahead."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet_scheduler_ensemble.run import Call

logger = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""How long a model's thread is held back at most, as in Triton: what it waits for may need that very thread."""


class StepLimit:
    """The requests of one step, of all requests of the ensemble together. On the event loop."""

    __slots__ = ("_filling", "in_flight", "most", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self.waiting: deque[Call] = deque()
        self._filling = False

    def enter(self, call: Call) -> bool:
        """Whether the call may be made now; otherwise it waits."""
        if self.in_flight >= self.most:
            self.waiting.append(call)
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """A call has ended: make those whose turn it is.

        Where the model refuses one at once, that ends within this and only makes room for the loop here.
        """
        self.in_flight -= 1
        if self._filling:
            return
        self._filling = True
        try:
            while self.waiting and self.in_flight < self.most:
                self.in_flight += 1
                self.waiting.popleft().submit()
        finally:
            self._filling = False


class Backpressure:
    """Holds back a decoupled model whose responses are not worked off by the steps behind it.

    ``throttle`` of the request to it: called on the model's thread; the other methods on the event loop.
    """

    def __init__(self, most: int, outer: Callable[[], None] | None) -> None:
        """``most`` responses may be under way; ``outer`` is asked as well, it belongs to the ensemble's caller."""
        self._most = most
        self._outer = outer
        self._under_way = 0
        self._open = False
        self._loop_thread = threading.get_ident()
        self._changed = threading.Condition()

    def __call__(self) -> None:
        """Count a response that the model is about to give, once there is room for it."""
        if self._outer is not None:
            self._outer()
        with self._changed:
            # On the event loop, where a model may answer for another, what it waits for would not come.
            if threading.get_ident() != self._loop_thread and not self._changed.wait_for(self._has_room, PATIENCE_S):
                logger.error("a step of an ensemble is stuck for %g s; its producer goes on", PATIENCE_S)
            self._under_way += 1

    def done(self) -> None:
        """Everything that follows from one response has happened."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    def open(self) -> None:
        """Hold nobody back any more: the request has ended."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._open or self._under_way < self._most
