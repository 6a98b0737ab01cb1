"""The rate limiter: which instance of any model may execute next, where not all may execute at once.

An instance names resources in ``instance_group.rate_limiter``, each with a count, of its device or of the whole server.
A batch waits here, between scheduler and instance, until its instance can have all of them; they are held until the
execution has ended, however it ended. Among those that wait, whoever had fewest turns, each weighed with the instance's
priority, is first.

Nothing can wait for ever. An instance takes everything at once or nothing, so no two hold what the other wants. One
that is first and cannot have its resources yet reserves them: who comes behind may pass only with resources that it
does not want. And one that comes back from having no work starts level with those it competes with, instead of making
up for turns that it had no use for.

Without ``--rate-limit`` none of this is in the way of a request. Source: Triton's user guide, "Rate Limiter", and its
model configuration, "Rate Limiter Configuration". Everything runs on the event loop.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Protocol

from trivet.resources import Resource, Resources, ResourceSize, Share
from trivet.scheduling import Batch, SchedulableInstance, Scheduler

if TYPE_CHECKING:
    from trivet.engine import EngineOptions
    from trivet.inference import InferenceRequest, InferenceResponse

logger = logging.getLogger(__name__)


class LimitableInstance(Protocol):
    """An instance as the limiter sees it: with a queue that nobody else takes from."""

    submit: Callable[[Batch], None]
    """Replaced by the way through the limiter."""

    @property
    def name(self) -> str:
        """Unique among the instances of one model version."""
        ...


class _Slot:
    """An instance, what it wants, and where it stands."""

    __slots__ = ("active", "busy", "deliver", "instance", "own", "priority", "turns", "wants")

    def __init__(self, instance: LimitableInstance, share: Share) -> None:
        self.instance = instance
        self.deliver = instance.submit
        self.wants = {resource: number for resource, number in share.resources.items() if number > 0}
        self.priority = share.priority
        self.turns = 0
        """Executions so far, each counted as many times as the priority says; who has fewest is next."""
        self.busy = False
        """It executes, and holds what it wants."""
        self.active = False
        """It executes, or there is something for it to execute."""
        self.own: deque[tuple[int, Batch]] = deque()
        """Batches for this instance and no other, with their place in the order of arrival."""


class LimitedModel:
    """The instances of one model version behind the limiter, and the batches that wait for them."""

    def __init__(self, limiter: RateLimiter, slots: Sequence[_Slot]) -> None:
        self._limiter = limiter
        self._slots = {slot.instance.name: slot for slot in slots}
        self._shared: deque[tuple[int, Batch]] = deque()
        self.on_dropped: Callable[[SchedulableInstance, Batch], None] | None = None
        """Told of a batch that waits no more, as nobody waits for its requests: they were cancelled."""
        for slot in slots:
            slot.instance.submit = self._submit_to(slot)

    def submit_any(self, batch: Batch) -> None:
        """Queue a batch for whichever instance may execute first."""
        self._shared.append((self._limiter.next_place(), batch))
        # Behind another that waits, it makes nobody free.
        if len(self._shared) == 1:
            self._limiter.arrived(self)

    def waiting(self) -> int:
        """How many batches of :meth:`submit_any` no instance has yet."""
        return len(self._shared)

    def finish(self, instance: SchedulableInstance, tell: Callable[[], None]) -> None:
        """An execution ended: give back what it held, ``tell`` the scheduler, then see who is next.

        In this order a scheduler that queues the next batch at once keeps its place among those that wait.
        """
        self._limiter.finish(self, self._slots[instance.name], tell)

    def close(self) -> None:
        """The model goes, its requests are answered. What still executes keeps its resources until it ends."""
        self._shared.clear()
        for slot in self._slots.values():
            slot.own.clear()
        self._limiter.remove(self)

    def candidates(self) -> Iterator[tuple[int, int, _Slot]]:
        """Instances that are free and have work: turns, place of the work in the order of arrival, and the instance."""
        for slot in self._slots.values():
            if not slot.busy and (queue := slot.own or self._shared):
                yield slot.turns, queue[0][0], slot

    def has_work(self, slot: _Slot) -> bool:
        """Whether anything waits that this instance may execute."""
        return bool(slot.own or self._shared)

    def take(self, slot: _Slot) -> Batch:
        """The next batch for this instance, which has work. Its own come first, as nobody else executes them."""
        return (slot.own or self._shared).popleft()[1]

    @property
    def slots(self) -> Collection[_Slot]:
        """All instances."""
        return self._slots.values()

    def _submit_to(self, slot: _Slot) -> Callable[[Batch], None]:
        def submit(batch: Batch) -> None:
            slot.own.append((self._limiter.next_place(), batch))
            if len(slot.own) == 1:
                self._limiter.arrived(self)

        return submit


class RateLimiter:
    """Hands out the resources of a server to the instances of all its models."""

    def __init__(self, sizes: Sequence[ResourceSize] = ()) -> None:
        """``sizes`` are those of the command line."""
        self.resources = Resources(sizes)
        self._models: dict[LimitedModel, None] = {}
        self._leaving: set[_Slot] = set()
        self._place = count()
        self._handing_out = False

    def add(self, instances: Sequence[tuple[LimitableInstance, Share]]) -> LimitedModel:
        """Take in the instances of a model version; from now on their ``submit`` leads here.

        Raises :class:`~trivet.errors.InvalidArgumentError` for one that could never execute.
        """
        self.resources.check([share for _, share in instances])
        model = LimitedModel(self, [_Slot(instance, share) for instance, share in instances])
        self._models[model] = None
        self._measure()
        # More of a resource that nobody sized may be enough for somebody who waits.
        self._hand_out()
        return model

    def next_place(self) -> int:
        """The next number in the order in which batches arrive."""
        return next(self._place)

    def arrived(self, model: LimitedModel) -> None:
        """A batch waits for an instance of this model."""
        for slot in model.slots:
            if not slot.active and model.has_work(slot):
                self._join(slot)
        self._hand_out()

    def finish(self, model: LimitedModel, slot: _Slot, tell: Callable[[], None]) -> None:
        """See :meth:`LimitedModel.finish`."""
        if slot.busy:
            slot.busy = False
            self.resources.give_back(slot.wants)
        if slot in self._leaving:
            self._leaving.discard(slot)
            self._measure()
        before, self._handing_out = self._handing_out, True
        try:
            tell()
        finally:
            self._handing_out = before
            slot.active = model.has_work(slot)
            self._hand_out()

    def remove(self, model: LimitedModel) -> None:
        """See :meth:`LimitedModel.close`."""
        if model in self._models:
            del self._models[model]
            self._leaving.update(slot for slot in model.slots if slot.busy)
            self._measure()
            self._hand_out()

    def _slots(self) -> Iterator[_Slot]:
        """All that want resources, or still hold some."""
        for model in self._models:
            yield from model.slots
        yield from self._leaving

    def _measure(self) -> None:
        self.resources.measure(slot.wants for slot in self._slots())

    def _join(self, slot: _Slot) -> None:
        """The instance has work again: it starts level with the least served of those it competes with.

        Where none of them has work now, with the least served of all: whoever happens to come first must not be owed
        the turns that another had while it was alone.
        """
        for resource in slot.wants:
            rivals = [rival for rival in self._slots() if rival is not slot and resource in rival.wants]
            active = [rival for rival in rivals if rival.active]
            slot.turns = max(slot.turns, min([rival.turns for rival in active or rivals], default=0))
        slot.active = True

    def _hand_out(self) -> None:
        """Let execute whoever may. Called again from within, it leaves that to the call that runs."""
        if self._handing_out:
            return
        self._handing_out = True
        try:
            while self._hand_out_one():
                pass
        finally:
            self._handing_out = False

    def _hand_out_one(self) -> bool:
        """Let the first that can have its resources execute. Returns whether there was one."""
        waiting = sorted(
            ((turns, place, number, slot, model)
             for number, model in enumerate(self._models)
             for turns, place, slot in model.candidates()),
            key=lambda entry: entry[:3],
        )  # fmt: skip
        reserved: set[Resource] = set()
        reservations: Counter[LimitedModel] = Counter()
        for *_, slot, model in waiting:
            wants = slot.wants
            if reserved.isdisjoint(wants) and self.resources.suffice(wants):
                self._execute(model, slot)
                return True
            # As many instances of a model reserve as it has batches for.
            if slot.own or reservations[model] < model.waiting():
                reserved.update(wants)
                if not slot.own:
                    reservations[model] += 1
        return False

    def _execute(self, model: LimitedModel, slot: _Slot) -> None:
        batch = model.take(slot)
        if not batch.extra_inputs and all(request.cancelled for request in batch.requests):
            if model.on_dropped is not None:
                model.on_dropped(slot.instance, batch)
        else:
            slot.busy = True
            slot.turns += slot.priority
            self.resources.take(slot.wants)
            slot.deliver(batch)
        for other in model.slots:
            other.active = other.busy or model.has_work(other)


class LimitedScheduler(Scheduler):
    """The scheduler of a model behind the limiter: itself, and the limiter hears of what ended."""

    def __init__(self, scheduler: Scheduler, limited: LimitedModel) -> None:
        super().__init__(scheduler.context)
        self._scheduler = scheduler
        self._limited = limited
        self.orders_responses = scheduler.orders_responses
        limited.on_dropped = scheduler.batch_done

    def enqueue(self, request: InferenceRequest) -> None:
        self._scheduler.enqueue(request)

    def reschedule(self, request: InferenceRequest) -> None:
        self._scheduler.reschedule(request)

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        self._limited.finish(instance, lambda: self._scheduler.batch_done(instance, batch))

    def deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        self._scheduler.deliver(request, response)

    @property
    def queued(self) -> int:
        return self._scheduler.queued

    def drain(self) -> None:
        self._scheduler.drain()

    def close(self) -> None:
        self._scheduler.close()
        self._limited.close()


def rate_limiter_for(options: EngineOptions) -> RateLimiter | None:
    """The limiter that an engine's options ask for; ``None`` where instances execute as they like."""
    if options.rate_limit == "execution_count":
        return RateLimiter(options.rate_limit_resources)
    if options.rate_limit_resources:
        logger.warning("--rate-limit-resource has no effect without --rate-limit=execution_count")
    return None
