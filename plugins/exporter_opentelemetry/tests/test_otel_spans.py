"""Traces as spans: the fast way and the usual one give the same, and callers' contexts are read as W3C has them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.trace_settings import TraceOptions, TraceSettings
from trivet.traced import ROW, PlainKind, PlainTrace, Trace, TracedRequest
from trivet.tracing import Sampler, TraceSink, Tracing
from trivet_exporter_opentelemetry import spans
from trivet_exporter_opentelemetry.spans import SpanEncoder, caller_of, count_spans
from trivet_exporter_opentelemetry.usual_spans import varint

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Kept(TraceSink):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def add(self, trace: Trace) -> None:
        self.traces.append(trace)


def trace_of(*, id: str = "", name: str = "m", batch_size: int = 1, protocol: str = "HTTP", nested: int = 0) -> Trace:
    """A request that was executed, and ``nested`` others that it led to."""
    tracing = Tracing(TraceOptions("opentelemetry", TraceSettings(frozenset({"TIMESTAMPS"}), rate=1)))
    kept = Kept()
    tracing.use(kept)
    requests = [InferenceRequest(name, {}, id=id, received_ns=1_000) for _ in range(1 + nested)]
    for index, request in enumerate(requests):
        request.protocol = "" if index else protocol
        request.batch_size = batch_size
        request.model = SimpleNamespace(version=300, instances=("one",))  # type: ignore[assignment]
        if index:
            assert requests[0].trace is not None
            tracing.begin_nested(request, requests[0].trace)
        else:
            tracing.begin(request)
        request.queued_ns, request.compute_start_ns, request.input_end_ns = 2_000, 3_000, 4_000
        request.infer_end_ns, request.compute_end_ns, request.answered_ns = 5_000, 6_000, 7_000
    for request in reversed(requests):
        assert request.trace is not None
        tracing.delivered(request.trace, request, InferenceResponse(), 7_500)
    (trace,) = kept.traces
    return trace


def encoded(
    traces: Sequence[Trace | PlainTrace], monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> ExportTraceServiceRequest:
    """As a collector reads it, spans in the order of their ids: a request, then its phases."""
    with monkeypatch.context() as patch:
        if not fast:
            patch.setattr(spans, "_is_usual", lambda _: False)
        patch.setattr(spans.time, "time_ns", lambda: 1_790_000_000_000_000_000)
        patch.setattr(spans.time, "perf_counter_ns", lambda: 0)
        encoder = SpanEncoder({"service.name": "x"}, "1")
        encoder._random_bits = random.Random(1).getrandbits
        message = ExportTraceServiceRequest.FromString(encoder.encode(traces))
    spans_of_all = message.resource_spans[0].scope_spans[0].spans
    spans_of_all.sort(key=lambda span: int.from_bytes(span.span_id, "little"))
    return message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "a"},
        {"id": "ä\udcff" * 100, "name": "ö" * 300},
        {"batch_size": 100_000, "protocol": "GRPC"},
        {"protocol": ""},
        {"nested": 3, "id": "b"},
    ],
)
def test_the_fast_way_gives_the_same_spans(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [trace_of(**fields), trace_of(**fields)]
    fast, slow = (encoded(traces, monkeypatch, fast=fast) for fast in (True, False))
    assert fast == slow
    found = fast.resource_spans[0].scope_spans[0].spans
    assert len(found) == 2 * 5 * (1 + fields.get("nested", 0)) == sum(map(count_spans, traces))
    names = [span.name for span in found[:5]]
    assert names == [fields.get("name", "m"), "queue", "compute_input", "compute_infer", "compute_output"]
    assert found[1].start_time_unix_nano == 1_790_000_000_000_002_000
    assert found[1].parent_span_id == found[0].span_id
    assert found[0].kind == Span.SPAN_KIND_SERVER


def test_plain_traces_give_the_same_spans_but_for_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [PlainKind("m", 3, 2, "HTTP"), PlainKind("other", 1, 1, "GRPC"), PlainKind("m", 3, 2, "HTTP")]
    rows = [ROW.pack(*range(number, 11 * 1_000 + number, 1_000)) for number in (7, 8, 9)]
    plain = [(kind, row, "") for kind, row in zip(kinds, rows, strict=True)]
    sampler = Sampler(TraceSettings())
    whole = [Trace(sampler, (TracedRequest.of(trace),)) for trace in plain]
    fast, slow = (
        sorted(map(_without_ids, _by_trace(encoded(traces, monkeypatch, fast=False))))
        for traces in (
            [*plain, (*plain[0][:2], "a")],
            [*whole, Trace(sampler, (TracedRequest.of((*plain[0][:2], "a")),))],
        )
    )
    assert len(fast) == 4
    assert fast == slow


def _by_trace(message: ExportTraceServiceRequest) -> list[list[Span]]:
    """The spans of each trace, those of a request before those of its phases."""
    traces: dict[bytes, list[Span]] = {}
    for span in message.resource_spans[0].scope_spans[0].spans:
        traces.setdefault(span.trace_id, []).append(span)
    assert all(len(trace_id) == 16 and any(trace_id) for trace_id in traces)
    return list(traces.values())


def _without_ids(trace: list[Span]) -> str:
    """Its spans as text, after a look at their ids."""
    request, *phases = trace
    assert not request.parent_span_id
    assert {span.parent_span_id for span in phases} == {request.span_id}
    assert len({span.span_id for span in trace}) == len(trace)
    for span in trace:
        for name in ("trace_id", "span_id", "parent_span_id"):
            span.ClearField(name)
    return str(trace)


@given(st.integers(0, 2**32 - 1))
def test_numbers_are_protobufs(number: int) -> None:
    assert Span.FromString(b"\x50" + varint(number)).dropped_attributes_count == number


def test_a_callers_context_is_read() -> None:
    caller = caller_of({"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"})
    assert caller is not None
    assert (caller.trace_id.hex(), caller.span_id.hex(), caller.sampled, caller.state) == (TRACE, PARENT, True, "a=b")
    unsampled = caller_of({"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert unsampled is not None
    assert not unsampled.sampled
    assert caller_of({"traceparent": f"cc-{TRACE}-{PARENT}-01-what later versions add"}) is not None


@pytest.mark.parametrize(
    "context",
    [
        None,
        "a text of a model's",
        {},
        {"traceparent": ""},
        {"traceparent": f"00-{TRACE}-{PARENT}"},
        {"traceparent": f"00-{TRACE}-{PARENT}-01-more"},
        {"traceparent": f"ff-{TRACE}-{PARENT}-01"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"00-{TRACE.upper()}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE[1:]}-{PARENT}-01"},
    ],
)
def test_what_is_no_context_is_passed_over(context: Any) -> None:
    assert caller_of(context) is None
