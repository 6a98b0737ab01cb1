"""A collector for tests: takes OTLP over HTTP, decodes it, and keeps it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_MESSAGES = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Collector:
    """What came, in order. ``statuses`` are the answers to the next posts; then 200."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.statuses: list[int] = []
        self.headers: list[Mapping[str, str]] = []
        self.spans: list[Span] = []
        self.metrics: list[Metric] = []
        self.logs: list[LogRecord] = []
        self.resource: dict[str, str] = {}
        self._changed = threading.Condition()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        with self._changed:
            self.headers.append(headers)
            if self.statuses:
                self._changed.notify_all()
                return self.statuses.pop(0)
            message: Any = _MESSAGES[path].FromString(body)
            for group in getattr(message, f"resource_{'spans' if path == '/v1/traces' else path[4:]}"):
                self.resource = {each.key: each.value.string_value for each in group.resource.attributes}
                for scope in getattr(group, f"scope_{'spans' if path == '/v1/traces' else path[4:]}"):
                    self.spans += getattr(scope, "spans", ())
                    self.metrics += getattr(scope, "metrics", ())
                    self.logs += getattr(scope, "log_records", ())
            self._changed.notify_all()
            return 200

    def wait_until(self, condition: Callable[[Collector], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout=30)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status = collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as port:
        collector = Collector(port)
        yield collector


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """An HTTP server on a free port, which is given; it hears of every request on a thread of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
