"""Traces of single requests: which are traced, what is noted of them, and who gets it.

A server that traces nothing pays one look at :attr:`Tracing.on` for a request. A request that is traced has a
:class:`~trivet.traced.TracedRequest`; those that it leads to (steps of an ensemble, calls of a model) have theirs in
the same :class:`~trivet.traced.Trace`, which goes to the sink of the mode when all of them are answered. All of it runs
on the event loop.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal

from trivet.errors import InvalidArgumentError, TrivetError
from trivet.trace_settings import OPENTELEMETRY, TRITON, TraceOptions, TraceSettings
from trivet.traced import ROW, PlainKind, PlainTrace, Trace, TracedRequest, TracedTensor

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest, InferenceResponse
    from trivet.tensor import Tensor

logger = logging.getLogger(__name__)

Field = Literal["level", "rate", "count", "log_frequency"]
"""What of the settings can be changed while the server runs."""


class TraceSink(ABC):
    """Who gets the traces of one mode. On the event loop, so nothing here may block."""

    @abstractmethod
    def add(self, trace: Trace) -> None:
        """Take a trace. Must not raise."""

    def add_plain(self, trace: PlainTrace, sampler: Sampler) -> None:
        """Take a plain trace. By default it is made a :class:`Trace`, which takes several times as long."""
        self.add(Trace(sampler, (TracedRequest.of(trace),)))

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

    __slots__ = ("active", "created", "finished", "remaining", "retired", "settings", "tensors", "until")

    def __init__(self, settings: TraceSettings, mode: str = TRITON) -> None:
        self.settings = settings
        # A caller's own trace is traced whatever rate and count say.
        self.active = bool(settings.level) and (mode == OPENTELEMETRY or settings.problem(mode) is None)
        """Whether a request might be traced."""
        self.tensors = "TENSORS" in settings.level
        self.remaining = settings.count
        self.until: float = settings.rate if settings.rate and settings.count else math.inf
        """How many requests it is until one is traced, that one included."""
        self.created = 0
        self.finished = 0
        self.retired = False

    def choose(self) -> bool:
        """Whether the next request is traced."""
        self.until -= 1
        if self.until:
            return False
        if self.remaining > 0:
            self.remaining -= 1
        self.until = self.settings.rate if self.remaining else math.inf
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
        self._kinds: dict[tuple[str, int, int, str], PlainKind] = {}
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
            self._retire(before)

    def _switch(self) -> None:
        self._of_others = self._samplers[""]
        self.on = self.sink is not None and any(sampler.active for sampler in self._samplers.values())

    # --- requests

    def use(self, sink: TraceSink) -> None:
        """Hand the traces to ``sink`` from now on."""
        self.sink = sink
        self._switch()

    def begin(self, request: InferenceRequest) -> None:
        """Choose whether a caller's request is traced. Only where :attr:`on` is set."""
        sampler = self._samplers.get(request.model_name, self._of_others)
        context = request.trace_context
        if sampler.until > 1 and context is None:
            # Where one in many is traced, this is all that the others pay.
            sampler.until -= 1
            return
        if not sampler.active:
            return
        wanted = None if context is None or self.sink is None else self.sink.wanted(context)
        if sampler.choose() if wanted is None else wanted:
            sampler.created += 1
            request.trace = TracedRequest(sampler, next(self._ids))

    def begin_nested(self, request: InferenceRequest, parent: TracedRequest) -> None:
        """Trace a request that a traced one led to."""
        root = parent.root or parent
        if not root.open:
            return
        request.trace = traced = TracedRequest(root.sampler, next(self._ids), parent.id, root)
        root.open += 1
        if root.nested is None:
            root.nested = []
        root.nested.append(traced)

    def note_inputs(self, traced: TracedRequest, request: InferenceRequest) -> None:
        """Keep the inputs of a request that is about to be queued. Only where its sampler wants ``tensors``."""
        _note(traced, "TENSOR_QUEUE_INPUT", list(request.inputs.values()))

    def delivered(self, traced: TracedRequest, request: InferenceRequest, response: InferenceResponse, ns: int) -> None:
        """A response of a traced request was given to its caller, beginning at ``ns``."""
        sampler, model = traced.sampler, request.model
        if (
            response.final
            and response.error is None
            and traced.root is None
            and traced.nested is None
            and not (traced.sends or sampler.tensors)
            and request.trace_context is None
            and request.compute_start_ns > 0
            and 0 < request.compute_end_ns <= request.answered_ns
            and model is not None
            and model.instances
        ):
            traced.open = 0
            row = ROW.pack(
                traced.id, request.received_ns, traced.taken_ns, request.queued_ns, request.compute_start_ns,
                request.input_end_ns, request.infer_end_ns, request.compute_end_ns, request.answered_ns, ns,
                perf_counter_ns(),
            )  # fmt: skip
            key = (request.model_name, model.version, request.batch_size, request.protocol)
            kind = self._kinds.get(key) or self._remember(key)
            sampler.finished += 1
            if self.sink is not None:
                self.sink.add_plain((kind, row, request.id), sampler)
                if sampler.retired:
                    self._retire(sampler)
            return
        if not traced.parent_id:
            sent = (ns, perf_counter_ns())
            if traced.sends:
                traced.sends.append(sent)
            else:
                traced.sends = [sent]
        if sampler.tensors:
            _note(traced, "TENSOR_BACKEND_OUTPUT", response.outputs)
        if response.final:
            self.end(traced, request, response.error)

    def _remember(self, key: tuple[str, int, int, str]) -> PlainKind:
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        kind = self._kinds[key] = PlainKind(*key)
        return kind

    def end(self, traced: TracedRequest, request: InferenceRequest, error: TrivetError | None) -> None:
        """A traced request has its final response, or was refused."""
        traced.end(request, error)
        root = traced.root or traced
        root.open -= 1
        if root.open:
            return
        requests, root.nested = (root, *(root.nested or ())), None
        sampler = root.sampler
        sampler.finished += 1
        if self.sink is not None:
            self.sink.add(Trace(sampler, requests))
            self._retire(sampler)

    def _retire(self, sampler: Sampler) -> None:
        if sampler.retired and sampler.finished == sampler.created and self.sink is not None:
            self.sink.retire(sampler)

    async def close(self) -> None:
        """Trace nothing more, and write what is left."""
        self.on = False
        sink, self.sink = self.sink, None
        if sink is None:
            return
        for sampler in self._samplers.values():
            sink.retire(sampler)
        await sink.close()


_KINDS = 10_000
"""Kinds of plain requests that are remembered: models, versions, batch sizes and protocols."""

_FIELDS: tuple[Field, ...] = ("level", "rate", "count", "log_frequency")


def _note(traced: TracedRequest, activity: str, tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        try:
            traced.tensors = (*traced.tensors, TracedTensor(activity, tensor))
        except Exception as error:  # noqa: BLE001 - a framework's tensor that cannot be read
            logger.debug("tensor '%s' cannot be traced: %s", tensor.name, error)
