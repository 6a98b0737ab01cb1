"""A sequence scheduler in a world of its own: simulated time, and instances that take as long as they are told.

The scheduler is the real one; the engine's part (final responses, cancellation, timers) is done here, in one thread.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from trivet import config as model_config
from trivet.config.model_config_pb2 import ModelConfig
from trivet.config.spec import ModelSpec
from trivet.errors import RequestCancelledError, TrivetError
from trivet.inference import InferenceRequest
from trivet.scheduling import Batch, SchedulerContext
from trivet.tensor import Tensor
from trivet_scheduler_sequence.scheduler import SequenceScheduler
from trivet_scheduler_sequence.sequence import Steps

CONTROLS = """
control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }
control_input { name: "END" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } }
control_input { name: "READY" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } }
control_input { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
"""
MS = 1_000_000


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Instance:
    """Executes what it is given, one batch after the other."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.queue: deque[Batch] = deque()
        self.busy = False

    def submit(self, batch: Batch) -> None:
        self.queue.append(batch)
        if not self.busy:
            self.begin()

    def begin(self) -> None:
        self.busy = True
        batch = self.queue.popleft()
        assert isinstance(batch, Steps)
        self.world.began(self, batch)
        self.world.call_later(self.world.compute_ns / 1e9, lambda: self.end(batch))

    def end(self, batch: Steps) -> None:
        self.busy = False
        self.world.executed(self, batch)
        if self.queue and not self.busy:
            self.begin()


class World:
    """One model. ``batches`` has what was executed, in order: per batch, the rows' tags, ``None`` for a null row."""

    def __init__(
        self,
        batching: str,
        *,
        max_batch_size: int = 4,
        instances: int = 1,
        compute_ms: float = 1,
        dims: int = 1,
        steps: int = 1,
    ) -> None:
        """``steps``: how often the model executes each request, which takes an iterative sequence."""
        text = f"""
            name: "m" backend: "b" max_batch_size: {max_batch_size}
            input {{ name: "x" data_type: TYPE_INT32 dims: [ {dims} ] }}
            output {{ name: "y" data_type: TYPE_INT32 dims: [ {dims} ] }}
            sequence_batching {{ {batching} }}
        """
        config = text_format.Parse(text, ModelConfig())
        model_config.normalize(config)
        model_config.validate(config)
        self.now_ns = 0
        self.compute_ns = int(compute_ms * MS)
        self.steps = steps
        self.late: set[str] = set()
        """Requests that the model keeps when its execution returns; the test answers them."""
        self.batches: list[list[Any]] = []
        self.rows: list[list[dict[str, Any]]] = []
        self.answers: dict[str, list[TrivetError | None]] = {}
        self.in_flight: set[InferenceRequest] = set()
        self._held: set[InferenceRequest] = set()
        self.executing: Counter[int | str] = Counter()
        self._executions: Counter[str] = Counter()
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = count()
        self.instances = [Instance(f"m_0_{index}", self) for index in range(instances)]
        self.context = SchedulerContext(
            config=config,
            spec=ModelSpec.from_config(config),
            instances=self.instances,
            submit_any=lambda batch: None,
            waiting=lambda: 0,
            reject=self.reject,
            call_later=self.call_later,
            clock_ns=lambda: self.now_ns,
            model_path=Path(),
        )
        self.scheduler = SequenceScheduler(self.context)

    # --- what a client does

    def send(
        self,
        tag: str,
        id: int | str = 0,
        *,
        start: bool = False,
        end: bool = False,
        timeout_us: int = 0,
        size: int = 1,
        batch_size: int = 1,
    ) -> InferenceRequest:
        """Submit a request. Raises what the scheduler raises."""
        x = Tensor.from_numpy("x", np.zeros((batch_size, size), np.int32))
        request = InferenceRequest(
            "m",
            {"x": x},
            id=tag,
            correlation_id=id,
            sequence_start=start,
            sequence_end=end,
            timeout_us=timeout_us,
        )
        request.batch_size = batch_size
        request.queued_ns = self.now_ns
        assert tag not in self.answers
        self.answers[tag] = []
        self.in_flight.add(request)
        try:
            self.scheduler.enqueue(request)
        except TrivetError:
            self.in_flight.discard(request)
            del self.answers[tag]
            raise
        return request

    def cancel(self, request: InferenceRequest) -> None:
        if request in self.in_flight:
            request.cancelled = True
            if request.on_cancel is not None:
                request.on_cancel(request)
            self.reject(request, RequestCancelledError("Cancelled"))

    def run(self, ms: float) -> None:
        """Let time pass."""
        until = self.now_ns + int(ms * MS)
        while self._timers and self._timers[0][0] <= until:
            self.now_ns, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
        self.now_ns = until

    # --- what the engine and the model do

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (self.now_ns + round(seconds * 1e9), next(self._order), timer))
        return timer

    def reject(self, request: InferenceRequest, error: TrivetError) -> None:
        request.done = True
        self.answer(request, error)

    def answer(self, request: InferenceRequest, error: TrivetError | None) -> None:
        if request in self.in_flight:
            self.in_flight.discard(request)
            if request.on_done is not None:
                request.on_done(request)
            self.answers[request.id].append(error)

    def began(self, instance: Instance, batch: Steps) -> None:
        rows = [
            {name: tensor.numpy().ravel().tolist() for name, tensor in request.inputs.items()}
            for request in batch.requests
        ]
        self.rows.append(rows)
        self.batches.append(
            [
                None if sequence is None else request.id
                for request, sequence in zip(batch.requests, batch.sequences, strict=True)
            ]
        )
        for request, sequence in zip(batch.requests, batch.sequences, strict=True):
            if sequence is not None:
                self.executing[request.correlation_id] += 1

    def executed(self, instance: Instance, batch: Steps) -> None:
        again: list[InferenceRequest] = []
        for request, sequence in zip(batch.requests, batch.sequences, strict=True):
            if sequence is None:
                continue
            self.executing[request.correlation_id] -= 1
            self._executions[request.id] += 1
            if request.id in self.late:
                continue
            if self._executions[request.id] < self.steps and not request.done:
                again.append(request)
            else:
                request.done = True
                self.answer(request, None)
        for request in again:
            if request in self.in_flight and request not in self._held:
                self.scheduler.reschedule(request)
        self.scheduler.batch_done(instance, batch)

    def hold(self, request: InferenceRequest) -> None:
        """The engine does not bring the request back after a step, as its caller reads slowly."""
        self._held.add(request)

    def let_go(self, request: InferenceRequest) -> None:
        """Its caller caught up."""
        self._held.discard(request)
        self.scheduler.reschedule(request)
