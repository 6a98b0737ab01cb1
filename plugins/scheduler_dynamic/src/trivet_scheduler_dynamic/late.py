"""Requests that can no longer be answered within the objective go behind those that can.

In an overload that is what keeps answers useful: first come, first served would let every request wait until it is too
late. Nobody is refused, and nobody starves: one batch in :data:`EVERY` is for those that are late.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest

    from trivet_scheduler_dynamic.groups import Group

EVERY = 16


class LateRequests:
    """Who is late, in the order in which they became so. They wait in their groups, one rank behind."""

    def __init__(self) -> None:
        self._groups: OrderedDict[InferenceRequest, tuple[Group, int]] = OrderedDict()
        self._batches = 0

    def __len__(self) -> int:
        return len(self._groups)

    def put_behind(self, group: Group, came_before_ns: int) -> bool:
        """Put those at the head of a group behind that came before a time; True where there was one."""
        moved = False
        while group.rows:
            rank, came_ns = group.head()
            if rank % 2 or came_ns >= came_before_ns:
                break
            request = next(iter(group))
            group.remove(request, rank)
            group.add(request, rank + 1, came_ns)
            self._groups[request] = (group, rank + 1)
            moved = True
        return moved

    def turn(self) -> bool:
        """A batch is to be formed; True where it is the turn of those that are late."""
        if not self._groups:
            self._batches = 0
            return False
        self._batches += 1
        return self._batches % EVERY == 0

    def first(self) -> tuple[Group, int]:
        """The group and the rank of whoever is late for longest."""
        return next(iter(self._groups.values()))

    def leave(self, requests: Iterable[InferenceRequest]) -> None:
        """These wait no more."""
        if self._groups:
            for request in requests:
                self._groups.pop(request, None)
