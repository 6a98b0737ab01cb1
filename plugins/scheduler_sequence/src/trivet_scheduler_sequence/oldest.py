"""The oldest strategy: the next steps of different sequences are batched as they come.

Source: Triton's user guide, "Oldest" of "Stateful Models", and "Dynamic Batcher" for sizes and delay.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from trivet_scheduler_sequence.batcher import Batcher

if TYPE_CHECKING:
    from trivet_scheduler_sequence.sequence import Sequence


class _Group:
    """Sequences whose next steps can share a batch, with the times since when they wait, in that order."""

    __slots__ = ("key", "since")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.since: OrderedDict[Sequence, int] = OrderedDict()

    @property
    def oldest_ns(self) -> int:
        return next(iter(self.since.values()))


class OldestBatcher(Batcher):
    """``sequence_batching { oldest {} }``.

    Without ``preserve_ordering`` a step may be executed before one that came earlier and does not fit into its batch;
    the step that has waited longest is always in the next batch, or the next after a delay.
    """

    def __init__(
        self,
        *args: Any,
        slots: int,
        max_batch_size: int,
        preferred_batch_sizes: Iterable[int],
        max_queue_delay_us: int,
        preserve_ordering: bool,
    ) -> None:
        super().__init__(*args, slots=slots)
        self._max_batch_size = max_batch_size
        self._preferred = sorted(set(preferred_batch_sizes)) or [max_batch_size]
        self._delay_ns = max_queue_delay_us * 1000
        self._in_order = preserve_ordering
        self._groups: list[_Group] = []
        """Not one of them empty; with ``preserve_ordering`` a run each, in the order in which they came."""
        self._group_of: dict[Sequence, _Group] = {}

    def offer(self, sequence: Sequence) -> None:
        group = self._group(self._key(sequence))
        group.since[sequence] = self._context.clock_ns()
        self._group_of[sequence] = group
        self.dispatch()

    def withdraw(self, sequence: Sequence) -> None:
        group = self._group_of.pop(sequence, None)
        if group is not None:
            del group.since[sequence]
            if not group.since:
                self._groups.remove(group)

    def dispatch(self) -> None:
        if self.busy or not self._groups:
            return
        shortest = 0
        for group in self._candidates():
            delay_ns, size = self._size(group)
            if size:
                sequences: list[Sequence | None] = []
                for _ in range(size):
                    sequence, _since = group.since.popitem(last=False)
                    del self._group_of[sequence]
                    sequences.append(sequence)
                if not group.since:
                    self._groups.remove(group)
                self._submit([self._take(sequence) for sequence in sequences if sequence is not None], sequences)
                return
            shortest = min(shortest or delay_ns, delay_ns)
        self._wait(shortest)

    def _group(self, key: Hashable) -> _Group:
        """The group that a step with that key joins."""
        known = self._groups[-1:] if self._in_order else self._groups
        for group in known:
            if group.key == key:
                return group
        group = _Group(key)
        self._groups.append(group)
        return group

    def _candidates(self) -> Iterator[_Group]:
        """The groups that the next batch may be made of, best first."""
        if len(self._groups) == 1 or self._in_order:
            yield self._groups[0]
        else:
            yield from sorted(self._groups, key=lambda group: group.oldest_ns)

    def _size(self, group: _Group) -> tuple[int, int]:
        """For how many nanoseconds the group should wait for more, and how many of it to execute now: one is 0."""
        count = len(group.since)
        size = min(count, self._max_batch_size)
        left_ns = group.oldest_ns + self._delay_ns - self._context.clock_ns()
        exceeded = self._delay_ns > 0 and left_ns <= 0
        fitting = bisect_right(self._preferred, size)
        if fitting and not exceeded:
            return 0, self._preferred[fitting - 1]
        complete = count > size or size >= self._preferred[-1] or (self._in_order and len(self._groups) > 1)
        if complete or exceeded or self.draining or not self._delay_ns:
            return 0, size
        return left_ns, 0
