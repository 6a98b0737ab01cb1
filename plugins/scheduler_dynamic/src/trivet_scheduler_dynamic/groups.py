"""The requests that wait, in groups of those that fit together, and which group is next.

A group is next when its batch may go (:class:`~trivet_scheduler_dynamic.rule.BatchRule`); among several of those, the
one whose first request has the highest priority and, at equal priority, came first. So no group starves another of the
same priority, however many requests the other one gets.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest

    from trivet_scheduler_dynamic.compatibility import Key
    from trivet_scheduler_dynamic.rule import BatchRule

Lane = OrderedDict["InferenceRequest", int]
"""Requests of one group and rank in the order in which they came, with when that was (ns). Taking the first and
removing any are O(1), and nothing of a removed request stays."""

_KEPT = 64


class Group:
    """Requests that fit together, by rank (the lowest goes first) and then in the order in which they came."""

    __slots__ = ("_lanes", "_ranks", "best", "key", "rows", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.rows = 0
        """The sum of the requests' batch sizes."""
        self._lanes: dict[int, Lane] = {}
        self._ranks: list[int] = []
        self.best: tuple[int, int] | None = None
        """The entry that stands for this group among those whose batch may go (see :class:`Groups`)."""
        self.waiting = False
        """Whether it has an entry among those that are delayed."""

    def __len__(self) -> int:
        ranks = self._ranks
        if len(ranks) == 1:
            return len(self._lanes[ranks[0]])
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[InferenceRequest]:
        for rank in self._ranks:
            yield from self._lanes[rank]

    def add(self, request: InferenceRequest, rank: int, now_ns: int) -> None:
        lane = self._lanes.get(rank)
        if lane is None:
            lane = self._lanes[rank] = OrderedDict()
            insort(self._ranks, rank)
        lane[request] = now_ns
        self.rows += request.batch_size

    def remove(self, request: InferenceRequest, rank: int) -> int | None:
        """Take one request out of its place; gives when it came, ``None`` where it is not there."""
        lane = self._lanes.get(rank)
        came_ns = lane.pop(request, None) if lane is not None else None
        if came_ns is None:
            return None
        self.rows -= request.batch_size
        if not lane:
            self._drop(rank)
        return came_ns

    def head(self) -> tuple[int, int]:
        """Rank of the first request, and when it came."""
        rank = self._ranks[0]
        return rank, next(iter(self._lanes[rank].values()))

    def oldest_ns(self) -> int:
        """When the request that waits longest came."""
        lanes = self._lanes
        if len(lanes) == 1:
            return next(iter(lanes[self._ranks[0]].values()))
        return min(next(iter(lane.values())) for lane in lanes.values())

    def take(self, count: int) -> list[InferenceRequest]:
        """Take out the first ``count`` requests, at most as many as there are."""
        taken: list[InferenceRequest] = []
        while count:
            rank = self._ranks[0]
            lane = self._lanes[rank]
            if len(lane) <= count:
                taken += lane
                count -= len(lane)
                self._drop(rank)
            else:
                pop = lane.popitem
                taken += [pop(last=False)[0] for _ in range(count)]
                break
        self.rows -= sum([request.batch_size for request in taken])
        return taken

    def take_rank(self, rank: int, limit: int) -> list[InferenceRequest]:
        """Take out the first requests of one rank, as many as go into a batch of ``limit`` rows, at least one."""
        rows = 0
        taken: list[InferenceRequest] = []
        for request in self._lanes[rank]:
            rows += request.batch_size
            if rows > limit and taken:
                break
            taken.append(request)
        for request in taken:
            self.remove(request, rank)
        return taken

    def _drop(self, rank: int) -> None:
        del self._lanes[rank]
        self._ranks.remove(rank)


class Groups:
    """All groups of a model: which are there, and which is next.

    Each group has an entry in one of two heaps: by its first request where its batch may go, by time where it is
    delayed. Entries are corrected when they come up and not when something changes, so that a change costs nothing.
    """

    def __init__(self, rule: BatchRule, key: Key | None) -> None:
        self._rule = rule
        self._key = key
        self._groups: dict[Hashable, Group] = {}
        self._ready: list[tuple[tuple[int, int], int, Group]] = []
        self._delayed: list[tuple[int, int, Group]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._groups)

    def find(self, request: InferenceRequest) -> Group | None:
        """The group in which this request would wait; ``None`` where there is none."""
        return self._groups.get(self._key(request) if self._key is not None else None)

    def add(self, request: InferenceRequest, rank: int, now_ns: int) -> Group:
        """Put a request into its group."""
        key = self._key(request) if self._key is not None else None
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
        group.add(request, rank, now_ns)
        best = group.best
        if best is None or rank < best[0]:
            self._place(group, now_ns)
        return group

    def changed(self, group: Group, now_ns: int) -> None:
        """Requests were taken out of this group, or moved within it."""
        if not group.rows:
            del self._groups[group.key]
            group.best = None
            group.waiting = False
            self._tidy()
        elif group.best is None or group.head() < group.best:
            self._place(group, now_ns)

    def next(self, now_ns: int) -> tuple[Group, int] | None:
        """The group that is next and how many of its requests go; ``None`` while nothing is to go."""
        self._wake(now_ns)
        ready = self._ready
        while ready:
            entry, _, group = ready[0]
            if group.best != entry:
                heapq.heappop(ready)
                continue
            head = group.head()
            if head > entry:  # who was first there has left
                group.best = head
                heapq.heapreplace(ready, (head, next(self._number), group))
                continue
            wanted = self._rule.count(group, now_ns)
            if wanted:
                return group, wanted
            heapq.heappop(ready)
            group.best = None
            self._delay(group)
        return None

    def take(self, group: Group, wanted: int, now_ns: int) -> list[InferenceRequest]:
        """Take out the requests that :meth:`next` has named."""
        taken = group.take(wanted)
        group.best = None
        self.changed(group, now_ns)
        return taken

    def take_rank(self, group: Group, rank: int, now_ns: int) -> list[InferenceRequest]:
        """Take a batch of one rank out of a group, whether it is next or not."""
        taken = group.take_rank(rank, self._rule.limit)
        group.best = None
        self.changed(group, now_ns)
        return taken

    @property
    def due_ns(self) -> int | None:
        """When a delayed group may have been delayed long enough; ``None`` where none is."""
        delayed = self._delayed
        while delayed and not delayed[0][2].waiting:
            heapq.heappop(delayed)
        return delayed[0][0] if delayed else None

    def reconsider(self, now_ns: int) -> None:
        """The rule has changed."""
        self._ready.clear()
        self._delayed.clear()
        for group in self._groups.values():
            group.best = None
            group.waiting = False
            self._place(group, now_ns)

    def _place(self, group: Group, now_ns: int) -> None:
        """Give the group the entry that it should have now."""
        if group.best is None and not self._rule.count(group, now_ns):
            self._delay(group)
            return
        group.best = group.head()
        heapq.heappush(self._ready, (group.best, next(self._number), group))

    def _delay(self, group: Group) -> None:
        if not group.waiting:
            group.waiting = True
            heapq.heappush(self._delayed, (self._rule.due_ns(group), next(self._number), group))

    def _wake(self, now_ns: int) -> None:
        """Let go of what was delayed long enough."""
        delayed = self._delayed
        while delayed and delayed[0][0] <= now_ns:
            group = heapq.heappop(delayed)[2]
            if group.waiting:
                group.waiting = False
                if group.best is None:
                    self._place(group, now_ns)

    def _tidy(self) -> None:
        """Drop the entries of groups that are gone, once they are the most."""
        limit = _KEPT + 2 * len(self._groups)
        if len(self._ready) > limit:
            self._ready = [entry for entry in self._ready if entry[2].best == entry[0]]
            heapq.heapify(self._ready)
        if len(self._delayed) > limit:
            self._delayed = [entry for entry in self._delayed if entry[2].waiting]
            heapq.heapify(self._delayed)
