"""When requests that fit together go, and how many of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet_scheduler_dynamic.groups import Group


class BatchRule:
    """Triton's rule for the next batch, over the requests of one group in their order.

    Source: Triton's user guide, "Dynamic Batcher"; where it is silent, what Triton's ``DynamicBatchScheduler`` does.

    * A batch never has more rows than ``limit``.
    * As long as no request has waited for ``delay_ns``, the largest preferred size that can be made goes at once; where
      the requests there overshoot the largest preferred size without meeting one, as many go as stay below it.
    * What cannot grow any more, or was delayed long enough, goes as it is; with no delay everything goes at once.
    """

    __slots__ = ("delay_ns", "limit", "preferred", "since_ns", "top")

    def __init__(self, limit: int, preferred: Collection[int], delay_ns: int) -> None:
        self.limit = limit
        self.preferred = frozenset(preferred) - {limit}
        """Sizes below ``limit`` that are worth not waiting for more."""
        self.top = max(preferred, default=0)
        """The largest preferred size; 0 where there is none, and then nothing is worth waiting for."""
        self.delay_ns = delay_ns
        self.since_ns = 0
        """Nothing that waited before counts as delay. 0 for Triton's delays, which count from a request's arrival."""

    def due_ns(self, group: Group) -> int:
        """When the group's requests have been delayed long enough."""
        return max(group.oldest_ns(), self.since_ns) + self.delay_ns

    def change(self, limit: int, delay_ns: int) -> bool:
        """Batches of up to ``limit`` rows from now on, which is the one preferred size; True where that is new."""
        if (limit, delay_ns) == (self.limit, self.delay_ns):
            return False
        self.limit = self.top = limit
        self.preferred = frozenset()
        self.delay_ns = delay_ns
        return True

    def count(self, group: Group, now_ns: int) -> int:
        """How many of the group's requests, of which there is at least one, go now; 0 to wait."""
        rows = group.rows
        if self.preferred or self.top != self.limit:
            return self._count(group, now_ns)
        # The one preferred size is the largest possible batch, which is the default.
        if rows < self.limit:
            waits = self.delay_ns and now_ns < self.due_ns(group)
            return 0 if waits else len(group)
        return self._fitting(group)

    def full(self, group: Group) -> bool:
        """Whether more requests could not make the group's next batch larger."""
        return group.rows >= self.limit

    def _fitting(self, group: Group) -> int:
        """How many go into one batch."""
        total = len(group)
        if group.rows == total:  # each is one row
            return min(total, self.limit)
        rows = count = 0
        for request in group:
            rows += request.batch_size
            if rows > self.limit and count:
                return count
            count += 1
        return count

    def _count(self, group: Group, now_ns: int) -> int:
        delay_ns, top = self.delay_ns, self.top
        rows = count = best = 0
        ended = False
        for request in group:
            size = request.batch_size
            if count:
                if rows + size > top and not best:
                    best = count
                if rows + size > self.limit:
                    ended = True
                    break
            rows += size
            count += 1
            if rows in self.preferred or rows == top:
                best = count
        delayed = delay_ns != 0 and now_ns >= self.due_ns(group)
        if best and not delayed:
            return best
        if ended or rows >= top or delayed or delay_ns == 0:
            return count
        return 0
