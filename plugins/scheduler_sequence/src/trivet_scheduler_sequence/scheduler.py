"""The sequence scheduler: which sequence a request belongs to, which slot it holds, and when it is over.

Source: Triton's user guide, "Stateful Models", and the behaviour of its sequence batcher, whose messages these are.
"""

from __future__ import annotations

import heapq
import logging
from collections import OrderedDict
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from trivet.errors import InvalidArgumentError, RequestCancelledError, TrivetError, UnavailableError, UnimplementedError
from trivet.scheduling import Batch, SchedulableInstance, Scheduler, SchedulerContext

from trivet_scheduler_sequence.compatibility import Compatibility
from trivet_scheduler_sequence.controls import Controls
from trivet_scheduler_sequence.direct import DirectBatcher
from trivet_scheduler_sequence.idle import IdleSequences
from trivet_scheduler_sequence.oldest import OldestBatcher
from trivet_scheduler_sequence.sequence import Sequence, Steps
from trivet_scheduler_sequence.states import States

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest

    from trivet_scheduler_sequence.batcher import Batcher

logger = logging.getLogger(__name__)

_LONGEST_ID = 128
"""Of a text, in bytes of UTF-8, as in Triton."""


class SequenceScheduler(Scheduler):
    """Gives each sequence a slot of an instance for as long as it lives; those that find none wait in a backlog.

    Nothing here looks at all sequences: a request costs the same among ten of them and among ten thousand.
    """

    def __init__(self, context: SchedulerContext) -> None:
        """Raises :class:`~trivet.errors.InvalidArgumentError` for an initial state that cannot be."""
        super().__init__(context)
        config = context.config
        batching = config.sequence_batching
        self._name = config.name
        self._controls = Controls(config)
        self._states = States(config, context.model_path)
        self._iterative = batching.iterative_sequence
        self._generated_ids = count(1)
        self._live: dict[int | str, Sequence] = {}
        """Sequences that a request may join, by correlation ID."""
        self._backlog: OrderedDict[Sequence, None] = OrderedDict()
        self._idle = IdleSequences(context, batching.max_sequence_idle_microseconds, self._end)
        self._rescheduled: set[InferenceRequest] = set()
        self._accepted = 0
        """Requests that waited here, each step of an iterative one counted, less those that were let go of."""
        self._draining = False
        compatibility = Compatibility(context.spec, self._states.variable)
        self._batchers: dict[str, Batcher] = {
            instance.name: self._batcher(place, instance, compatibility)
            for place, instance in enumerate(context.instances)
        }
        self._free = [(slot.order, slot) for batcher in self._batchers.values() for slot in batcher.slots]
        heapq.heapify(self._free)

    # --- requests

    def enqueue(self, request: InferenceRequest) -> None:
        if request.batch_size > 1:
            raise InvalidArgumentError(
                f"inference request to model '{self._name}' must specify batch-size 1 due to requirements of sequence"
                " batcher"
            )
        id = request.correlation_id
        if not id:
            if not self._iterative:
                raise InvalidArgumentError(
                    f"inference request to model '{self._name}' must specify a non-zero or non-empty correlation ID"
                )
            # Known to nobody, so no other request can join.
            request.correlation_id = next(self._generated_ids)
            request.sequence_start = True
            sequence = self._begin(request)
        else:
            known = self._live.get(id)
            if known is None:
                if isinstance(id, str) and len(id.encode(errors="replace")) > _LONGEST_ID:
                    raise UnimplementedError(f"string correlation ID cannot be longer than {_LONGEST_ID} characters")
                if not request.sequence_start:
                    raise InvalidArgumentError(
                        f"inference request for sequence {id} to model '{self._name}' must specify the START flag on"
                        " the first request of the sequence"
                    )
                self._controls.check(id)
                sequence = self._live[id] = self._begin(request)
            else:
                sequence = known
                if request.sequence_start:
                    logger.warning(
                        "sequence %s for model '%s' has a conflict. The previous sequence did not end before this"
                        " sequence start. Previous sequence will be terminated early.",
                        id,
                        self._name,
                    )
            if request.sequence_end:
                # Whoever starts a sequence of this ID next has a new one, even while this one still has requests.
                sequence.ended = True
                del self._live[id]
        request.on_cancel = partial(self._cancelled, sequence)
        sequence.waiting.append(request)
        self._accepted += 1
        if sequence.slot is None:
            if request.timeout_us:
                self._limit_backlog(sequence, request.timeout_us)
        elif sequence.running is None:
            self._idle.discard(sequence)
            if len(sequence.waiting) == 1:
                sequence.slot.batcher.offer(sequence)

    def reschedule(self, request: InferenceRequest) -> None:
        if not self._iterative:
            raise InvalidArgumentError(
                f"model '{self._name}' reschedules a request, which needs 'iterative_sequence' of sequence_batching"
            )
        request.sequence_start = request.sequence_end = False
        self._rescheduled.add(request)
        if request.on_done is not None:
            # Its batch is done already, and waits for it.
            go_on, request.on_done = request.on_done, None
            go_on(request)

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        assert isinstance(batch, Steps)
        batcher = self._batchers[instance.name]
        for request, sequence in zip(batch.requests, batch.sequences, strict=True):
            if sequence is None:
                continue
            if request.done or request in self._rescheduled:
                self._step_done(sequence, batch, request)
            else:
                # The model keeps the request and answers it later; the sequence goes on then.
                request.on_done = partial(self._step_done, sequence, batch)
        # Only now, so that all sequences of this batch that go on can be in the next one.
        batcher.busy = False
        batcher.dispatch()

    @property
    def queued(self) -> int:
        return self._accepted - sum([batcher.taken for batcher in self._batchers.values()])

    def drain(self) -> None:
        self._draining = True
        for batcher in self._batchers.values():
            batcher.draining = True
        # Sequences that live on cost nothing; a request that was accepted before may still lead to one for them.
        while self._backlog and self._idle:
            self._idle.expire_first()
        for batcher in self._batchers.values():
            batcher.dispatch()

    def close(self) -> None:
        self._idle.close()
        for batcher in self._batchers.values():
            batcher.close()

    # --- sequences

    def _begin(self, request: InferenceRequest) -> Sequence:
        """A new sequence, in a slot where one is free."""
        id = request.correlation_id
        sequence = Sequence(id, self._controls.correlation_id(id), self._states.initial)
        if self._free:
            _, slot = heapq.heappop(self._free)
            slot.sequence = sequence
            sequence.slot = slot
        else:
            self._backlog[sequence] = None
        return sequence

    def _step_done(self, sequence: Sequence, batch: Steps, request: InferenceRequest) -> None:
        """The request was executed and has its final response, or goes on with another step."""
        sequence.running = None
        results = batch.extra_results.get(request)
        if results:
            sequence.states = self._states.following(sequence.states, results)
        if request in self._rescheduled:
            self._rescheduled.discard(request)
            request.on_cancel = partial(self._cancelled, sequence)
            sequence.waiting.appendleft(request)
            self._accepted += 1
        elif self._iterative:
            self._end(sequence)
            return
        slot = sequence.slot
        if slot is None:
            return
        if sequence.waiting:
            slot.batcher.offer(sequence)
        elif sequence.ended or (self._draining and self._backlog):
            self._end(sequence)
        else:
            self._idle.add(sequence)

    def _end(self, sequence: Sequence, error: TrivetError | None = None) -> None:
        """No step of it will be executed any more; requests that still wait are answered with an error."""
        if self._live.get(sequence.id) is sequence:
            del self._live[sequence.id]
        sequence.ended = True
        if sequence.timer is not None:
            sequence.timer.cancel()
            sequence.timer = None
        self._idle.discard(sequence)
        self._backlog.pop(sequence, None)
        waiting = list(sequence.waiting)
        self._accepted -= len(waiting)
        sequence.waiting.clear()
        if sequence.slot is not None:
            sequence.slot.batcher.withdraw(sequence)
            if sequence.running is None:
                self._release(sequence)
        for request in waiting:
            request.on_cancel = None
            if not request.cancelled:
                self.context.reject(request, error or self._cancellation(sequence))

    def _release(self, sequence: Sequence) -> None:
        """Give the sequence's slot to the next of the backlog."""
        slot = sequence.slot
        assert slot is not None
        sequence.slot = None
        if self._backlog:
            following, _ = self._backlog.popitem(last=False)
            if following.timer is not None:
                following.timer.cancel()
                following.timer = None
            slot.sequence = following
            following.slot = slot
            slot.batcher.offer(following)
        else:
            slot.sequence = None
            heapq.heappush(self._free, (slot.order, slot))

    def _cancelled(self, sequence: Sequence, request: InferenceRequest) -> None:
        """A waiting request is cancelled, and its sequence with it: a model cannot go on without that step."""
        self._end(sequence)

    def _cancellation(self, sequence: Sequence) -> TrivetError:
        return RequestCancelledError(f"sequence {sequence.id} of model '{self._name}' ended with a cancelled request")

    def _limit_backlog(self, sequence: Sequence, timeout_us: int) -> None:
        """A sequence leaves the backlog when the first of its requests has waited too long."""
        deadline_ns = self.context.clock_ns() + timeout_us * 1000
        if sequence.timer is not None:
            if deadline_ns >= sequence.deadline_ns:
                return
            sequence.timer.cancel()
        sequence.deadline_ns = deadline_ns
        expired = UnavailableError("timeout of the corresponding sequence has been expired")
        sequence.timer = self.context.call_later(timeout_us / 1e6, partial(self._end, sequence, expired))

    # --- instances

    def _batcher(self, place: int, instance: SchedulableInstance, compatibility: Compatibility) -> Batcher:
        batching = self.context.config.sequence_batching
        batch_size = max(self.context.spec.max_batch_size, 1)
        common = (self.context, instance, place, self._controls, self._states, compatibility)
        if not batching.HasField("oldest"):
            return DirectBatcher(
                *common,
                slots=batch_size,
                max_queue_delay_us=batching.direct.max_queue_delay_microseconds,
                minimum_slot_utilization=batching.direct.minimum_slot_utilization,
            )
        oldest = batching.oldest
        return OldestBatcher(
            *common,
            slots=max(oldest.max_candidate_sequences, 0) or batch_size,
            max_batch_size=batch_size,
            preferred_batch_sizes=oldest.preferred_batch_size,
            max_queue_delay_us=oldest.max_queue_delay_microseconds,
            preserve_ordering=oldest.preserve_ordering,
        )
