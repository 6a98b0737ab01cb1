"""Batches on their way to a collector: a bounded queue, and a thread that encodes and sends.

Source: the OpenTelemetry specification, "Batch Span Processor": what does not fit into the queue is dropped and
counted, and nobody waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from trivet_exporter_opentelemetry.options import Batching
from trivet_exporter_opentelemetry.sender import Sender, SendError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOG_EVERY_S = 60.0


class Batcher(Generic[T]):
    """Sends items of one signal. An item may stand for several things that are counted (a trace for its spans)."""

    def __init__(
        self,
        what: str,
        sender: Sender,
        batching: Batching,
        encode: Callable[[Sequence[T]], bytes],
        dropped: Callable[[int], None],
    ) -> None:
        """``encode`` runs on the batcher's thread; ``dropped`` hears of losses, on any thread."""
        self._what = what
        self._sender = sender
        self._max_queue = batching.max_queue
        self._max_batch = batching.max_batch
        self._delay_s = batching.delay_s
        self._encode = encode
        self._dropped = dropped
        self._items: deque[tuple[T, int]] = deque()
        # Each is written by one side only, so that neither waits for a lock.
        self._added = 0
        self._taken = 0
        self._lost = 0
        self._last_log = -_LOG_EVERY_S
        self._losing = threading.Lock()
        self._full = threading.Event()
        """There is a batch, or an end."""
        self._closing = False
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"otlp-{what}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, item: T, things: int = 1) -> None:
        """Queue an item, or drop it where there is no room; waits for nobody. From one thread at a time."""
        before = self._added - self._taken
        waiting = before + things
        if waiting > self._max_queue or self._closing:
            self._lose(things, "the queue is full (bsp_max_queue_size)")
            return
        self._items.append((item, things))
        self._added += things
        if waiting >= self._max_batch > before:
            self._full.set()

    def close(self, grace_s: float) -> None:
        """Send what is left, for at most so many seconds; on a worker thread."""
        if not self._thread.is_alive():
            return
        self._deadline = time.monotonic() + grace_s
        self._closing = True
        # One try each, now.
        self._sender.close()
        self._full.set()
        self._thread.join(grace_s)

    def _run(self) -> None:
        while True:
            self._full.wait(self._delay_s)
            self._full.clear()
            while batch := self._take():
                self._send(batch)
                if self._added - self._taken < self._max_batch and not self._closing:
                    break
            if self._closing and not self._items:
                self._sender.disconnect()
                return

    def _take(self) -> list[tuple[T, int]]:
        batch: list[tuple[T, int]] = []
        things = 0
        items = self._items
        while items and (not batch or things + items[0][1] <= self._max_batch):
            item = items.popleft()
            batch.append(item)
            things += item[1]
        self._taken += things
        return batch

    def _send(self, batch: Sequence[tuple[T, int]]) -> None:
        things = sum(count for _, count in batch)
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._lose(things, "the server stops")
            return
        try:
            self._sender.send(self._encode([item for item, _ in batch]))
        except SendError as error:
            self._lose(things, str(error))
        except Exception:
            logger.exception("%d %s cannot be encoded", things, self._what)
            self._dropped(things)

    def _lose(self, things: int, why: str) -> None:
        self._dropped(things)
        with self._losing:
            self._lost += things
            now = time.monotonic()
            if now - self._last_log < _LOG_EVERY_S:
                return
            self._last_log = now
            lost, self._lost = self._lost, 0
        logger.warning("%d %s were not delivered to the collector: %s", lost, self._what, why)
