"""The scheduler interface, and the default scheduler: first come, first served.

A scheduler stands between the engine and the instances of one model version. It lives on the event loop, so it needs
no lock: every method is called there. It submits a :class:`Batch`, which the instance's thread concatenates, executes
and splits; when the batch is finished, :meth:`Scheduler.batch_done` is called on the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from trivet.errors import TrivetError, UnavailableError

if TYPE_CHECKING:
    from trivet.config import ModelConfig
    from trivet.config.spec import ModelSpec
    from trivet.datatypes import DataType
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.tensor import Tensor


_NOTHING: dict[InferenceRequest, dict[str, Tensor]] = {}


class Batch:
    """Requests that one execution serves, at least one.

    ``extra_outputs`` are outputs that the scheduler wants beside those that callers asked for, with their datatypes
    (states of sequences). ``extra_results`` gets what the execution gave of them, by request and name, before a
    request's final response goes out: its rows in memory of their own, or, where the batch is one request, the tensor
    as it is, perhaps on a device. They are not in the response, unless the caller asked for them too. An
    :class:`~trivet.backend.ArrayInstance` gives all of them or fails; of a request that failed there are none.

    ``whole`` says that every request is executed in its place, also one that was cancelled meanwhile.

    ``extra_inputs`` are tensors that the scheduler adds for the whole batch (sequence controls and states), by
    input name, with the batch as first dimension, on the host or on a device. A
    :class:`~trivet.backend.RequestInstance` finds each request's rows among its inputs. A batch that has them is
    executed whole: also for a request that was cancelled meanwhile, whose rows are among theirs.
    """

    __slots__ = ("extra_inputs", "extra_outputs", "extra_results", "requests", "whole")

    def __init__(
        self,
        requests: Sequence[InferenceRequest],
        extra_inputs: Mapping[str, Tensor] | None = None,
        *,
        extra_outputs: Mapping[str, DataType] | None = None,
        whole: bool = False,
    ) -> None:
        """Raises :class:`ValueError` without requests."""
        if not requests:
            raise ValueError("a batch without requests; submit a Batch when there is a request to execute")
        self.requests = requests
        self.extra_inputs = extra_inputs
        self.extra_outputs = extra_outputs
        self.extra_results: dict[InferenceRequest, dict[str, Tensor]] = {} if extra_outputs else _NOTHING
        self.whole = whole or bool(extra_inputs)


class SchedulableInstance(Protocol):
    """An instance as a scheduler sees it."""

    @property
    def name(self) -> str:
        """Unique among the instances of one model version."""
        ...

    def submit(self, batch: Batch) -> None:
        """Queue a batch for this instance's thread; returns at once. For schedulers with dedicated queues."""
        ...


class ServedModel(Protocol):
    """A loaded version of a model as a scheduler of another model sees it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def config(self) -> ModelConfig:
        """Complete and validated; do not change it."""
        ...

    @property
    def spec(self) -> ModelSpec: ...


class ModelAccess(Protocol):
    """The other models of the engine, for a scheduler that runs requests on them. On the event loop."""

    def find(self, name: str, version: int = -1) -> ServedModel:
        """A ready version of a model, the latest for -1.

        Whatever a model's configuration names as a member stays in memory until the model that found it is closed.
        Raises :class:`~trivet.errors.NotFoundError` or :class:`~trivet.errors.UnavailableError` where there is none.
        """
        ...

    def submit(self, model: ServedModel, request: InferenceRequest) -> None:
        """Validate a request and queue it with ``model``, whatever model and version the request names.

        ``request.on_response`` is then called on the event loop until a response is final. Raises a
        :class:`~trivet.errors.TrivetError` where the request is refused, and then never calls it. A server that
        drains takes it all the same: it belongs to a request that was accepted before.
        """
        ...

    def cancel(self, request: InferenceRequest) -> None:
        """Answer a submitted request as cancelled, now; nothing where it was answered already."""
        ...


@dataclass(frozen=True, slots=True)
class SchedulerContext:
    """What a scheduler is given."""

    config: ModelConfig
    """Complete and validated. Owned by the kernel; do not change it."""
    spec: ModelSpec
    """The configuration's inputs, outputs and batch size, laid out for speed."""
    instances: Sequence[SchedulableInstance]
    """Those that execute requests, all started; passive ones are not among them."""
    submit_any: Callable[[Batch], None]
    """Queue a batch for whichever instance takes it first; returns at once. For schedulers without dedicated queues."""
    waiting: Callable[[], int]
    """How many batches of ``submit_any`` no instance has taken yet."""
    reject: Callable[[InferenceRequest, TrivetError], None]
    """Give a queued request its final response, an error (a queue that is full, a timeout that has passed); it must not
    be submitted after."""
    call_later: Callable[[float, Callable[[], None]], Any]
    """``call_later(seconds, callback)`` on the event loop; the result has ``cancel()``."""
    clock_ns: Callable[[], int] = perf_counter_ns
    """The clock of all timestamps; simulated in property tests."""
    model_path: Path = Path()
    """The model's folder (``MODEL/``)."""
    models: ModelAccess | None = None
    """The engine's models. None only where a scheduler runs without an engine, in tests."""
    respond: Callable[[InferenceRequest, InferenceResponse], None] | None = None
    """Answer a queued request without an instance, as often as there are responses. Set the request's timestamps
    before the final one. None only without an engine."""
    answer: Callable[[InferenceRequest, InferenceResponse], None] | None = None
    """Send an instance's response, which was handed to :meth:`Scheduler.deliver`, on its way. Does not raise."""


class Scheduler(ABC):
    """Queues requests of one model version and decides which instance executes what.

    Made when the instances run, before the first request. Whether each of them has a queue of its own is said by
    :attr:`trivet.hookspecs.SchedulerPlugin.dedicated_queues`.
    """

    orders_responses: bool = False
    """Whether :meth:`deliver` is asked about each response; set when the scheduler is made."""

    def __init__(self, context: SchedulerContext) -> None:
        self.context = context

    @abstractmethod
    def enqueue(self, request: InferenceRequest) -> None:
        """Take a validated request. Must not block. Raise a :class:`~trivet.errors.TrivetError` to refuse it.

        ``queued_ns``, ``batch_size`` and ``model`` are set. Set ``request.on_cancel`` to hear that the request need not
        wait any more; the engine answers it. Without it, and for a batch that was submitted already, the instance
        passes over requests that are marked ``cancelled``.
        """

    def reschedule(self, request: InferenceRequest) -> None:
        """Take a request again that the model wants to execute once more (``InferenceRequest.rescheduled``).

        Called before :meth:`batch_done` of the batch in which it was executed, or later, where the request's caller was
        too slow for another step (:class:`~trivet.throttle.Throttle`). Raise a
        :class:`~trivet.errors.TrivetError` to end the request with that. The default queues it like a new one.
        """
        self.enqueue(request)

    def batch_done(self, instance: SchedulableInstance, batch: Batch) -> None:
        """The instance finished executing ``batch`` and takes the next. Called after its responses went out.

        Of a :class:`~trivet.backend.RequestInstance` this means that ``execute`` returned; requests that it answers
        later may still be open.
        """
        return

    def deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """An instance has answered; pass the response to ``context.answer`` now or when its turn comes.

        For schedulers with ``orders_responses``, to keep responses in order. A request whose response is held back is
        still in flight: it can be cancelled, and counts as answered when its response goes out.
        """
        assert self.context.answer is not None
        self.context.answer(request, response)

    @property
    @abstractmethod
    def queued(self) -> int:
        """Requests that wait and that no instance has begun to execute."""

    def drain(self) -> None:
        """No new request comes: whatever waits for one need not (a fuller batch, a sequence's next step)."""
        return

    def close(self) -> None:
        """The model unloads and all its requests are answered: stop timers."""
        return


class IdleScheduler(Scheduler):
    """For a model whose instances are all passive: there is nobody to execute a request."""

    def enqueue(self, request: InferenceRequest) -> None:
        raise UnavailableError(
            f"model '{request.model_name}' has no instance that takes requests: every instance_group is passive"
        )

    @property
    def queued(self) -> int:
        return 0


class DefaultScheduler(Scheduler):
    """First come, first served over all instances: each request is a batch of its own.

    The instances' threads take requests from one queue in C, so the event loop does not have to hand out the next one.
    """

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self._submit = context.submit_any

    def enqueue(self, request: InferenceRequest) -> None:
        self._submit(Batch((request,)))

    @property
    def queued(self) -> int:
        return self.context.waiting()
