"""What travels through the server: an inference request, its responses, its timestamps.

Protocols build requests and read responses, schedulers queue requests, backends answer them. None of them copies the
object: one request is one object from the first byte to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from trivet.errors import InternalError, TrivetError

if TYPE_CHECKING:
    from trivet.lifecycle import LoadedModel
    from trivet.memory import RegionSlice
    from trivet.model_cache import Hit, Miss
    from trivet.tensor import Tensor
    from trivet.traced import TracedRequest

ParameterValue = bool | int | float | str
ResponseHandler = Callable[["InferenceRequest", "InferenceResponse"], None]

_NO_PARAMETERS: Mapping[str, ParameterValue] = {}


class RequestedOutput:
    """An output the caller asked for.

    ``classification`` is the number of top classes wanted in place of the raw tensor, 0 for the tensor itself
    (classification extension). ``parameters`` are the caller's own for this output.
    """

    __slots__ = ("classification", "name", "parameters")

    def __init__(
        self, name: str, classification: int = 0, parameters: Mapping[str, ParameterValue] = _NO_PARAMETERS
    ) -> None:
        self.name = name
        self.classification = classification
        self.parameters = parameters


class InferenceRequest:
    """One inference request.

    Built by a protocol on the event loop. After ``Engine.submit`` the scheduler owns it until an instance takes it, and
    the instance's thread until its final response. ``on_response`` is called on the event loop, once per response; the
    last one has ``final`` set, and every submitted request gets a final one.
    """

    __slots__ = (
        "answered_ns",
        "batch_size",
        "cache_access",
        "cache_ns",
        "cancelled",
        "compute_end_ns",
        "compute_start_ns",
        "context",
        "correlation_id",
        "done",
        "execution",
        "id",
        "infer_end_ns",
        "input_end_ns",
        "inputs",
        "model",
        "model_name",
        "model_version",
        "on_cancel",
        "on_done",
        "on_response",
        "origin",
        "outputs",
        "parameters",
        "parent",
        "priority",
        "protocol",
        "queued_ns",
        "received_ns",
        "regions",
        "rescheduled",
        "responded_ns",
        "responder",
        "responses",
        "sequence_end",
        "sequence_start",
        "throttle",
        "timeout_us",
        "trace",
        "trace_context",
    )

    def __init__(
        self,
        model_name: str,
        inputs: dict[str, Tensor],
        *,
        model_version: str = "",
        id: str = "",
        outputs: Sequence[RequestedOutput] | None = None,
        parameters: Mapping[str, ParameterValue] = _NO_PARAMETERS,
        on_response: ResponseHandler | None = None,
        context: Any = None,
        priority: int = 0,
        timeout_us: int = 0,
        correlation_id: int | str = 0,
        sequence_start: bool = False,
        sequence_end: bool = False,
        received_ns: int = 0,
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        """As the caller wrote it; empty for the latest ready version."""
        self.id = id
        self.inputs = inputs
        self.outputs = outputs
        """``None`` asks for every output."""
        self.parameters = parameters
        """The caller's parameters, without those that have a field of their own here."""
        self.on_response = on_response
        self.context = context
        """Belongs to the protocol that built the request; nobody else touches it."""
        self.priority = priority
        """1 is the highest; 0 asks for the model's default."""
        self.timeout_us = timeout_us
        """How long the request may wait in the queue, in microseconds; 0 asks for the model's default."""
        self.correlation_id = correlation_id
        """The sequence this request belongs to; 0 and "" mean none."""
        self.sequence_start = sequence_start
        self.sequence_end = sequence_end
        self.trace_context: Any = None
        """The caller's trace context (W3C), set by the protocol, read by exporters."""
        self.protocol = ""
        """What the caller speaks (``HTTP``, ``GRPC``); empty for requests that are made in the server."""
        self.regions: Mapping[str, RegionSlice] | None = None
        """By output: where in shared memory the caller wants it, in place of the response."""
        self.throttle: Callable[[], None] | None = None
        """Set by a protocol whose caller may read more slowly than the model answers. Called on the model's thread
        before each response; blocks while too many of them wait, and no more once the request has ended. A
        :class:`~trivet.throttle.Throttle` can also be asked whether it would."""

        # What follows is the kernel's.
        self.model: LoadedModel | None = None
        self.batch_size = 1
        self.cache_access: Hit | Miss | None = None
        """Set where the request was looked up in the response cache."""
        self.cancelled = False
        """Set on the event loop; a backend may read it on its own thread to stop early."""
        self.on_cancel: Callable[[InferenceRequest], None] | None = None
        """Set by whoever holds the request now, called on the event loop when it is cancelled, so that it can be let
        go of; the engine answers it."""
        self.on_done: Callable[[InferenceRequest], None] | None = None
        """Set by a scheduler, called on the event loop when the request gets its final response, whichever it is."""
        self.done = False
        """True once the final response was given; later responses are dropped."""
        self.rescheduled = False
        """Set by a :class:`~trivet.backend.RequestInstance` while it executes the request, which then gets no final
        response but goes back to the scheduler, to be executed again with whatever ``inputs`` it has by then."""
        self.responder: ResponseHandler | None = None
        """Set by the instance that executes the request; thread-safe."""
        self.origin: Execution | None = None
        """Set by a backend on a request that a model makes: the execution in which it makes it."""
        self.parent: InferenceRequest | None = None
        """The request that led to this one: an ensemble's, or one for which a model makes it."""
        self.trace: TracedRequest | None = None
        """Set where the request is traced."""
        self.execution: Execution | None = None
        """The execution of this request in which its model made others; set on the event loop."""

        # Timestamps, in nanoseconds of time.perf_counter_ns(); 0 where that point was not reached.
        self.received_ns = received_ns or perf_counter_ns()
        self.queued_ns = 0
        self.compute_start_ns = 0
        self.input_end_ns = 0
        self.infer_end_ns = 0
        self.compute_end_ns = 0
        self.answered_ns = 0
        self.cache_ns = 0
        """What the response cache took of its time, in nanoseconds: looking up, and remembering the response."""
        self.responses = 0
        """How many responses of a decoupled model there were so far."""
        self.responded_ns = 0
        """When the last of them was made."""

    def tagged(self, message: str) -> str:
        """An error's message with the request's id before it, as Triton writes it."""
        return f"[request id: {self.id or '<id_unknown>'}] {message}"

    def respond(self, response: InferenceResponse) -> None:
        """Answer this request from a :class:`~trivet.backend.RequestInstance`, on any thread, while it is being served.

        Responses of one request are delivered in the order of the calls. After the final one, more are ignored. May
        wait in ``throttle``. Raises :class:`RuntimeError` for a request that no instance is executing, and
        :class:`~trivet.errors.InternalError` for what is no response, and for an output that does not have the shape
        that ``reshape`` tells.
        """
        check_is_response(response)
        if self.responder is None:
            raise RuntimeError("respond() is for a request that a model instance is executing")
        if self.throttle is not None and not self.done:
            self.throttle()
        self.responder(self, response)


class Execution:
    """One execution of a model that makes requests of its own, to other models.

    Cancelling all the requests that are executed cancels those made for them, and so on down to the last model.
    """

    __slots__ = ("holds_instance", "made", "requests")

    def __init__(self, requests: Sequence[InferenceRequest], *, holds_instance: bool = True) -> None:
        """``holds_instance``: the instance executes nothing else until the requests that are made are answered."""
        self.requests = requests
        self.holds_instance = holds_instance
        self.made: set[InferenceRequest] = set()
        """Requests made that have no final response yet; used on the event loop."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for any of the requests any more."""
        return all(request.cancelled for request in self.requests)


class InferenceResponse:
    """One response to a request: outputs or an error, and whether it is the last.

    ``placed`` says that outputs with a region of the request are there by now (:func:`trivet.memory.place`).
    ``outputs`` keep the order of the model configuration, or of the request where it names outputs. A decoupled model's
    closing response may have neither outputs nor error (``final`` alone).
    """

    __slots__ = ("error", "final", "made_ns", "outputs", "parameters", "placed")

    def __init__(
        self,
        outputs: Sequence[Tensor] = (),
        *,
        error: TrivetError | None = None,
        parameters: Mapping[str, ParameterValue] = _NO_PARAMETERS,
        final: bool = True,
    ) -> None:
        self.outputs = outputs
        self.error = error
        self.parameters = parameters
        self.final = final
        self.placed = False
        self.made_ns = 0
        """When a decoupled model gave it (``time.perf_counter_ns()``); 0 for others."""


def check_is_response(response: object) -> None:
    """Raise :class:`~trivet.errors.InternalError` for anything else that a model answers with."""
    if not isinstance(response, InferenceResponse):
        raise InternalError(f"a model answered with a {type(response).__name__}, expected an InferenceResponse")
