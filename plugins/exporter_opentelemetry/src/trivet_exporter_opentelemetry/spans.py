"""Traces as OpenTelemetry's spans.

The spans are made of timestamps that are there already, when a request is over, so they are written straight as the
protocol's messages, without the SDK: its spans, with their contexts, locks and processors, would cost many times as
much, on the interpreter that serves requests. Runs on the batcher's thread.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from trivet.errors import message_of
from trivet.traced import PlainKind, PlainTrace, Trace, TracedRequest

from trivet_exporter_opentelemetry.attributes import all_attributes, text
from trivet_exporter_opentelemetry.usual_spans import (
    FLAGS,
    ID_BYTES,
    PHASES,
    SPAN_BITS,
    Buffer,
    Kinds,
    UsualSpans,
    before,
    field,
    plain_spans,
)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII)
_SAMPLED = 1
# opentelemetry.proto.trace.v1.SpanFlags: the parent is in another process.
_REMOTE = 0x200
PLAIN_SPANS = 1 + len(PHASES)
"""How many a plain trace makes."""


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
        *(traced.queued_ns, traced.compute_start_ns, traced.input_end_ns, traced.infer_end_ns),
        traced.compute_end_ns,
    )
    for name, start_ns, end_ns in zip(PHASES, marks, marks[1:], strict=False):
        if not start_ns or start_ns > answered_ns:
            return
        yield Phase(name, start_ns, min(end_ns, answered_ns) if end_ns else answered_ns)


def count_spans(trace: Trace) -> int:
    """How many spans a trace makes."""
    return sum(1 + (len(PHASES) if _is_usual(traced) else sum(1 for _ in phases(traced))) for traced in trace.requests)


class SpanEncoder:
    """Turns traces into the protocol's messages."""

    def __init__(self, resource: Mapping[str, str], version: str) -> None:
        attributes = [text(key, value) for key, value in resource.items()]
        self._resource = field(b"\x0a", Resource(attributes=attributes).SerializeToString())
        self._scope = field(b"\x0a", InstrumentationScope(name="trivet", version=version).SerializeToString())
        self._kinds = Kinds()
        # Ids need be unique, not secret; the operating system would be asked for each.
        self._random_bits = random.Random().getrandbits  # noqa: S311

    def encode(self, traces: Sequence[Trace | PlainTrace]) -> bytes:
        """An ``ExportTraceServiceRequest`` with the spans of all of them."""
        # Taken each time, as the time of day may be set while the server runs.
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        usual = UsualSpans(self._kinds, epoch_ns)
        spans: list[Buffer] = []
        plain: dict[PlainKind, list[bytes]] = {}
        for trace in traces:
            if isinstance(trace, Trace):
                self._add(trace.requests, epoch_ns, usual, spans)
            elif trace[2]:
                self._add((TracedRequest.of(trace),), epoch_ns, usual, spans)
            else:
                plain.setdefault(trace[0], []).append(trace[1])
        spans += usual.encode()
        for kind, rows in plain.items():
            ids = self._random_bits(8 * ID_BYTES * len(rows)).to_bytes(ID_BYTES * len(rows), "little")
            spans += plain_spans(self._kinds.of(kind, child=False), rows, ids, epoch_ns)
        # ExportTraceServiceRequest.resource_spans, ResourceSpans.scope_spans, each with their first field in front.
        # They are put in front last, so that the spans are copied once.
        scope = before(b"\x12", self._scope, sum(map(len, spans)))
        resource = before(b"\x0a", self._resource + scope, sum(map(len, spans)))
        return b"".join((resource, *spans))

    def _id(self) -> int:
        """Of a request's span; those that follow it are for its phases."""
        return (self._random_bits(SPAN_BITS) << 3) + 1

    def _add(self, requests: Sequence[TracedRequest], epoch_ns: int, usual: UsualSpans, spans: list[Buffer]) -> None:
        context = requests[0].context
        caller = None if context is None else caller_of(context)
        trace_id = self._random_bits(128).to_bytes(16, "little") if caller is None else caller.trace_id
        ids: dict[int, int] = {0: 0}
        for traced in requests:
            own = ids[traced.id] = self._id()
            parent = ids[traced.parent_id]
            if parent:
                start_ns, end_ns = traced.taken_ns, traced.answered_ns
            else:
                start_ns = traced.received_ns
                end_ns = traced.sends[-1][1] if traced.sends else traced.answered_ns
            if caller is None and _is_usual(traced):
                usual.add(traced, trace_id, own, parent, start_ns, end_ns)
                continue
            span = Span(
                trace_id=trace_id,
                span_id=_bytes(own),
                name=traced.model_name,
                kind=Span.SPAN_KIND_INTERNAL if parent else Span.SPAN_KIND_SERVER,
                start_time_unix_nano=start_ns + epoch_ns,
                end_time_unix_nano=end_ns + epoch_ns,
                attributes=all_attributes(traced),
                flags=FLAGS,
            )
            if parent:
                span.parent_span_id = _bytes(parent)
            elif caller is not None:
                span.parent_span_id = caller.span_id
                span.flags = FLAGS | _REMOTE
            if traced.error is not None:
                span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=message_of(traced.error)))
            below = [
                Span(
                    trace_id=trace_id,
                    span_id=_bytes(own + index),
                    parent_span_id=_bytes(own),
                    name=phase.name,
                    kind=Span.SPAN_KIND_INTERNAL,
                    start_time_unix_nano=phase.start_ns + epoch_ns,
                    end_time_unix_nano=phase.end_ns + epoch_ns,
                    flags=FLAGS,
                )
                for index, phase in enumerate(phases(traced), 1)
            ]
            for each in (span, *below):
                if caller is not None:
                    each.trace_state = caller.state
                spans.append(field(b"\x12", each.SerializeToString()))


def _is_usual(traced: TracedRequest) -> bool:
    """Executed, answered once and without error."""
    return (
        traced.computed
        and traced.error is None
        and len(traced.sends) <= 1
        and 0 < traced.compute_end_ns <= traced.answered_ns
    )


def _bytes(id: int) -> bytes:
    return id.to_bytes(8, "little")
