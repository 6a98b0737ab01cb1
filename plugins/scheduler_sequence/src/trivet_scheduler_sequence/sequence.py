"""A sequence, and the slot of an instance that it holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trivet.scheduling import Batch

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest
    from trivet.tensor import Tensor

    from trivet_scheduler_sequence.batcher import Batcher


class Sequence:
    """Requests of one correlation ID, in their order. At most one of them, a step, is executed at a time."""

    __slots__ = ("correlation", "deadline_ns", "ended", "id", "running", "slot", "states", "timer", "waiting")

    def __init__(self, id: int | str, correlation: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> None:
        self.id = id
        self.correlation = correlation
        """The control input that tells the model the ID, if it has one."""
        self.states = states
        """What the next step gets of its predecessor, by input name."""
        self.waiting: deque[InferenceRequest] = deque()
        self.running: InferenceRequest | None = None
        """The step that an instance has."""
        self.slot: Slot | None = None
        """``None`` while the sequence is in the backlog, and when it is over."""
        self.ended = False
        """No request will be added; the sequence is over when those that wait are answered."""
        self.timer: Any = None
        """Ends it if it is still in the backlog at ``deadline_ns``, when a request's timeout has passed."""
        self.deadline_ns = 0


class Slot:
    """A place for one sequence at one instance; with the direct strategy also its row in every batch."""

    __slots__ = ("batcher", "number", "order", "sequence")

    def __init__(self, batcher: Batcher, number: int, place: int) -> None:
        self.batcher = batcher
        self.number = number
        self.order = (number, place)
        """Low slots first, over all instances: they fill at the same rate, and batches stay as small as possible."""
        self.sequence: Sequence | None = None


class Steps(Batch):
    """A batch of steps. ``sequences`` has one for each request, ``None`` for a row that only fills a slot."""

    __slots__ = ("sequences",)

    sequences: list[Sequence | None]
