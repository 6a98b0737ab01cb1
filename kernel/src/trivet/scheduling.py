"""The scheduler interface, and the default scheduler: first come, first served.

A scheduler stands between the engine and the instances of one model version. It lives on the event loop, so it needs
no lock: every method is called there. What it submits is a :class:`Batch`; the instance's thread concatenates, executes
and splits it, and when the batch is finished the scheduler hears of it on the loop again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from numpy.typing import NDArray

from trivet.errors import RequestCancelledError, TrivetError

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.inference import InferenceRequest


class Batch:
    """Requests that one execution serves.

    ``extra_inputs`` are arrays that the scheduler adds for the whole batch (sequence controls, ragged batch inputs),
    by input name, with the batch as first dimension.
    """

    __slots__ = ("extra_inputs", "requests")

    def __init__(
        self, requests: Sequence[InferenceRequest], extra_inputs: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self.requests = requests
        self.extra_inputs = extra_inputs


class SchedulableInstance(Protocol):
    """An instance as a scheduler sees it."""

    @property
    def name(self) -> str: ...

    def submit(self, batch: Batch) -> None:
        """Queue a batch for this instance's thread; returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class SchedulerContext:
    """What a scheduler is given."""

    config: ModelConfig
    instances: Sequence[SchedulableInstance]
    submit_any: Callable[[Batch], None]
    """Queue a batch for whichever instance takes it first. For schedulers without ``dedicated_queues``."""
    waiting: Callable[[], int]
    """How many batches wait in the instances' queues."""
    reject: Callable[[InferenceRequest, TrivetError], None]
    """Give a queued request its final response, an error; it must not be submitted after."""
    call_later: Callable[[float, Callable[[], None]], Any]
    """``call_later(seconds, callback)`` on the event loop; the result has ``cancel()``."""
    clock_ns: Callable[[], int] = perf_counter_ns
    """The clock of all timestamps; simulated in property tests."""


class Scheduler(ABC):
    """Queues requests of one model version and decides which instance executes what."""

    dedicated_queues: ClassVar[bool] = False
    """True: each instance has its own queue, and the scheduler chooses with ``instance.submit``. False: all instances
    take from one queue, filled with ``submit_any``, and no instance idles while a batch waits."""

    def __init__(self, context: SchedulerContext) -> None:
        self.context = context

    @abstractmethod
    def enqueue(self, request: InferenceRequest) -> None:
        """Take a validated request. Must not block. Raise a :class:`~trivet.errors.TrivetError` to refuse it.

        The engine has set ``queued_ns``. Set ``request.on_cancel`` where a waiting request can leave the queue at once.
        """

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        """The instance finished executing ``batch`` and takes the next. Called after its responses went out."""
        return

    @property
    @abstractmethod
    def queued(self) -> int:
        """Requests that wait and that no instance has begun to execute."""

    def close(self) -> None:
        """The model unloads and all its requests are answered: stop timers."""
        return


class DefaultScheduler(Scheduler):
    """First come, first served over all instances: each request is a batch of its own.

    The instances' threads take requests from one queue in C, so the event loop does not have to hand out the next one.
    """

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self._submit = context.submit_any
        self._reject = context.reject

    def enqueue(self, request: InferenceRequest) -> None:
        request.on_cancel = self._cancelled
        self._submit(Batch((request,)))

    def _cancelled(self, request: InferenceRequest) -> None:
        # The instance's thread passes over requests that are marked cancelled.
        if not request.compute_start_ns:
            self._reject(request, RequestCancelledError("request was cancelled"))

    @property
    def queued(self) -> int:
        return self.context.waiting()
