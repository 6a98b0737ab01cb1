"""The ways between the event loop and other threads, each made to wake the other side as seldom as possible."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, TypeVar

T = TypeVar("T")

TURN_NS = 5_000_000
"""How long what threads have posted may keep the loop from everything else, apart from the last item."""


class LoopInbox(Generic[T]):
    """Hands items from any thread to a function on the event loop, with one wake-up for all that arrive together.

    Waking a loop costs a system call and a switch of the interpreter lock, far more than the append it announces; under
    load most items find a wake-up already under way.
    """

    __slots__ = ("_deliver", "_items", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[T], None]) -> None:
        """``deliver`` must not raise: what it raises would drop the items behind it."""
        self._loop = loop
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._scheduled = False

    def post(self, item: T) -> None:
        """From any thread: ``deliver(item)`` will run on the loop, in the order of the calls of one thread."""
        self._items.append(item)
        # The flag is cleared before the loop empties the deque, so an item appended after a stale read of True is
        # still seen by that pass. Two threads may both wake the loop; the second pass then finds nothing.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._take_turn)

    def flush(self) -> None:
        """On the loop: deliver now what was posted."""
        items = self._items
        deliver = self._deliver
        while items:
            deliver(items.popleft())

    def _take_turn(self) -> None:
        """Deliver what was posted, also meanwhile; but threads that post without end get no more than their turn."""
        self._scheduled = False
        items = self._items
        deliver = self._deliver
        end_ns = perf_counter_ns() + TURN_NS
        while items:
            deliver(items.popleft())
            if perf_counter_ns() > end_ns:
                if items and not self._scheduled:
                    self._scheduled = True
                    self._loop.call_soon(self._take_turn)
                return


class LoopOutbox(Generic[T]):
    """Hands items from the event loop to threads that wait for them, with one wake-up for all of one loop iteration.

    A thread that is woken at once competes with the loop for the interpreter lock while the loop still reads what other
    clients sent, and the two take turns request by request. Handing over when the loop has read everything lets it read
    undisturbed, and the thread find all of it.
    """

    __slots__ = ("_items", "_loop", "_queue", "get", "get_nowait", "ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[T] = []
        self._queue: SimpleQueue[T] = SimpleQueue()
        self.get: Callable[[], T] = self._queue.get
        """From any thread: the next item, in the order in which they were put; blocks until there is one."""
        self.get_nowait: Callable[[], T] = self._queue.get_nowait
        """From any thread: the next item. Raises :class:`queue.Empty` where none was handed over yet."""
        self.ready: Callable[[], int] = self._queue.qsize
        """From any thread: how many items were handed over and not taken."""

    def put(self, item: T) -> None:
        """From the event loop; returns at once."""
        if not self._items:
            self._loop.call_soon(self._flush)
        self._items.append(item)

    def __len__(self) -> int:
        """How many items wait. From the event loop."""
        return len(self._items) + self._queue.qsize()

    def _flush(self) -> None:
        items, self._items = self._items, []
        put = self._queue.put
        for item in items:
            put(item)
