"""A scheduler on a clock that stands still: everything it can be asked, and all that it does, without threads.

For property tests, where time must not decide anything that the test does not. What surrounds the scheduler behaves as
the engine and the instances do; an execution takes as long as the test says.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from trivet.config import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.errors import RequestCancelledError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.scheduling import Batch, Scheduler, SchedulerContext


class SimulatedTimer:
    """What ``call_later`` gives."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back."""
        self.callback = None


class SimulatedInstance:
    """An instance that executes one batch at a time. ``executing`` is that batch, ``None`` while it is free."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self.name = name
        self.queue: deque[Batch] = deque()
        self.executing: Batch | None = None

    def submit(self, batch: Batch) -> None:
        """Queue a batch for this instance alone."""
        self.queue.append(batch)
        self._simulation.feed()


class Simulation:
    """One scheduler with ``instances`` instances, at time 0 ns.

    ``compute_ns`` says how long the execution of a batch takes; without it each lasts until :meth:`finish`. ``respond``
    gives the responses to one executed request, by default a single, empty one; it may set ``request.rescheduled``
    instead of giving a final one.
    """

    def __init__(
        self,
        factory: Callable[[SchedulerContext], Scheduler],
        config: ModelConfig,
        *,
        instances: int = 1,
        compute_ns: Callable[[Batch], int] | None = None,
        respond: Callable[[InferenceRequest], Sequence[InferenceResponse]] = lambda _: [InferenceResponse()],
    ) -> None:
        self.now_ns = 0
        self.in_flight: set[InferenceRequest] = set()
        self.answers: dict[InferenceRequest, list[InferenceResponse]] = {}
        """The responses to each request, rejections and cancellations included, in the order in which they came."""
        self.answered: list[InferenceRequest] = []
        """The requests in the order of their final responses."""
        self.executions: list[tuple[str, list[InferenceRequest]]] = []
        """The instance and the requests of each batch that was executed, in the order in which they began."""
        self.instances = [SimulatedInstance(self, f"instance_{index}") for index in range(instances)]
        self._compute_ns = compute_ns
        self._respond = respond
        self._queue: deque[Batch] = deque()
        self._events: list[tuple[int, int, SimulatedTimer]] = []
        self._number = count()
        self.scheduler = factory(
            SchedulerContext(
                config=config,
                spec=ModelSpec.from_config(config),
                instances=self.instances,
                submit_any=self._submit_any,
                waiting=lambda: len(self._queue),
                reject=self._reject,
                respond=self._respond_without_instance,
                answer=self._answer,
                call_later=lambda seconds, callback: self._at(self.now_ns + round(seconds * 1e9), callback),
                clock_ns=lambda: self.now_ns,
            )
        )

    # --- what a test does

    def submit(self, request: InferenceRequest) -> TrivetError | None:
        """Queue a request, whose ``batch_size`` is set; gives the error where it is refused."""
        request.queued_ns = self.now_ns
        self.in_flight.add(request)
        try:
            self.scheduler.enqueue(request)
        except TrivetError as error:
            self.in_flight.remove(request)
            return error
        return None

    def cancel(self, request: InferenceRequest) -> None:
        """Answer a request as cancelled; nothing for one that was answered."""
        if request not in self.in_flight:
            return
        request.cancelled = True
        if request.on_cancel is not None:
            request.on_cancel(request)
        self._reject(request, RequestCancelledError("Cancelled"))

    def finish(self, instance: SimulatedInstance) -> None:
        """The execution on this instance ends now; the instance takes the next batch that waits for it."""
        batch = instance.executing
        assert batch is not None, f"{instance.name} is not executing"
        instance.executing = None
        executed = _executed(batch)
        for request in executed:
            request.compute_end_ns = self.now_ns
            for response in () if request.done else self._respond(request):
                request.done = response.final
                if self.scheduler.orders_responses:
                    self.scheduler.deliver(request, response)
                else:
                    self._answer(request, response)
        # The instance takes what is there before the loop hears that it has finished.
        self.feed()
        for request in executed:
            if request.rescheduled and request in self.in_flight:
                request.rescheduled = False
                self._reschedule(request)
        self.scheduler.batch_done(instance, batch)

    def advance(self, ns: int) -> None:
        """Let time pass: timers fire and executions end, each at its time."""
        end_ns = self.now_ns + ns
        while self._events and self._events[0][0] <= end_ns:
            at_ns, _, timer = heapq.heappop(self._events)
            if timer.callback is not None:
                self.now_ns = max(self.now_ns, at_ns)
                timer.callback()
        self.now_ns = end_ns

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        while self._events:
            at_ns, _, timer = self._events[0]
            if timer.callback is None:
                heapq.heappop(self._events)
            else:
                self.advance(max(0, at_ns - self.now_ns))

    # --- what the scheduler is given

    def feed(self) -> None:
        """Free instances take what waits for them."""
        for instance in self.instances:
            queue = instance.queue or self._queue
            if instance.executing is None and queue:
                self._begin(instance, queue.popleft())

    def _begin(self, instance: SimulatedInstance, batch: Batch) -> None:
        instance.executing = batch
        requests = _executed(batch)
        for request in requests:
            request.compute_start_ns = self.now_ns
        if requests:
            self.executions.append((instance.name, requests))
        if self._compute_ns is not None:
            self._at(self.now_ns + (self._compute_ns(batch) if requests else 0), lambda: self.finish(instance))

    def _submit_any(self, batch: Batch) -> None:
        self._queue.append(batch)
        self.feed()

    def _reschedule(self, request: InferenceRequest) -> None:
        try:
            self.scheduler.reschedule(request)
        except TrivetError as error:
            self._reject(request, error)

    def _respond_without_instance(self, request: InferenceRequest, response: InferenceResponse) -> None:
        if not request.done:
            request.done = response.final
            self._answer(request, response)

    def _reject(self, request: InferenceRequest, error: TrivetError) -> None:
        request.done = True
        self._answer(request, InferenceResponse(error=error))

    def _answer(self, request: InferenceRequest, response: InferenceResponse) -> None:
        if request not in self.in_flight:
            return
        self.answers.setdefault(request, []).append(response)
        if response.final:
            self.in_flight.remove(request)
            self.answered.append(request)
            if request.on_done is not None:
                request.on_done(request)

    def _at(self, at_ns: int, callback: Callable[[], None]) -> SimulatedTimer:
        timer = SimulatedTimer(callback)
        heapq.heappush(self._events, (at_ns, next(self._number), timer))
        return timer


def _executed(batch: Batch) -> list[InferenceRequest]:
    """What an instance executes of a batch: all but what was cancelled before, unless the batch is to stay whole."""
    return [request for request in batch.requests if batch.whole or not request.cancelled]
