"""What a small request costs by itself: the smallest model over HTTP in one process, without sockets; traced and not.

The server's own connection objects are given the bytes of requests in memory, and give answers. No load generator and
no operating system takes part, and short turns follow each other at random, so that a machine with other work to do
tells differences of a percent. What is compared is processor time.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import anyio
from trivet.engine import Engine
from trivet.server import SWITCH_INTERVAL_S
from trivet.testing import RunningServer, running_server
from trivet_transport_http.connection import Connection
from trivet_transport_http.hub import Hub

from bench.calls import doubling
from bench.figures.tracing import SPANS, collector
from bench.report import Report
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds

IN_FLIGHT = 32
REQUESTS = 2000
"""Of one turn, some 50 ms."""
TURNS = 20
"""Of each contender in a round."""
RATES = {"no tracing": 0, "no tracing again": 0, "spans of one in 100": 100, "spans of every request": 1}


def run(settings: Settings, report: Report) -> None:
    with collector() as url, _server(f"opentelemetry,url={url}", *SPANS) as server:
        clients: Clients = server.call(Clients, _hub())
        gc.freeze()
        try:
            for _ in rounds(settings, report, ()):
                for name, spent_us in report.quietly(lambda: _turns(server, clients)).items():
                    report.add(name, spent_us, "µs/request")
        finally:
            gc.unfreeze()
            server.call(clients.close)
    for name in RATES:
        if name != "no tracing":
            report.ratio(f"no tracing / {name}", "no tracing", name)
            report.difference(f"{name}, more than without", name, "no tracing")


def _turns(server: RunningServer, clients: Clients) -> dict[str, float]:
    """The median processor time of a request with each way of tracing, in µs."""
    spent: dict[str, list[float]] = {name: [] for name in RATES}
    for _ in range(TURNS):
        for name in random.sample(list(RATES), len(RATES)):
            server.call(_trace, server.engine, RATES[name])
            spent[name].append(server.call(clients.ask, REQUESTS))
    return {name: statistics.median(values) for name, values in spent.items()}


def _trace(engine: Engine, rate: int) -> None:
    level = frozenset({"TIMESTAMPS"}) if rate else frozenset()
    engine.tracing.update("", {"level": level, "rate": rate or 1})


@contextmanager
def _server(*trace_config: str) -> Iterator[RunningServer]:
    """In this process, set up like ``trivet serve``."""
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with repository() as models:
            models.link(EXAMPLES / "double")
            with running_server(models.path, trace_config=list(trace_config)) as server:
                yield server
    finally:
        sys.setswitchinterval(switch_interval)


def _hub() -> Hub:
    """The server's HTTP/1.1 lane: the one that knows where inference requests go."""
    path = doubling()[0].http_path.encode()
    hubs = [one for one in gc.get_objects() if isinstance(one, Hub)]
    return next(hub for hub in hubs if hub.heads.parse(b"POST %b HTTP/1.0\r\n\r\n" % path).match.params)


class Clients:
    """As many as there are requests in flight, each of whom asks again when it has an answer. On the event loop."""

    def __init__(self, hub: Hub) -> None:
        call, _ = doubling()
        head = (
            f"POST {call.http_path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(call.http_body)}\r\n"
            f"Inference-Header-Content-Length: {call.http_header_length}\r\n\r\n"
        )
        self._request = head.encode() + call.http_body
        self._loop = hub.loop
        self._idle: list[_Client] = [_Client(hub, self._answered) for _ in range(IN_FLIGHT)]
        self._clients = tuple(self._idle)
        self._unasked = self._unanswered = 0
        self._done = anyio.Event()

    async def ask(self, requests: int) -> float:
        """Ask so many times. Gives the processor time of each in µs, of all threads."""
        self._unasked = self._unanswered = requests
        self._done = anyio.Event()
        spent = time.process_time()
        self._send()
        await self._done.wait()
        return (time.process_time() - spent) / requests * 1e6

    def close(self) -> None:
        for client in self._clients:
            client.connection.connection_lost(None)

    def _send(self) -> None:
        idle, self._idle = self._idle[: self._unasked], self._idle[self._unasked :]
        self._unasked -= len(idle)
        for client in idle:
            client.send(self._request)

    def _answered(self, client: _Client, answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a request was answered {answer[:500]!r}")
        self._unanswered -= 1
        if not self._unanswered:
            self._done.set()
        if not self._idle:
            # Those who are answered in one iteration of the loop ask in the next, as with sockets.
            self._loop.call_soon(self._send)
        self._idle.append(client)


class _Client:
    """The transport of one connection: what is written to it goes to ``answered``."""

    def __init__(self, hub: Hub, answered: Callable[[_Client, bytes], None]) -> None:
        self._answered = answered
        self.connection = Connection(hub)
        self.connection.connection_made(cast("asyncio.Transport", self))

    def send(self, request: bytes) -> None:
        self.connection.get_buffer(-1)[: len(request)] = request
        self.connection.buffer_updated(len(request))

    def write(self, data: bytes) -> None:
        self._answered(self, data)

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        return
