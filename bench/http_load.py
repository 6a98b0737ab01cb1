"""Requests over HTTP/1.1 that ready-made load generators do not send: of several kinds, or more than can be answered.

Latency counts from when a request was due, not from when it was sent, so that a client that falls behind hides nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import anyio
import numpy as np

from bench.calls import Call
from bench.load import LoadError
from bench.servers import Server

_TICK_S = 0.001
_PATIENCE_S = 60
"""How long one answer may take, and a run that asks one at a time."""
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}).*?\r\ncontent-length: (\d+)\r\n(?:.*?\r\n)?\r\n", re.DOTALL | re.IGNORECASE)


@dataclass(slots=True)
class Outcome:
    """What became of the requests: latencies in ms by status."""

    seconds: float
    """From the first request to the last answer."""
    latencies_ms: dict[int, list[float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def answered(self) -> int:
        return sum(map(len, self.latencies_ms.values()))

    def p99_ms(self, status: int) -> float:
        """Raises :class:`~bench.load.LoadError` where no request was answered so."""
        if not self.latencies_ms.get(status):
            raise LoadError(f"no request was answered with {status}; there were {self._counts()}")
        return float(np.percentile(self.latencies_ms[status], 99))

    def share(self, status: int) -> float:
        """0 to 1 of all answers."""
        return len(self.latencies_ms.get(status, ())) / self.answered

    def only(self, *statuses: int) -> Outcome:
        """Itself; raises :class:`~bench.load.LoadError` where a request was answered otherwise."""
        if set(self.latencies_ms) - set(statuses):
            raise LoadError(f"requests were answered otherwise than expected: {self._counts()}")
        return self

    def _counts(self) -> dict[int, int]:
        return {status: len(latencies) for status, latencies in self.latencies_ms.items()}


def at_rate(server: Server, calls: Sequence[Call], rate: float, seconds: float) -> Outcome:
    """``rate`` requests a second, at random (a Poisson process, always the same), whatever becomes of those before.

    ``calls`` come in turn. Raises :class:`~bench.load.LoadError` where a connection is lost or an answer stays out.
    """
    gaps = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))
    return asyncio.run(_Client(server, calls).send(np.cumsum(gaps).tolist()))


def in_flight(server: Server, calls: Sequence[Call], number: int, seconds: float) -> Outcome:
    """``number`` requests under way: the next is due when one is answered. Raises as :func:`at_rate` does."""
    return asyncio.run(_Client(server, calls).repeat(number, seconds))


class _Client:
    """As many connections as there are requests under way, each used again."""

    def __init__(self, server: Server, calls: Sequence[Call]) -> None:
        self._host, _, port = server.http.partition(":")
        self._port = int(port)
        self._requests = cycle([_encoded(server, call) for call in calls])
        self._idle: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._outcome = Outcome(0)
        self._sent = 0
        self._all_answered = anyio.Event()
        self._lost: Exception | None = None

    async def send(self, due_s: list[float]) -> Outcome:
        self._sent = len(due_s)
        began, number = time.perf_counter(), 0
        while number < len(due_s) and not self._all_answered.is_set():
            now = time.perf_counter() - began
            while number < len(due_s) and due_s[number] <= now:
                self._ask(began + due_s[number], self._answered)
                number += 1
            await asyncio.sleep(_TICK_S)
        return await self._result(began)

    async def repeat(self, number: int, seconds: float) -> Outcome:
        began = time.perf_counter()

        def answered(status: int, latency_s: float) -> None:
            again = time.perf_counter() < began + seconds
            self._sent += again
            self._answered(status, latency_s)
            if again:
                self._ask(time.perf_counter(), answered)

        self._sent = number
        for _ in range(number):
            self._ask(began, answered)
        return await self._result(began)

    async def _result(self, began: float) -> Outcome:
        with anyio.move_on_after(_PATIENCE_S):
            await self._all_answered.wait()
        self._outcome.seconds = time.perf_counter() - began
        for connection in self._idle:
            connection.close()
        if self._lost is not None:
            raise LoadError(f"a connection was lost: {self._lost}")
        if not self._all_answered.is_set():
            raise LoadError(f"{self._sent - self._outcome.answered} requests were never answered")
        return self._outcome

    def _answered(self, status: int, latency_s: float) -> None:
        self._outcome.latencies_ms.setdefault(status, []).append(latency_s * 1000)
        if self._outcome.answered == self._sent:
            self._all_answered.set()

    def _ask(self, due: float, answered: Callable[[int, float], None]) -> None:
        def done(connection: _Connection, status: int) -> None:
            self._idle.append(connection)
            answered(status, time.perf_counter() - due)

        request = next(self._requests)
        if self._idle:
            self._idle.pop().ask(request, done)
        else:
            task = asyncio.ensure_future(self._open(request, done))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, request: bytes, done: Callable[[_Connection, int], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self._fail), self._host, self._port)
        except OSError as error:
            self._fail(error)
        else:
            connection.ask(request, done)

    def _fail(self, error: Exception) -> None:
        self._lost = error
        self._all_answered.set()


def _encoded(server: Server, call: Call) -> bytes:
    head = (
        f"POST {call.http_path} HTTP/1.1\r\nHost: {server.http}\r\nContent-Length: {len(call.http_body)}\r\n"
        f"Inference-Header-Content-Length: {call.http_header_length}\r\n\r\n"
    )
    return head.encode() + call.http_body


class _Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, lost: Callable[[Exception], None]) -> None:
        self._lost = lost
        self._received = bytearray()
        self._done: Callable[[_Connection, int], None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, done: Callable[[_Connection, int], None]) -> None:
        assert self._transport is not None
        self._done = done
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = _HEAD.match(self._received)
        if head is not None and len(self._received) >= head.end() + int(head[2]):
            status, done = int(head[1]), self._done
            self._received.clear()
            self._done = None
            assert done is not None
            done(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None:
            self._lost(exc or ConnectionError("closed by the server"))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()
