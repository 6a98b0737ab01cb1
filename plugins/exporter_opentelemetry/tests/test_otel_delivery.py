"""Batches reach a collector, and cost nothing but a count where they cannot."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from otlp_collector import Collector, collecting, serving
from trivet_exporter_opentelemetry.batcher import Batcher
from trivet_exporter_opentelemetry.options import Batching, Target
from trivet_exporter_opentelemetry.sender import Sender, SendError


def encode(names: Sequence[str]) -> bytes:
    spans = [Span(name=name) for name in names]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()


def names(collector: Collector) -> list[str]:
    return [span.name for span in collector.spans]


class Losses:
    """What a batcher has dropped."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, things: int) -> None:
        self.count += things


def batcher(url: str, losses: Losses, batching: Batching) -> Batcher[str]:
    made = Batcher("names", Sender(Target(f"{url}/v1/traces", timeout_s=5)), batching, encode, losses)
    made.start()
    return made


def test_a_full_batch_goes_at_once_and_the_rest_at_the_end() -> None:
    losses = Losses()
    with collecting() as collector:
        sending = batcher(collector.url, losses, Batching(max_queue=100, delay_s=60, max_batch=3))
        for name in "abc":
            sending.put(name)
        collector.wait_until(lambda found: len(found.spans) == 3)
        sending.put("d")
        sending.close(5)
        assert names(collector) == ["a", "b", "c", "d"]
    assert losses.count == 0


def test_what_waits_goes_when_its_time_has_come() -> None:
    with collecting() as collector:
        sending = batcher(collector.url, Losses(), Batching(delay_s=0.01))
        sending.put("a")
        collector.wait_until(lambda found: names(found) == ["a"])
        sending.close(5)


def test_an_item_that_is_larger_than_a_batch_goes_alone() -> None:
    with collecting() as collector:
        sending = batcher(collector.url, Losses(), Batching(max_queue=10, delay_s=60, max_batch=2))
        sending.put("large", 5)
        sending.put("small", 1)
        collector.wait_until(lambda found: "large" in names(found))
        sending.close(5)
        assert names(collector) == ["large", "small"]
        assert len(collector.headers) == 2


def test_what_does_not_fit_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    with collecting() as collector:
        made = Batcher("names", Sender(Target(f"{collector.url}/v1/traces")), Batching(4, 60, 4), encode, losses)
        for index in range(10):
            made.put(str(index))
        assert losses.count == 6
        made.start()
        made.close(5)
        assert names(collector) == list("0123")
    assert len(caplog.records) == 1
    assert "were not delivered to the collector: the queue is full" in caplog.text


def test_a_collector_that_is_down_costs_a_count_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    sending = batcher(url, losses, Batching(max_queue=8, delay_s=0.01, max_batch=2))
    for index in range(100):
        sending.put(str(index))
    sending.close(5)
    assert losses.count == 100
    assert len(caplog.records) == 1


def test_a_collector_that_comes_back_gets_what_waited() -> None:
    losses = Losses()
    with collecting() as collector:
        collector.statuses = [503, 429, 502]
        sending = batcher(collector.url, losses, Batching(delay_s=0.01))
        sending.put("a")
        collector.wait_until(lambda found: names(found) == ["a"])
        sending.close(5)
    assert losses.count == 0


def test_what_a_collector_refuses_for_good_is_not_sent_again() -> None:
    with collecting() as collector:
        collector.statuses = [400]
        sender = Sender(Target(f"{collector.url}/v1/traces"))
        with pytest.raises(SendError, match="status 400"):
            sender.send(encode(["a"]))
        sender.send(encode(["b"]))
        assert names(collector) == ["b"]
        sender.disconnect()


class Endless(BaseHTTPRequestHandler):
    """No collector: what it answers ends when nobody reads it any more."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int]
    head: ClassVar[Mapping[str, str]]
    posts: ClassVar[list[bytes]]

    def do_POST(self) -> None:
        self.posts.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(self.status)
        for name, value in self.head.items():
            self.send_header(name, value)
        self.end_headers()
        # The reader has gone in the middle of it.
        with suppress(ConnectionError):
            while True:
                self.wfile.write(bytes(1 << 16))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("answered", [{}, {"content-length": str(1 << 40)}], ids=["until closed", "with a length"])
@pytest.mark.parametrize("status", [200, 400])
def test_of_an_answer_without_end_only_the_beginning_is_read(status: int, answered: Mapping[str, str]) -> None:
    class Answering(Endless):
        head = answered
        posts: ClassVar[list[bytes]] = []

    Answering.status = status
    with serving(Answering) as port:
        sender = Sender(Target(f"http://127.0.0.1:{port}/v1/traces"))
        for payload in (b"first", b"second"):
            with nullcontext() if status == 200 else pytest.raises(SendError, match=r"^status 400$"):
                sender.send(payload)
        assert Answering.posts == [b"first", b"second"], "what was not read of one answer is not the next one"
        sender.disconnect()


def test_what_is_quoted_of_an_answer_is_short() -> None:
    class Babbling(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"x" * 10_000 + b"\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Babbling) as port:
        sender = Sender(Target(f"http://127.0.0.1:{port}/v1/traces"))
        sender.close()  # one try
        with pytest.raises(SendError, match=r"^BadStatusLine: x+$") as caught:
            sender.send(b"payload")
    assert len(str(caught.value)) == 200


def test_headers_and_compression_are_the_targets() -> None:
    with collecting() as collector:
        sender = Sender(Target(f"{collector.url}/v1/traces", {"authorization": "Bearer x"}, compressed=True))
        sender.send(encode(["a"] * 100))
        assert len(collector.spans) == 100
        sender.disconnect()
    (headers,) = collector.headers
    assert headers["authorization"] == "Bearer x"
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/x-protobuf"


def test_putting_never_waits_for_a_collector_that_does_not_answer() -> None:
    """One that accepts and stays silent: the queue fills, and what comes after it is dropped at once."""
    losses = Losses()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sending = batcher(url, losses, Batching(max_queue=4, delay_s=60, max_batch=2))
        done = threading.Event()

        def put_many() -> None:
            for index in range(1000):
                sending.put(str(index))
            done.set()

        threading.Thread(target=put_many).start()
        assert done.wait(30)
        assert losses.count >= 990
        sending.close(0.1)
