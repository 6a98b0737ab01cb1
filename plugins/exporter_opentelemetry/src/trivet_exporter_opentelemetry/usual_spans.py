"""The usual request as bytes of OTLP: executed by a model, answered once and without error.

Its five spans differ from those of the next request in ids and times alone, at fixed places. So those of a whole batch
are a table that numpy fills column by column, in a fraction of the time that protobuf's objects take, on the
interpreter that serves requests. What is unusual is left to them (:mod:`trivet_exporter_opentelemetry.spans`), and a
test holds both to the same result.

Source: ``opentelemetry/proto/trace/v1/trace.proto``; "Encoding" in protobuf's documentation.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from trivet.tracing import TracedRequest

from trivet_exporter_opentelemetry.attributes import fixed_attributes, readable

PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
FLAGS = 0x101
"""Sampled; and it is known that the parent is in this process (``SpanFlags``)."""

# Keys and lengths of the fields that differ, and the layout of the fields with them.
_TRACE, _SPAN, _PARENT, _START, _END = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x39", b"\x41"
_OF_ROOT = struct.Struct("<2s16s2sQcQcQ")
_OF_CHILD = struct.Struct("<2s16s2sQ2sQcQcQ")
_NO_ID = bytes(16)
_SPANS = b"\x12"  # the field `spans` of ScopeSpans
_ATTRIBUTES = b"\x4a"  # the field `attributes` of Span
_REMEMBERED = 10_000
"""Kinds of requests whose fixed part is kept: models, versions, batch sizes and protocols."""

_Key = tuple[str, int, int, str, bool]


def varint(number: int) -> bytes:
    """A number from 0 as protobuf writes it."""
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def field(key: bytes, content: bytes) -> bytes:
    """A field that has a length."""
    return key + varint(len(content)) + content


_REQUEST_ID = field(b"\x0a", b"triton.request_id")


class _Kind:
    """Spans that are alike but for ids and times: of one phase, or of the requests of one model."""

    def __init__(self, span: Span, *, child: bool) -> None:
        self.fixed = span.SerializeToString()
        varying = _OF_CHILD if child else _OF_ROOT
        begin = _SPANS + varint(len(self.fixed) + varying.size) + self.fixed
        # One row as it is, and where in it the ids and times are.
        ids = (_SPAN, 0, _PARENT, 0) if child else (_SPAN, 0)
        row = begin + varying.pack(_TRACE, _NO_ID, *ids, _START, 0, _END, 0)
        at = len(begin)
        offsets = {"trace": at + 2, "span": at + 20, "end": len(row) - 8, "start": len(row) - 17}
        if child:
            offsets["parent"] = at + 30
        names = list(offsets)
        layout = np.dtype(
            {
                "names": names,
                "formats": ["V16" if name == "trace" else "<i8" for name in names],
                "offsets": [offsets[name] for name in names],
                "itemsize": len(row),
            }
        )
        self._row = np.frombuffer(row, np.dtype(f"V{len(row)}"))
        self._layout = layout

    def table(self, count: int) -> NDArray[Any]:
        """So many rows, whose columns are to be filled."""
        return np.repeat(self._row, count).view(self._layout)


_PHASE_KINDS = [_Kind(Span(name=name, kind=Span.SPAN_KIND_INTERNAL, flags=FLAGS), child=True) for name in PHASES]


class Kinds:
    """What is the same for all requests of a model."""

    def __init__(self) -> None:
        self._kinds: dict[_Key, _Kind] = {}

    def of(self, traced: TracedRequest) -> _Kind:
        """The kind of a usual request."""
        child = traced.parent_id != 0
        key = (traced.model_name, traced.model_version, traced.batch_size, traced.protocol, child)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _REMEMBERED:
                self._kinds.clear()
            span = Span(
                name=traced.model_name,
                kind=Span.SPAN_KIND_INTERNAL if child else Span.SPAN_KIND_SERVER,
                flags=FLAGS,
                attributes=fixed_attributes(traced),
            )
            kind = self._kinds[key] = _Kind(span, child=child)
        return kind


class UsualSpans:
    """The usual requests of one batch."""

    def __init__(self, kinds: Kinds, epoch_ns: int) -> None:
        """``epoch_ns`` is added to each time."""
        self._kinds = kinds
        self._epoch_ns = epoch_ns
        self._rows: list[tuple[int, int, int, int, int, int, int, int]] = []
        self._trace_ids: list[bytes] = []
        self._roots: dict[_Kind, list[int]] = {}
        """The rows of each kind."""
        self._others: list[bytes] = []

    def add(self, traced: TracedRequest, trace_id: bytes, own: int, parent: int, start_ns: int, end_ns: int) -> None:
        """``parent`` is 0 where there is none. The ids of its phases are those that follow ``own``."""
        kind = self._kinds.of(traced)
        if parent or traced.request_id:
            self._others.append(self._one(kind, traced, trace_id, own, parent, start_ns, end_ns))
        else:
            rows = self._roots.get(kind)
            if rows is None:
                rows = self._roots[kind] = []
            rows.append(len(self._rows))
        self._trace_ids.append(trace_id)
        self._rows.append(
            (
                *(own, start_ns, end_ns, traced.queued_ns, traced.compute_start_ns, traced.input_end_ns),
                *(traced.infer_end_ns, traced.compute_end_ns),
            )
        )

    def _one(
        self, kind: _Kind, traced: TracedRequest, trace_id: bytes, own: int, parent: int, start_ns: int, end_ns: int
    ) -> bytes:
        start_ns, end_ns = start_ns + self._epoch_ns, end_ns + self._epoch_ns
        if parent:
            content = kind.fixed + _OF_CHILD.pack(
                _TRACE, trace_id, _SPAN, own, _PARENT, parent, _START, start_ns, _END, end_ns
            )
        else:
            content = kind.fixed + _OF_ROOT.pack(_TRACE, trace_id, _SPAN, own, _START, start_ns, _END, end_ns)
        if traced.request_id:
            value = field(b"\x0a", readable(traced.request_id).encode())
            content += field(_ATTRIBUTES, _REQUEST_ID + field(b"\x12", value))
        return field(_SPANS, content)

    def encode(self) -> bytes:
        """All spans of these requests, as elements of ``ScopeSpans``."""
        if not self._rows:
            return b""
        columns = np.array(self._rows, np.int64).T
        own = columns[0]
        times = columns[1:] + self._epoch_ns
        trace_ids = np.frombuffer(b"".join(self._trace_ids), "V16")
        parts = self._others
        for kind, rows in self._roots.items():
            table = kind.table(len(rows))
            table["trace"], table["span"] = trace_ids[rows], own[rows]
            table["start"], table["end"] = times[0, rows], times[1, rows]
            parts.append(table.tobytes())
        for index, kind in enumerate(_PHASE_KINDS):
            table = kind.table(len(own))
            table["trace"], table["span"], table["parent"] = trace_ids, own + (index + 1), own
            table["start"], table["end"] = times[2 + index], times[3 + index]
            parts.append(table.tobytes())
        return b"".join(parts)
