"""The dynamic batcher: requests wait in groups, and a batch is formed when an instance is free for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trivet.scheduling import Batch, SchedulableInstance, Scheduler, SchedulerContext

from trivet_scheduler_dynamic.adaptation import Adaptation, objective_of
from trivet_scheduler_dynamic.compatibility import batch_key
from trivet_scheduler_dynamic.deadlines import Deadlines
from trivet_scheduler_dynamic.groups import Group, Groups
from trivet_scheduler_dynamic.late import LateRequests
from trivet_scheduler_dynamic.ordering import ResponseOrder
from trivet_scheduler_dynamic.policies import Levels, eager, queue_is_full, timeout_expired
from trivet_scheduler_dynamic.rule import BatchRule

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest, InferenceResponse


class DynamicBatcher(Scheduler):
    """Triton's dynamic batcher, on the event loop.

    A batch is formed at the last moment, when an instance is free: while the instances compute, the next batches fill
    up. Where nothing is lost by it, namely when a batch is full and its requests can neither expire nor be overtaken,
    one batch per instance is handed over ahead, so that an instance need not wait for the loop between two batches.
    """

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        config = context.config
        batching = config.dynamic_batching
        self._clock = context.clock_ns
        self._submit = context.submit_any
        self._rule = BatchRule(
            limit=max(1, config.max_batch_size),
            preferred=batching.preferred_batch_size,
            delay_ns=batching.max_queue_delay_microseconds * 1000,
        )
        self._instances = len(context.instances)
        objective_ns = objective_of(config)
        self._adaptation = (
            Adaptation(self._rule, objective_ns=objective_ns, instances=self._instances) if objective_ns else None
        )
        self._late = LateRequests()
        self._groups = Groups(self._rule, batch_key(context.spec))
        self._waiting = 0
        self._levels = Levels(batching)
        self._deadlines = Deadlines()
        self._sizes: dict[int, int] = {}
        """Requests that wait, by level."""
        only = self._levels.only_policy
        self._max_waiting = only.max_size if only is not None else 0
        self._plain = only is not None and not only.timeout_ns
        """Whether the queue is one level whose requests never expire, so that a request's rank is always 0."""
        self._order: ResponseOrder | None = None
        if batching.preserve_ordering:
            assert context.answer is not None
            self._order = ResponseOrder(context.answer)
        self.orders_responses = self._order is not None

        self._submitted: list[Batch] = []
        """Batches that no instance has finished, in the order in which the instances take them."""
        # With an objective a request may turn out late at the last moment.
        ahead = (self._levels.prefetchable and self._adaptation is None) or eager(config)
        self._most_submitted = self._instances * (2 if ahead else 1)
        self._eager = eager(config)
        self._timer: Any = None
        self._timer_ns = 0
        self._on_cancel = self._cancelled
        self._on_late_cancel = self._order.remove if self._order is not None else None

    def enqueue(self, request: InferenceRequest) -> None:
        self._enqueue(request, request.queued_ns)

    def reschedule(self, request: InferenceRequest) -> None:
        self._enqueue(request, self._clock())

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        self._submitted.remove(batch)
        if self._adaptation is not None:
            now_ns = self._clock()
            if self._adaptation.executed(batch.requests, now_ns):
                self._groups.reconsider(now_ns)
        if self._waiting:
            self._dispatch(self._clock())

    @property
    def queued(self) -> int:
        ahead = self.context.waiting()
        return self._waiting + (sum(len(batch.requests) for batch in self._submitted[-ahead:]) if ahead else 0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        assert self._order is not None
        self._order.deliver(request, response)

    # --- into the queue

    def _enqueue(self, request: InferenceRequest, now_ns: int) -> None:
        rank = 0
        if not self._plain:
            rank = self._admit(request, now_ns)
        elif self._max_waiting and self._waiting >= self._max_waiting:
            raise queue_is_full(request)
        request.on_cancel = self._on_cancel
        if self._order is not None:
            self._order.add(request)
        group = self._groups.add(request, rank, now_ns)
        self._waiting += 1
        if self._adaptation is not None:
            self._adaptation.rate.add(request.batch_size)
        submitted = len(self._submitted)
        if submitted < self._instances or (submitted < self._most_submitted and self._may_go_ahead(group)):
            self._dispatch(now_ns)
        elif not self._plain:
            self._arm(now_ns)

    def _admit(self, request: InferenceRequest, now_ns: int) -> int:
        """Apply the policy of the request's level; gives its rank."""
        level = self._levels.level_of(request)
        policy = self._levels.policy(level)
        size = self._sizes.get(level, 0)
        if policy.max_size and size >= policy.max_size:
            raise queue_is_full(request)
        self._sizes[level] = size + 1
        timeout_ns = policy.timeout_of(request)
        if timeout_ns:
            self._deadlines.add(request, now_ns + timeout_ns)
        return _rank(level)

    # --- out of the queue

    def _dispatch(self, now_ns: int) -> None:
        """Submit what there are instances for."""
        if not self._plain:
            self._expire(now_ns)
        groups = self._groups
        while self._waiting:
            submitted = len(self._submitted)
            if submitted >= self._most_submitted:
                break
            found = groups.next(now_ns)
            if found is None:
                break
            group, count = found
            if submitted >= self._instances and not self._may_go_ahead(group):
                break
            if self._adaptation is not None:
                came_before_ns = now_ns - self._adaptation.longest_wait_ns(group.rows)
                # Where responses are ordered, whoever is late would hold up all behind.
                if self._order is None and self._late.put_behind(group, came_before_ns):
                    groups.changed(group, now_ns)
                    continue
                if self._late.turn():
                    group, rank = self._late.first()
                    requests = groups.take_rank(group, rank, now_ns)
                else:
                    requests = groups.take(group, count, now_ns)
            else:
                requests = groups.take(group, count, now_ns)
            self._left(requests)
            batch = Batch(requests)
            self._submitted.append(batch)
            self._submit(batch)
        if self._waiting and (self._rule.delay_ns or not self._plain):
            self._arm(now_ns)

    def _may_go_ahead(self, group: Group) -> bool:
        """Whether the group's next batch is as good now as it will be when an instance is free for it."""
        return self._eager or self._rule.full(group)

    def _left(self, requests: list[InferenceRequest]) -> None:
        """These requests wait no more."""
        self._waiting -= len(requests)
        # A model may change the inputs by which a request's group is found.
        for request in requests:
            request.on_cancel = self._on_late_cancel
        self._late.leave(requests)
        if not self._plain:
            for request in requests:
                self._forget(request)

    def _forget(self, request: InferenceRequest) -> None:
        """Drop what the policies keep of a request."""
        self._deadlines.discard(request)
        level = self._levels.level_of(request)
        left = self._sizes[level] - 1
        if left:
            self._sizes[level] = left
        else:
            del self._sizes[level]

    def _cancelled(self, request: InferenceRequest) -> None:
        """``on_cancel`` of the requests that wait."""
        self._remove(request)
        self._left([request])
        if self._order is not None:
            self._order.remove(request)

    def _remove(self, request: InferenceRequest) -> None:
        """Take a request that waits out of its group."""
        group = self._groups.find(request)
        assert group is not None
        rank = 0 if self._plain else _rank(self._levels.level_of(request))
        if group.remove(request, rank) is None:
            group.remove(request, rank + 1)
        self._groups.changed(group, self._clock())

    # --- time

    def _expire(self, now_ns: int) -> None:
        """Reject or delay the requests that have waited too long."""
        for request in self._deadlines.expired(now_ns):
            rank = _rank(self._levels.level_of(request))
            if self._levels.policy(rank >> 1).delays:
                group = self._groups.find(request)
                assert group is not None
                came_ns = group.remove(request, rank)
                if came_ns is not None:
                    group.add(request, rank + 1, came_ns)
                    self._groups.changed(group, now_ns)
                continue
            self._remove(request)
            self._left([request])
            if self._order is not None:
                self._order.remove(request)
            self.context.reject(request, timeout_expired())

    def _arm(self, now_ns: int) -> None:
        """Be woken when a delay or a deadline is over, whichever is first."""
        deadline_ns = self._deadlines.next_ns
        # A deadline is missed when the clock is past it.
        due_ns = None if deadline_ns is None else deadline_ns + 1
        if len(self._submitted) < self._instances:
            delay_ns = self._groups.due_ns
            if delay_ns is not None and (due_ns is None or delay_ns < due_ns):
                due_ns = delay_ns
        if due_ns is None:
            return
        if self._timer is not None:
            if self._timer_ns <= due_ns:
                return  # it comes early, and is set again then
            self._timer.cancel()
        self._timer_ns = due_ns
        self._timer = self.context.call_later(max(0, due_ns - now_ns) / 1e9, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._dispatch(self._clock())


def _rank(level: int) -> int:
    """The rank of a level's requests; one more is the rank of those whose timeout has passed."""
    return 2 * level
