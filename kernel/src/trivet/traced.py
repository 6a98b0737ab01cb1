"""What is noted of traced requests.

A plain one was executed, answered once and without error, and led to no other. A server that traces every request has
hardly any others, so that one is packed into a few bytes at once. Objects that outlive their request by the
milliseconds until somebody writes them take the place of those that do not in the processor's caches, and make work for
the garbage collector: that was half of what tracing cost.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from trivet.datatypes import DataType
    from trivet.errors import TrivetError
    from trivet.inference import InferenceRequest
    from trivet.tensor import Tensor
    from trivet.tracing import Sampler

COLUMNS = (
    "id", "received_ns", "taken_ns", "queued_ns", "compute_start_ns", "input_end_ns", "infer_end_ns", "compute_end_ns",
    "answered_ns", "send_start_ns", "send_end_ns",
)  # fmt: skip
"""What a plain trace's row holds; see :class:`TracedRequest`. The last two are its ``sends``."""

ROW = struct.Struct(f"={len(COLUMNS)}q")
"""A row: int64 each, in the machine's byte order."""


class PlainKind(NamedTuple):
    """What is the same for many plain traces."""

    model_name: str
    model_version: int
    batch_size: int
    protocol: str


PlainTrace = tuple[PlainKind, bytes, str]
"""A kind, a row, and the request's id, which may be empty."""


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
        "answered_ns",
        "batch_size",
        "cache_hit",
        "compute_end_ns",
        "compute_start_ns",
        "computed",
        "context",
        "error",
        "id",
        "infer_end_ns",
        "input_end_ns",
        "model_name",
        "model_version",
        "nested",
        "open",
        "parent_id",
        "protocol",
        "queued_ns",
        "received_ns",
        "request_id",
        "root",
        "sampler",
        "sends",
        "taken_ns",
        "tensors",
    )  # fmt: skip

    def __init__(self, sampler: Sampler, id: int, parent_id: int = 0, root: TracedRequest | None = None) -> None:
        # What is only known at the end is only set there: a server that traces every request makes one for each.
        self.sampler = sampler
        self.root = root
        """The first request of the trace; ``None`` for that one itself."""
        self.nested: list[TracedRequest] | None = None
        """Of the first: those that it led to. ``None`` again at the end, so that there is no cycle for the garbage
        collector to find."""
        self.open = 1
        """Of the first: how many of the trace are not answered yet."""
        self.id = id
        """Unique in this process."""
        self.parent_id = parent_id
        """Of the request that led to this one; 0 for the first of the trace."""
        self.taken_ns = perf_counter_ns()
        """When the engine was given the request: received and decoded."""
        self.sends: list[tuple[int, int]] | tuple[()] = ()
        """Of each response, when it was given to the caller's protocol, and when that had passed it on."""
        self.tensors: Sequence[TracedTensor] = ()

    @classmethod
    def of(cls, plain: PlainTrace) -> TracedRequest:
        """The request of a plain trace, like any other that is over."""
        kind, row, request_id = plain
        traced = cls.__new__(cls)
        *numbers, send_start_ns, send_end_ns = ROW.unpack(row)
        for name, number in zip(COLUMNS, numbers, strict=False):
            setattr(traced, name, number)
        traced.sends = [(send_start_ns, send_end_ns)]
        traced.parent_id, traced.tensors = 0, ()
        traced.model_name, traced.model_version, traced.batch_size, traced.protocol = kind
        traced.request_id = request_id
        traced.context = traced.error = None
        traced.computed, traced.cache_hit = True, False
        return traced

    def end(self, request: InferenceRequest, error: TrivetError | None) -> None:
        """Take over what there is to know of a request that has its final response, or was refused with ``error``."""
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


class Trace(NamedTuple):
    """A request that was chosen to be traced, first, and those that it led to, all of them answered."""

    sampler: Sampler
    requests: Sequence[TracedRequest]
