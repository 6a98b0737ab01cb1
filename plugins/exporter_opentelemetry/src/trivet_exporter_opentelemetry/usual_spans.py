"""The usual request as bytes of OTLP: executed by a model, answered once and without error.

Its five spans differ from those of the next request in ids and times alone, at fixed places. Protobuf's own objects
make the same bytes in several times as long, on the interpreter that serves requests; what is unusual is left to
them (:mod:`trivet_exporter_opentelemetry.spans`), and a test holds both to the same result.

Source: ``opentelemetry/proto/trace/v1/trace.proto``; "Encoding" in protobuf's documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from trivet.tracing import TracedRequest

from trivet_exporter_opentelemetry.attributes import fixed_attributes, readable

PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
FLAGS = 0x101
"""Sampled; and it is known that the parent is in this process (``SpanFlags``)."""

# Keys and lengths of the fields that differ: ids of trace, span and parent, start and end in time.
_TRACE, _SPAN, _PARENT, _START, _END = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x39", b"\x41"
_IDS_AND_TIMES = "2s16s2sQ2sQcQcQ"
_SIZE = struct.calcsize("<" + _IDS_AND_TIMES)
_SPANS = b"\x12"  # the field `spans` of ScopeSpans

_REMEMBERED = 10_000
"""Kinds of requests whose fixed part is kept: models, versions, batch sizes and protocols."""


def varint(number: int) -> bytes:
    """A number from 0 as protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def field(key: bytes, content: bytes) -> bytes:
    """A field that has a length."""
    return key + varint(len(content)) + content


def _begin(fixed: Span) -> bytes:
    """The beginning of a span, as an element of ``ScopeSpans``: what is the same for all of its kind."""
    content = fixed.SerializeToString()
    return _SPANS + varint(len(content) + _SIZE) + content


_BEGINNINGS = [_begin(Span(name=name, kind=Span.SPAN_KIND_INTERNAL, flags=FLAGS)) for name in PHASES]
_LAYOUT = struct.Struct("<" + "".join(f"{len(begin)}s{_IDS_AND_TIMES}" for begin in _BEGINNINGS))


def phases(trace_id: bytes, parent: int, times: Sequence[int]) -> bytes:
    """The four spans below a request; each begins where the one before ends, so there are five ``times``.

    Their ids are those that follow ``parent``.
    """
    queue, compute_input, compute_infer, compute_output = _BEGINNINGS
    queued, started, read, inferred, ended = times
    return _LAYOUT.pack(
        *(queue, _TRACE, trace_id, _SPAN, parent + 1, _PARENT, parent, _START, queued, _END, started),
        *(compute_input, _TRACE, trace_id, _SPAN, parent + 2, _PARENT, parent, _START, started, _END, read),
        *(compute_infer, _TRACE, trace_id, _SPAN, parent + 3, _PARENT, parent, _START, read, _END, inferred),
        *(compute_output, _TRACE, trace_id, _SPAN, parent + 4, _PARENT, parent, _START, inferred, _END, ended),
    )


_ROOT = struct.Struct("<2s16s2sQcQcQ")
_NESTED = struct.Struct("<" + _IDS_AND_TIMES)
_KEY = b"\x4a"  # the field `attributes` of Span
_REQUEST_ID = field(b"\x0a", b"triton.request_id")


class RequestSpans:
    """The spans of requests themselves. Remembers what is the same for all requests of a model."""

    def __init__(self) -> None:
        self._fixed: dict[tuple[str, int, int, str, bool], bytes] = {}

    def encode(
        self, traced: TracedRequest, trace_id: bytes, own: int, parent: int, start_ns: int, end_ns: int
    ) -> bytes:
        """The span of a usual request; ``parent`` is 0 where there is none. Times are those of the epoch."""
        key = (traced.model_name, traced.model_version, traced.batch_size, traced.protocol, not parent)
        fixed = self._fixed.get(key)
        if fixed is None:
            kind = Span.SPAN_KIND_INTERNAL if parent else Span.SPAN_KIND_SERVER
            span = Span(name=traced.model_name, kind=kind, flags=FLAGS, attributes=fixed_attributes(traced))
            if len(self._fixed) >= _REMEMBERED:
                self._fixed.clear()
            fixed = self._fixed[key] = span.SerializeToString()
        if parent:
            varying = _NESTED.pack(_TRACE, trace_id, _SPAN, own, _PARENT, parent, _START, start_ns, _END, end_ns)
        else:
            varying = _ROOT.pack(_TRACE, trace_id, _SPAN, own, _START, start_ns, _END, end_ns)
        if traced.request_id:
            value = field(b"\x0a", readable(traced.request_id).encode())
            varying += field(_KEY, _REQUEST_ID + field(b"\x12", value))
        return _SPANS + varint(len(fixed) + len(varying)) + fixed + varying
