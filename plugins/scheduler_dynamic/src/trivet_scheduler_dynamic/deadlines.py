"""When the requests that wait expire."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest

_KEPT = 64


class Deadlines:
    """Requests by deadline. All operations cost O(log n), and a request that was discarded is not kept alive."""

    __slots__ = ("_entries", "_heap", "_numbers", "_requests")

    def __init__(self) -> None:
        self._numbers = count()
        # Numbers stand for requests in the heap, so that what stays there of a discarded one is two integers.
        self._heap: list[tuple[int, int]] = []
        self._entries: dict[InferenceRequest, tuple[int, int]] = {}
        self._requests: dict[int, InferenceRequest] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: InferenceRequest, deadline_ns: int) -> None:
        """The request expires when the clock is past ``deadline_ns``."""
        entry = (deadline_ns, next(self._numbers))
        self._entries[request] = entry
        self._requests[entry[1]] = request
        heapq.heappush(self._heap, entry)

    def discard(self, request: InferenceRequest) -> None:
        """The request waits no more. Does nothing for one that has no deadline."""
        entry = self._entries.pop(request, None)
        if entry is None:
            return
        del self._requests[entry[1]]
        if len(self._heap) > _KEPT + 2 * len(self._entries):
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    @property
    def next_ns(self) -> int | None:
        """The earliest deadline; ``None`` where nothing expires."""
        heap = self._heap
        while heap and heap[0][1] not in self._requests:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expired(self, now_ns: int) -> Iterator[InferenceRequest]:
        """Take out the requests whose deadline has passed, earliest first."""
        heap = self._heap
        while heap and heap[0][0] < now_ns:
            request = self._requests.get(heapq.heappop(heap)[1])
            if request is not None:
                self.discard(request)
                yield request
                heap = self._heap
