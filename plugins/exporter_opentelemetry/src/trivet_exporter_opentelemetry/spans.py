"""Traces as OpenTelemetry's spans.

The spans are made of timestamps that are there already, when a request is over, so they are written straight as
protobuf messages: a span of the SDK, with its context, lock and processors, costs ten times as much, on the interpreter
that serves requests. Runs on the batcher's thread.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from trivet.errors import message_of
from trivet.tracing import Trace, TracedRequest

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII)
_SAMPLED = 1
# opentelemetry.proto.trace.v1.SpanFlags: whether the parent is in another process is known, and it is.
_KNOWN, _REMOTE = 0x100, 0x200


class Caller(NamedTuple):
    """The caller's trace context (W3C)."""

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: str


def caller_of(context: Any) -> Caller | None:
    """What a request's trace context says; ``None`` where there is none or it is malformed."""
    if not isinstance(context, Mapping):
        return None
    match = _TRACEPARENT.fullmatch(str(context.get("traceparent", "")).strip())
    # Version ff is invalid, and version 00 ends after the flags.
    if match is None or match[1] == "ff" or (match[1] == "00" and len(match[0]) != 55):
        return None
    trace_id, span_id = bytes.fromhex(match[2]), bytes.fromhex(match[3])
    if not (any(trace_id) and any(span_id)):
        return None
    return Caller(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED), str(context.get("tracestate", "")))


class Phase(NamedTuple):
    """A part of a request's time."""

    name: str
    start_ns: int
    end_ns: int


def phases(traced: TracedRequest) -> Iterator[Phase]:
    """What a request passed through until it was answered: a part that was not over by then ends there.

    A request that the response cache answered, one that was refused, and one of an ensemble, which has requests of its
    steps instead, have none.
    """
    if not traced.queued_ns or traced.cache_hit or (traced.compute_start_ns and not traced.computed):
        return
    answered_ns = traced.answered_ns
    marks = (
        ("queue", traced.queued_ns, traced.compute_start_ns),
        ("compute_input", traced.compute_start_ns, traced.input_end_ns),
        ("compute_infer", traced.input_end_ns, traced.infer_end_ns),
        ("compute_output", traced.infer_end_ns, traced.compute_end_ns),
    )
    for name, start_ns, end_ns in marks:
        if not start_ns or start_ns > answered_ns:
            return
        yield Phase(name, start_ns, min(end_ns, answered_ns) if end_ns else answered_ns)


def count_spans(trace: Trace) -> int:
    """How many spans a trace makes."""
    return sum(1 + sum(1 for _ in phases(traced)) for traced in trace.requests)


class SpanEncoder:
    """Turns traces into the protocol's messages."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        self._resource = Resource(attributes=[_text(key, value) for key, value in resource.items()])
        self._scope = InstrumentationScope(name="trivet", version=version)
        # Ids need be unique, not secret; the operating system would be asked for each.
        self._random = random.Random()  # noqa: S311

    def encode(self, traces: Sequence[Trace]) -> bytes:
        """An ``ExportTraceServiceRequest`` with the spans of all of them."""
        # Taken each time, as the time of day may be set while the server runs.
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        spans: list[Span] = []
        for trace in traces:
            self._add(trace, epoch_ns, spans)
        scope = ScopeSpans(scope=self._scope, spans=spans)
        return ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scope])]
        ).SerializeToString()

    def _id(self, size: int) -> bytes:
        return (self._random.getrandbits(8 * size) or 1).to_bytes(size, "big")

    def _add(self, trace: Trace, epoch_ns: int, spans: list[Span]) -> None:
        caller = caller_of(trace.requests[0].context)
        trace_id = caller.trace_id if caller is not None else self._id(16)
        state = caller.state if caller is not None else ""
        ids = {traced.id: self._id(8) for traced in trace.requests}
        for traced in trace.requests:
            own = ids[traced.id]
            first = not traced.parent_id
            start_ns = traced.received_ns if first else traced.taken_ns
            end_ns = max(traced.answered_ns, traced.sends[-1][1] if traced.sends else 0)
            span = Span(
                trace_id=trace_id,
                span_id=own,
                trace_state=state,
                name=traced.model_name,
                kind=Span.SPAN_KIND_SERVER if first else Span.SPAN_KIND_INTERNAL,
                start_time_unix_nano=start_ns + epoch_ns,
                end_time_unix_nano=end_ns + epoch_ns,
                attributes=_attributes(traced, first),
                flags=_SAMPLED | _KNOWN,
            )
            if not first:
                span.parent_span_id = ids[traced.parent_id]
            elif caller is not None:
                span.parent_span_id = caller.span_id
                span.flags = _SAMPLED | _KNOWN | _REMOTE
            if traced.error is not None:
                span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=message_of(traced.error)))
            spans.append(span)
            spans += [
                Span(
                    trace_id=trace_id,
                    span_id=self._id(8),
                    parent_span_id=own,
                    trace_state=state,
                    name=name,
                    kind=Span.SPAN_KIND_INTERNAL,
                    start_time_unix_nano=phase_start_ns + epoch_ns,
                    end_time_unix_nano=phase_end_ns + epoch_ns,
                    flags=_SAMPLED | _KNOWN,
                )
                for name, phase_start_ns, phase_end_ns in phases(traced)
            ]


def _attributes(traced: TracedRequest, first: bool) -> list[KeyValue]:
    """Triton's attributes under their names, and Trivet's own."""
    attributes = [
        _text("triton.model_name", traced.model_name),
        _number("triton.model_version", traced.model_version),
        _number("triton.trace_id", traced.id),
        _number("triton.trace_parent_id", traced.parent_id),
        _number("trivet.batch_size", traced.batch_size),
    ]
    if traced.request_id:
        attributes.append(_text("triton.request_id", traced.request_id))
    if first and traced.protocol:
        attributes.append(_text("network.protocol.name", traced.protocol.lower()))
    if len(traced.sends) > 1:
        attributes.append(_number("trivet.responses", len(traced.sends)))
    if traced.cache_hit:
        attributes.append(KeyValue(key="trivet.cache_hit", value=AnyValue(bool_value=True)))
    if traced.error is not None:
        attributes.append(_text("error.type", traced.error.code.value))
    return attributes


def _text(key: str, value: str) -> KeyValue:
    # Texts of clients may hold what is not UTF-8, as surrogate escapes.
    return KeyValue(key=key, value=AnyValue(string_value=value.encode("utf-8", "backslashreplace").decode()))


def _number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))
