"""Mode ``triton``: traces as files of JSON, as Triton writes them and its ``trace_summary.py`` reads them.

Source: Triton's user guide, "JSON Trace Output". A thread formats and writes; the event loop only collects. A file is
valid JSON at any time.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from anyio import to_thread

from trivet import datatypes
from trivet.traced import COLUMNS, ROW, PlainKind, PlainTrace, Trace, TracedRequest, TracedTensor
from trivet.tracing import Sampler, TraceSink

logger = logging.getLogger(__name__)

_PENDING = 100
"""Traces that are written together where ``log_frequency`` does not say how many."""


@dataclass(frozen=True, slots=True)
class _Write:
    file: str
    indexed: bool
    traces: Sequence[Trace | PlainTrace]
    timestamps: bool


class TraceFiles(TraceSink):
    """Collects traces by their settings, and has them written."""

    def __init__(self) -> None:
        self._pending: dict[Sampler, list[Trace | PlainTrace]] = {}
        self._writes: SimpleQueue[_Write | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, trace: Trace) -> None:
        self._add(trace, trace.sampler)

    def add_plain(self, trace: PlainTrace, sampler: Sampler) -> None:
        self._add(trace, sampler)

    def _add(self, trace: Trace | PlainTrace, sampler: Sampler) -> None:
        pending = self._pending.setdefault(sampler, [])
        pending.append(trace)
        settings = sampler.settings
        if settings.log_frequency:
            if len(pending) >= settings.log_frequency or sampler.exhausted:
                self._write(sampler, indexed=True)
        elif settings.count > 0:
            # All of them in one file, which is as large as the caller said.
            if sampler.exhausted:
                self._write(sampler, indexed=True)
        elif len(pending) >= _PENDING:
            self._write(sampler, indexed=False)

    def retire(self, sampler: Sampler) -> None:
        if sampler in self._pending:
            self._write(sampler, indexed=sampler.settings.log_frequency != 0)

    def _write(self, sampler: Sampler, *, indexed: bool) -> None:
        traces = self._pending.pop(sampler)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="trace-files", daemon=True)
            self._thread.start()
        settings = sampler.settings
        self._writes.put(_Write(settings.file, indexed, traces, "TIMESTAMPS" in settings.level))

    async def close(self) -> None:
        for sampler in list(self._pending):
            self.retire(sampler)
        thread, self._thread = self._thread, None
        if thread is not None:
            self._writes.put(None)
            await to_thread.run_sync(thread.join)

    def _run(self) -> None:
        indexes: dict[str, int] = {}
        begun: set[str] = set()
        while (write := self._writes.get()) is not None:
            text = ",".join(entries(write.traces, write.timestamps))
            try:
                if write.indexed:
                    index = indexes.get(write.file, 0)
                    indexes[write.file] = index + 1
                    Path(f"{write.file}.{index}").write_text(f"[{text}]")
                elif write.file in begun:
                    _append(write.file, text)
                else:
                    Path(write.file).write_text(f"[{text}]")
                    begun.add(write.file)
            except OSError as error:
                logger.error("%d traces are lost: cannot write %s: %s", len(write.traces), write.file, error.strerror)


def _append(file: str, text: str) -> None:
    with Path(file).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(f",{text}]".encode())


def entries(traces: Iterable[Trace | PlainTrace], timestamps: bool) -> Iterator[str]:
    """The entries of traces, as JSON."""
    plain: dict[PlainKind, Callable[[tuple[int, ...]], str]] = {}
    for trace in traces:
        if isinstance(trace, Trace):
            for traced in trace.requests:
                # One that was refused never began: Triton has no trace of it either.
                if traced.queued_ns:
                    yield from _request(traced, timestamps)
            continue
        kind, row, request_id = trace
        if request_id:
            yield from _request(TracedRequest.of(trace), timestamps)
            continue
        format = plain.get(kind)
        if format is None:
            format = plain[kind] = _format(kind, timestamps)
        yield format(ROW.unpack(row))


def _format(kind: PlainKind, timestamps: bool) -> Callable[[tuple[int, ...]], str]:
    """What formats the rows of a kind, from the text of one of them: only the numbers are to be filled in."""
    traced = TracedRequest.of((kind, bytes(ROW.size), ""))
    # Text that no JSON can have stands for each number, by its place.
    places: list[Any] = [f"\0{place}\0" for place in range(len(COLUMNS))]
    for name, place in zip(COLUMNS, places, strict=True):
        if hasattr(traced, name):
            setattr(traced, name, place)
    traced.sends = [(places[-2], places[-1])]
    *parts, end = re.split("\0([0-9]+)\0", ",".join(_request(traced, timestamps)))
    template = "".join(f"{text.replace('%', '%%')}%s" for text in parts[::2]) + end
    select = itemgetter(*map(int, parts[1::2]))
    return lambda numbers: template % select(list(map(str, numbers)))


def _request(traced: TracedRequest, timestamps: bool) -> Iterator[str]:
    # Written by hand where it is only numbers: a server may trace every request.
    id = traced.id
    about = f'{{"id":{id},"model_name":{json.dumps(traced.model_name)},"model_version":{traced.model_version}'
    if traced.request_id:
        about += f',"request_id":{json.dumps(traced.request_id)}'
    if traced.parent_id:
        about += f',"parent_id":{traced.parent_id}'
    yield about + "}"
    if timestamps:
        # An entry for each point in time, all of which begin alike.
        begin = f'{{"id":{id},"timestamps":[{{"name":"'
        points = [f'{name}","ns":{ns}' for name, ns in _timestamps(traced)]
        yield begin + ("}]}," + begin).join(points) + "}]}"
    for tensor in traced.tensors:
        entry = {"id": id, "activity": tensor.activity, "tensor": _tensor(tensor)}
        yield json.dumps(entry, separators=(",", ":"))


# What each protocol's timestamps are called. Whatever else calls the engine has none.
_RECEIVED = {"HTTP": ("HTTP_RECV_START", "HTTP_RECV_END"), "GRPC": ("GRPC_WAITREAD_START", "GRPC_WAITREAD_END")}
_SENT = {"HTTP": ("HTTP_SEND_START", "HTTP_SEND_END"), "GRPC": ("GRPC_SEND_START", "GRPC_SEND_END")}


def _timestamps(traced: TracedRequest) -> Iterator[tuple[str, int]]:
    """Names and nanoseconds of a clock that never goes back, which is not the time of day; as in Triton."""
    by_protocol = not traced.parent_id and traced.protocol in _RECEIVED
    if by_protocol:
        yield from zip(_RECEIVED[traced.protocol], (traced.received_ns, traced.taken_ns), strict=True)
    yield "REQUEST_START", traced.taken_ns
    yield "QUEUE_START", traced.queued_ns
    if traced.computed:
        yield "COMPUTE_START", traced.compute_start_ns
        if traced.compute_end_ns:
            yield "COMPUTE_INPUT_END", traced.input_end_ns
            yield "COMPUTE_OUTPUT_START", traced.infer_end_ns
            yield "COMPUTE_END", traced.compute_end_ns
    if not traced.parent_id:
        yield "INFER_RESPONSE_COMPLETE", traced.sends[0][0] if traced.sends else traced.answered_ns
    yield "REQUEST_END", traced.answered_ns
    if by_protocol:
        for sent in traced.sends:
            yield from zip(_SENT[traced.protocol], sent, strict=True)


def _tensor(tensor: TracedTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data": "" if tensor.values is None else _data(tensor),
        "shape": ",".join(map(str, tensor.shape)),
        "dtype": tensor.datatype.name,
    }


def _data(tensor: TracedTensor) -> str:
    values = tensor.values.reshape(-1)
    if tensor.datatype is datatypes.BYTES:
        return ",".join(f'"{_text(value)}"' for value in values)
    if tensor.datatype is datatypes.BF16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values.tolist())


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
