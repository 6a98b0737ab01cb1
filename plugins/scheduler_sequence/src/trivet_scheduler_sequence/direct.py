"""The direct strategy: a sequence's slot is its row of the batch.

Source: Triton's user guide, "Direct" of "Stateful Models", and what its Python backend shows a model. A batch reaches
to the highest slot that has a request; slots below it that have none are filled with rows whose READY is false.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trivet_scheduler_sequence.batcher import Batcher

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest

    from trivet_scheduler_sequence.sequence import Sequence


class DirectBatcher(Batcher):
    """``sequence_batching { direct {} }``, also where no strategy is chosen."""

    def __init__(self, *args: Any, slots: int, max_queue_delay_us: int, minimum_slot_utilization: float) -> None:
        super().__init__(*args, slots=slots)
        self._delay_ns = max_queue_delay_us * 1000
        self._utilization = minimum_slot_utilization
        self._ready: set[int] = set()
        """Slots whose sequences have a request to execute."""

    def offer(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._ready.add(sequence.slot.number)
        self.dispatch()

    def withdraw(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._ready.discard(sequence.slot.number)

    def dispatch(self) -> None:
        if self.busy or not self._ready:
            return
        delay_ns = self._delay_left_ns()
        if delay_ns > 0:
            self._wait(delay_ns)
            return
        first = self._sequence(min(self._ready))
        key = self._key(first)
        rows: list[Sequence | None] = [
            sequence if number in self._ready and self._key(sequence := self._sequence(number)) == key else None
            for number in range(max(self._ready) + 1)
        ]
        requests = [None if sequence is None else self._take(sequence) for sequence in rows]
        self._ready.difference_update(number for number, sequence in enumerate(rows) if sequence is not None)
        assert first.running is not None
        self._submit([request or self._null(first.running) for request in requests], rows)

    def _sequence(self, number: int) -> Sequence:
        sequence = self.slots[number].sequence
        assert sequence is not None
        return sequence

    def _delay_left_ns(self) -> int:
        """How long the requests that wait may still wait for others; 0 where they need not."""
        if self.draining or not self._delay_ns or not self._utilization:
            return 0
        if len(self._ready) >= self._utilization * len(self.slots):
            return 0
        oldest = min(_first(self._sequence(number)).queued_ns for number in self._ready)
        return max(oldest + self._delay_ns - self._context.clock_ns(), 0)


def _first(sequence: Sequence) -> InferenceRequest:
    return sequence.waiting[0]
