"""Holds back a model that answers faster than its caller reads."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Throttle:
    """The responses of one request that wait to be sent, and the model's thread that waits with them.

    The ``InferenceRequest.throttle`` of a decoupled model's request. It is called on the model's thread, all other
    methods on the event loop.
    """

    def __init__(self, most: int, full: Callable[[], bool]) -> None:
        """``most`` responses may wait, any number for 0. None is added while ``full()``, which any thread may call."""
        self._most = most
        self._full = full
        self._waiting = 0
        self._open = False
        self._changed = threading.Condition()

    def __call__(self) -> None:
        """Count a response that the model is about to give, once there is room for it."""
        with self._changed:
            while not self._open and (self._full() or 0 < self._most <= self._waiting):
                self._changed.wait()
            self._waiting += 1

    def sent(self) -> None:
        """A response has left, or makes no message."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify()

    def recheck(self) -> None:
        """What ``full()`` says may have changed."""
        with self._changed:
            self._changed.notify()

    def open(self) -> None:
        """Hold nobody back any more: the request has ended, or its caller has gone."""
        with self._changed:
            self._open = True
            self._changed.notify_all()
