"""The oldest strategy: the next steps of different sequences are batched as they come.

Source: Triton's user guide, "Oldest" of "Stateful Models", and "Dynamic Batcher" for sizes and delay.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from trivet_scheduler_sequence.batcher import Batcher

if TYPE_CHECKING:
    from trivet_scheduler_sequence.sequence import Sequence


class _Group:
    """Sequences whose next steps can share a batch, with the times since when they wait, in that order."""

    __slots__ = ("key", "name", "since")

    def __init__(self, name: Hashable, key: Hashable) -> None:
        self.name = name
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
        self._groups: dict[Hashable, _Group] = {}
        """Not one of them empty, by their keys; with ``preserve_ordering`` runs of equal keys, by number."""
        self._group_of: OrderedDict[Sequence, _Group] = OrderedDict()
        """Every sequence that waits, in the order in which they came."""
        self._run = 0

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
                del self._groups[group.name]

    def dispatch(self) -> None:
        if self.busy or not self._groups:
            return
        shortest = 0
        for group in self._candidates():
            delay_ns, size = self._size(group)
            if size:
                sequences = list(islice(group.since, size))
                for sequence in sequences:
                    self.withdraw(sequence)
                self._submit([self._take(sequence) for sequence in sequences], [*sequences])
                return
            shortest = shortest or delay_ns
        self._wait(shortest)

    def _group(self, key: Hashable) -> _Group:
        """The group that a step with that key joins."""
        if not self._in_order:
            group = self._groups.get(key)
        else:
            group = self._groups.get(self._run)
            if group is not None and group.key != key:
                group = None
        if group is None:
            self._run += 1
            name: Hashable = self._run if self._in_order else key
            group = self._groups[name] = _Group(name, key)
        return group

    def _candidates(self) -> Iterator[_Group]:
        """The groups that the next batch may be made of, that of whoever waits longest first."""
        first = next(iter(self._group_of.values()))
        yield first
        if not self._in_order:
            yield from [group for group in self._groups.values() if group is not first]

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
