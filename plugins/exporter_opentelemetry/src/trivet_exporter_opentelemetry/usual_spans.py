"""The usual request as bytes of OTLP: executed by a model, answered once and without error.

Its five spans differ from those of the next request in ids and times alone, at fixed places. So those of a whole batch
are a table that numpy fills column by column, in a fraction of the time that protobuf's objects take, on the
interpreter that serves requests. What is unusual is left to them (:mod:`trivet_exporter_opentelemetry.spans`), and a
test holds both to the same result.

Source: ``opentelemetry/proto/trace/v1/trace.proto``; "Encoding" in protobuf's documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from trivet.traced import COLUMNS, ROW, PlainKind, TracedRequest

from trivet_exporter_opentelemetry.attributes import fixed_attributes, readable

PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
MARKS = ("queued_ns", "compute_start_ns", "input_end_ns", "infer_end_ns", "compute_end_ns")
"""The ends of the phases."""
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

SPAN_BITS = 60
"""Of a request's span id; three more number the phases."""
ID_BYTES = 16 + 8
"""Random ones for a plain trace: its id, and its span's."""
_ROW = np.dtype([(name, np.int64) for name in COLUMNS])
assert _ROW.itemsize == ROW.size


Buffer = bytes | memoryview


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
    return before(key, content, 0)


def before(key: bytes, begin: bytes, rest: int) -> bytes:
    """The beginning of a field that has a length: all but the last ``rest`` bytes of it."""
    return key + varint(len(begin) + rest) + begin


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
        self._kinds: dict[tuple[PlainKind, bool], _Kind] = {}

    def of(self, kind: PlainKind, *, child: bool) -> _Kind:
        """The spans of such requests; ``child`` of those that another led to."""
        key = (kind, child)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= _REMEMBERED:
                self._kinds.clear()
            span = Span(
                name=kind.model_name,
                kind=Span.SPAN_KIND_INTERNAL if child else Span.SPAN_KIND_SERVER,
                flags=FLAGS,
                attributes=fixed_attributes(kind),
            )
            found = self._kinds[key] = _Kind(span, child=child)
        return found


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
        kind = self._kinds.of(
            PlainKind(traced.model_name, traced.model_version, traced.batch_size, traced.protocol), child=parent != 0
        )
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

    def encode(self) -> list[Buffer]:
        """All spans of these requests, as elements of ``ScopeSpans``."""
        if not self._rows:
            return []
        columns = np.array(self._rows, np.int64).T
        own = columns[0]
        times = columns[1:] + self._epoch_ns
        trace_ids = np.frombuffer(b"".join(self._trace_ids), "V16")
        parts = [*self._others, *_phases(trace_ids, own, list(times[2:]))]
        for kind, rows in self._roots.items():
            parts.append(_requests(kind, trace_ids[rows], own[rows], times[0, rows], times[1, rows]))
        return parts


def plain_spans(kind: _Kind, rows: Sequence[bytes], ids: bytes, epoch_ns: int) -> list[Buffer]:
    """All spans of plain requests of one kind, without an id; ``ids`` are :data:`ID_BYTES` random bytes for each."""
    count = len(rows)
    requests = np.frombuffer(b"".join(rows), _ROW)
    trace_ids = np.frombuffer(ids, "V16", count)
    own = ((np.frombuffer(ids, np.int64, count, 16 * count) & ((1 << SPAN_BITS) - 1)) << 3) + 1
    marks = [requests[name] + epoch_ns for name in MARKS]
    start, end = requests["received_ns"] + epoch_ns, requests["send_end_ns"] + epoch_ns
    return [_requests(kind, trace_ids, own, start, end), *_phases(trace_ids, own, marks)]


def _requests(
    kind: _Kind, trace_ids: NDArray[Any], own: NDArray[Any], start: NDArray[Any], end: NDArray[Any]
) -> Buffer:
    table = kind.table(len(own))
    table["trace"], table["span"], table["start"], table["end"] = trace_ids, own, start, end
    return table.view(np.uint8).data


def _phases(trace_ids: NDArray[Any], own: NDArray[Any], marks: Sequence[NDArray[Any]]) -> Iterator[Buffer]:
    """The phases of requests with these span ids: what is between each of the :data:`MARKS` and the next."""
    for index, kind in enumerate(_PHASE_KINDS):
        table = kind.table(len(own))
        table["trace"], table["span"], table["parent"] = trace_ids, own + (index + 1), own
        table["start"], table["end"] = marks[index], marks[index + 1]
        yield table.view(np.uint8).data
