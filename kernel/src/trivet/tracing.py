"""Traces of single requests: which are traced, what is noted of them, and who gets it.

A server that traces nothing pays one look at :attr:`Tracing.on` for a request. A request that is traced has a
:class:`TracedRequest`; those that it leads to (steps of an ensemble, calls of a model) have theirs in the same
:class:`Trace`, which goes to the sink of the mode when all of them are answered. All of it runs on the event loop.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal

from trivet.errors import InvalidArgumentError, TrivetError
from trivet.trace_settings import OPENTELEMETRY, TRITON, TraceOptions, TraceSettings

if TYPE_CHECKING:
    from trivet.datatypes import DataType
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.tensor import Tensor

logger = logging.getLogger(__name__)

Field = Literal["level", "rate", "count", "log_frequency"]
"""What of the settings can be changed while the server runs."""


class TracedTensor:
    """A tensor as it was: ``values`` is a copy on the host, ``None`` where it was on a device."""

    __slots__ = ("activity", "datatype", "name", "shape", "values")

    def __init__(self, activity: str, tensor: Tensor) -> None:
        self.activity = activity
        """``TENSOR_QUEUE_INPUT`` or ``TENSOR_BACKEND_OUTPUT``."""
        self.name = tensor.name
        self.datatype: DataType = tensor.datatype
        self.shape = tensor.shape
        self.values: Any = None if tensor.on_device else tensor.numpy().copy()


class TracedRequest:
    """What is noted of one request. Timestamps are those of :class:`~trivet.inference.InferenceRequest`."""

    __slots__ = (
        "answered_ns", "batch_size", "cache_hit", "compute_end_ns", "compute_start_ns", "computed", "context", "error",
        "id", "infer_end_ns", "input_end_ns", "model_name", "model_version", "parent_id", "protocol", "queued_ns",
        "received_ns", "request_id", "sends", "taken_ns", "tensors", "trace",
    )  # fmt: skip

    def __init__(self, trace: Trace, id: int, parent_id: int) -> None:
        # What is only known at the end is only set there: a server that traces every request makes one for each.
        self.trace: Trace | None = trace
        """``None`` once all of the trace is answered: no cycle is left for the garbage collector to find."""
        self.id = id
        """Unique in this process."""
        self.parent_id = parent_id
        """Of the request that led to this one; 0 for the first of the trace."""
        self.taken_ns = perf_counter_ns()
        """When the engine was given the request: received and decoded."""
        self.sends: list[tuple[int, int]] = []
        """Of each response, when it was given to the caller's protocol, and when that had passed it on."""
        self.tensors: Sequence[TracedTensor] = ()

    def _end(self, request: InferenceRequest, error: TrivetError | None) -> None:
        model = request.model
        compute_start_ns = request.compute_start_ns
        self.model_name = request.model_name
        self.model_version = 0 if model is None else model.version
        """0 where it was refused before it reached a model."""
        self.request_id = request.id
        self.protocol = request.protocol
        self.context: Any = request.trace_context
        self.batch_size = request.batch_size
        self.computed = compute_start_ns > 0 and model is not None and bool(model.instances)
        """It was executed by an instance of its model."""
        self.cache_hit = request.cache_access is not None and not compute_start_ns and error is None
        self.error = error
        self.received_ns = request.received_ns
        self.queued_ns = request.queued_ns
        self.compute_start_ns = compute_start_ns
        self.input_end_ns = request.input_end_ns
        self.infer_end_ns = request.infer_end_ns
        self.compute_end_ns = request.compute_end_ns
        self.answered_ns = request.answered_ns or perf_counter_ns()


class Trace:
    """A request that was chosen to be traced, first, and those that it led to."""

    __slots__ = ("open", "requests", "sampler")

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.requests: list[TracedRequest] = []
        self.open = 0
        """Requests that are not answered yet."""


class TraceSink(ABC):
    """Who gets the traces of one mode. On the event loop, so nothing here may block."""

    @abstractmethod
    def add(self, trace: Trace) -> None:
        """Take a trace, all of whose requests are answered. Must not raise."""

    def wanted(self, context: Any) -> bool | None:
        """Whether the caller's trace context asks that its request be traced, or not; ``None``: it does not say."""
        return None

    def retire(self, sampler: Sampler) -> None:
        """Settings were replaced, and the last trace of those before was added."""
        return

    @property
    def shown(self) -> Mapping[str, str]:
        """The mode's own settings, for the trace extension."""
        return {}

    async def close(self) -> None:
        """Write what is left. No trace comes after."""
        return


class Sampler:
    """Chooses requests as one :class:`TraceSettings` says. Settings that change make a new one."""

    __slots__ = ("active", "created", "finished", "remaining", "retired", "seen", "settings", "tensors")

    def __init__(self, settings: TraceSettings, mode: str = TRITON) -> None:
        self.settings = settings
        # A caller's own trace is traced whatever rate and count say.
        self.active = bool(settings.level) and (mode == OPENTELEMETRY or settings.problem(mode) is None)
        """Whether a request might be traced."""
        self.tensors = "TENSORS" in settings.level
        self.remaining = settings.count
        self.seen = 0
        self.created = 0
        self.finished = 0
        self.retired = False

    def choose(self) -> bool:
        """Whether the next request is traced."""
        settings = self.settings
        if not settings.rate or not self.remaining:
            return False
        self.seen += 1
        if self.seen % settings.rate:
            return False
        if self.remaining > 0:
            self.remaining -= 1
        return True

    @property
    def exhausted(self) -> bool:
        """As many as ``count`` says are traced and answered."""
        return self.remaining == 0 and self.finished == self.created


class Tracing:
    """The trace settings of a server, and the requests that are traced now."""

    def __init__(self, options: TraceOptions, sink: TraceSink | None = None) -> None:
        """``sink`` is that of mode ``triton``; a plugin brings that of another (:attr:`sink`)."""
        self.mode = options.mode
        self.options = options
        self.sink: TraceSink | None = sink if options.mode == TRITON else None
        self.on = False
        """Whether any request might be traced."""
        self._start = options.settings
        self._changed: dict[str, dict[Field, Any]] = {"": {}}
        """What was set while the server ran, by model; "" for all models."""
        self._samplers: dict[str, Sampler] = {"": Sampler(options.settings, options.mode)}
        self._ids = count(1)
        self._switch()
        if options.settings.level and not self._samplers[""].active:
            logger.warning("nothing is traced, though a trace level is given: %s", options.settings.problem(self.mode))

    # --- settings

    def settings(self, model: str = "") -> TraceSettings:
        """Those of a model, or of all that have none of their own; ``count`` is how many are left."""
        sampler = self._samplers.get(model) or self._samplers[""]
        return replace(sampler.settings, count=sampler.remaining)

    def update(self, model: str, changes: Mapping[Field, Any]) -> None:
        """Change settings of a model, or with "" of all that have none of their own.

        ``None`` takes a setting back: a model's to that of all, one of all to what it was at start. Requests that are
        traced already are written as the settings were. Raises :class:`~trivet.errors.InvalidArgumentError` for
        settings with a level by which nothing can be traced, and changes nothing then.
        """
        self._apply(model, changes)
        if not model:
            for name in [name for name, fields in self._changed.items() if name and len(fields) < len(_FIELDS)]:
                try:
                    self._apply(name, {})
                except InvalidArgumentError as error:
                    logger.debug("trace settings of model '%s' stay as they were: %s", name, error)
        self._switch()

    def _apply(self, model: str, changes: Mapping[Field, Any]) -> None:
        before = self._samplers.get(model)
        changed = dict(self._changed.get(model, {}))
        if "count" in changed and before is not None:
            changed["count"] = before.remaining
        for name, value in changes.items():
            if value is None:
                changed.pop(name, None)
            else:
                changed[name] = value
        settings = replace(self.settings() if model else self._start, **changed)
        if model and not changed:
            self._changed.pop(model, None)
            self._samplers.pop(model, None)
        else:
            problem = settings.problem(self.mode) if settings.level else None
            if problem is not None:
                raise InvalidArgumentError(f"Attempting to set invalid trace setting :{problem}")
            self._changed[model] = changed
            self._samplers[model] = Sampler(settings, self.mode)
        if before is not None:
            before.retired = True
            if self.sink is not None and before.finished == before.created:
                self.sink.retire(before)

    def _switch(self) -> None:
        self.on = self.sink is not None and any(sampler.active for sampler in self._samplers.values())

    # --- requests

    def use(self, sink: TraceSink) -> None:
        """Hand the traces to ``sink`` from now on."""
        self.sink = sink
        self._switch()

    def begin(self, request: InferenceRequest) -> None:
        """Choose whether a caller's request is traced. Only where :attr:`on` is set."""
        samplers = self._samplers
        sampler = samplers.get(request.model_name) or samplers[""]
        if not sampler.active:
            return
        wanted = None
        if request.trace_context is not None and self.sink is not None:
            wanted = self.sink.wanted(request.trace_context)
        if wanted is None:
            wanted = sampler.choose()
        if wanted:
            sampler.created += 1
            self._add(Trace(sampler), 0, request)

    def begin_nested(self, request: InferenceRequest, parent: TracedRequest) -> None:
        """Trace a request that a traced one led to."""
        if parent.trace is not None:
            self._add(parent.trace, parent.id, request)

    def _add(self, trace: Trace, parent_id: int, request: InferenceRequest) -> None:
        request.trace = traced = TracedRequest(trace, next(self._ids), parent_id)
        trace.requests.append(traced)
        trace.open += 1

    def queued(self, traced: TracedRequest, request: InferenceRequest) -> None:
        """A traced request is valid and about to be queued."""
        if traced.trace is not None and traced.trace.sampler.tensors:
            _note(traced, "TENSOR_QUEUE_INPUT", list(request.inputs.values()))

    def delivered(self, traced: TracedRequest, request: InferenceRequest, response: InferenceResponse, ns: int) -> None:
        """A response of a traced request was given to its caller, beginning at ``ns``."""
        if not traced.parent_id:
            traced.sends.append((ns, perf_counter_ns()))
        if traced.trace is not None and traced.trace.sampler.tensors:
            _note(traced, "TENSOR_BACKEND_OUTPUT", response.outputs)
        if response.final:
            self.end(traced, request, response.error)

    def end(self, traced: TracedRequest, request: InferenceRequest, error: TrivetError | None) -> None:
        """A traced request has its final response, or was refused."""
        traced._end(request, error)
        trace = traced.trace
        assert trace is not None
        trace.open -= 1
        if trace.open:
            return
        for each in trace.requests:
            each.trace = None
        sampler = trace.sampler
        sampler.finished += 1
        sink = self.sink
        if sink is not None:
            sink.add(trace)
            if sampler.retired and sampler.finished == sampler.created:
                sink.retire(sampler)

    async def close(self) -> None:
        """Trace nothing more, and write what is left."""
        self.on = False
        sink, self.sink = self.sink, None
        if sink is None:
            return
        for sampler in self._samplers.values():
            sink.retire(sampler)
        await sink.close()


_FIELDS: tuple[Field, ...] = ("level", "rate", "count", "log_frequency")


def _note(traced: TracedRequest, activity: str, tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        try:
            traced.tensors = (*traced.tensors, TracedTensor(activity, tensor))
        except Exception as error:  # noqa: BLE001 - a framework's tensor that cannot be read
            logger.debug("tensor '%s' cannot be traced: %s", tensor.name, error)
