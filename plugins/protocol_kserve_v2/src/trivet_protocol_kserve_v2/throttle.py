"""Holds back a model that answers faster than its caller reads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import trivet.throttle

MOST_UNDELIVERED = 16
"""Responses of a request on their way to the event loop.

``full()`` does not know of them yet: while the loop is busy, a fast model would give any number.
"""


class Throttle(trivet.throttle.Throttle):
    """The responses of one request that wait to be sent, and the model's thread that waits with them.

    The ``InferenceRequest.throttle`` of a decoupled model's request. It is called on the model's thread, all other
    methods on the event loop.
    """

    def __init__(self, most: int, full: Callable[[], bool]) -> None:
        """On the event loop. ``most`` responses may wait, any number for 0.

        None is added while ``full()``, which any thread may call.
        """
        self._most = most
        self._full = full
        self._waiting = 0
        self._undelivered = 0
        self._open = False
        self._promised = False
        self._loop_thread = threading.get_ident()
        self._changed = threading.Condition()
        self._callbacks: list[Callable[[], None]] = []

    def __call__(self) -> None:
        """Count a response that the model is about to give, once there is room for it.

        Never waits on the event loop, where a model may answer for another: what it waits for would not come.
        """
        with self._changed:
            while threading.get_ident() != self._loop_thread and not self._promised and self._must_wait():
                self._changed.wait()
            self._promised = False
            self._waiting += 1
            self._undelivered += 1

    def delivered(self) -> None:
        """A response has come to the event loop, and ``full()`` knows of it."""
        with self._changed:
            self._undelivered -= 1
            self._changed.notify()
        self._call_back()

    def sent(self) -> None:
        """A response has left, or makes no message."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify()
        self._call_back()

    def recheck(self) -> None:
        """What ``full()`` says may have changed."""
        with self._changed:
            self._changed.notify()
        self._call_back()

    def open(self) -> None:
        """Hold nobody back any more: the request has ended, or its caller has gone."""
        with self._changed:
            self._open = True
            self._changed.notify_all()
        self._call_back()

    def holds(self) -> bool:
        """Whether a call would block now. From any thread. After a no, the next call does not."""
        with self._changed:
            holds = self._must_wait()
            self._promised = not holds
            return holds

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back, once, when a call would not block any more."""
        self._callbacks.append(callback)
        self._call_back()

    def _call_back(self) -> None:
        if not self._callbacks:
            return
        with self._changed:
            if self._must_wait():
                return
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _must_wait(self) -> bool:
        if self._open:
            return False
        return self._undelivered >= MOST_UNDELIVERED or 0 < self._most <= self._waiting or self._full()
