"""A tensor of 16 MiB over HTTP in binary: the server's peak memory in payloads, and throughput.

Beside the real Triton, and beside a loop over a raw socket that moves the same bytes and holds the payload once.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import numpy as np

from bench import machine, servers
from bench.calls import Call
from bench.report import Report, at_most
from bench.repositories import MODELS, repository
from bench.settings import Settings, rounds

ELEMENTS = 4 * 1024 * 1024
PAYLOAD = 4 * ELEMENTS
LARGE_REQUESTS = 5
"""How many large requests the peak is taken over: the first one, and what piles up after it."""

SLACK = 0.05
"""In payloads: pages that are resident for other reasons than the payload."""


class Encoded(Protocol):
    """A request in the bytes that go over HTTP."""

    http_path: str
    http_body: bytes
    http_header_length: int


class Caller:
    """Sends one request at a time over a kept connection, and takes the answer into memory that it has already."""

    def __init__(self, address: str, call: Encoded) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._body = call.http_body
        self._head = (
            f"POST {call.http_path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {call.http_header_length}\r\nContent-Length: {len(self._body)}\r\n\r\n"
        ).encode()
        self._answer = bytearray(len(self._body) + 65536)

    def __call__(self) -> None:
        """One request. Raises :class:`~bench.servers.ServerError` for any status but 200."""
        self._socket.sendall(self._head)
        self._socket.sendall(self._body)
        view, filled, end, total = memoryview(self._answer), 0, -1, sys.maxsize
        while filled < total:
            count = self._socket.recv_into(view[filled:])
            if not count:
                raise servers.ServerError("the server closed the connection before it had answered")
            filled += count
            if end < 0 and (end := self._answer.find(b"\r\n\r\n", 0, filled)) >= 0:
                status, *headers = bytes(view[:end]).decode("latin-1").split("\r\n")
                if " 200 " not in f"{status} ":
                    raise servers.ServerError(f"the server answered {status}")
                fields = {name.lower(): value for name, _, value in (line.partition(":") for line in headers)}
                total = end + 4 + int(fields["content-length"])

    def rate(self, seconds: float) -> float:
        """Requests a second."""
        self()
        count, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + seconds:
            self()
            count += 1
        return count / (time.perf_counter() - begin)

    def close(self) -> None:
        self._socket.close()


def run(settings: Settings, report: Report) -> None:
    numbers = np.arange(ELEMENTS, dtype=np.float32)
    identity = Call("identity", {"INPUT0": numbers}, "OUTPUT0")
    reduce = Call("reduce", {"INPUT0": numbers}, "OUTPUT0")
    with repository() as models:
        models.link(MODELS / "identity")
        models.link(MODELS / "reduce")
        with servers.trivet(models.path) as server, servers.real_triton(models.path) as triton, _raw() as (raw, _):
            for one in (server, triton):
                identity.verify(one, numbers)
                reduce.verify(one, numbers[-1:])
            addresses = {"raw socket": raw, "trivet": server.http, "triton": triton.http}
            for order in rounds(settings, report, tuple(addresses)):
                for name in order:
                    report.add(
                        f"there and back, {name}",
                        report.quietly(partial(_rate, addresses[name], identity, settings)),
                        "requests/s",
                    )
                    if name != "raw socket":
                        report.add(
                            f"there only, {name}",
                            report.quietly(partial(_rate, addresses[name], reduce, settings)),
                            "requests/s",
                        )
                # A server that never saw a large tensor: what it keeps from one would hide what the next one takes.
                with servers.trivet(models.path) as fresh:
                    report.add("peak, there only, trivet", _peak(fresh.http, fresh.pid, "reduce"), "payloads")
                with servers.trivet(models.path) as fresh:
                    report.add("peak, there and back, trivet", _peak(fresh.http, fresh.pid, "identity"), "payloads")
                with _raw() as (address, pid):
                    report.add("peak, raw socket", _peak(address, pid, "identity"), "payloads")
    for way in ("there only", "there and back"):
        ours, peer = f"peak, {way}, trivet", "peak, raw socket"
        report.difference(f"copies beyond the raw socket's, {way}", ours, peer, at_most(1.0 + SLACK))
    report.ratio("there and back, trivet / triton", "there and back, trivet", "there and back, triton")
    report.ratio("there only, trivet / triton", "there only, trivet", "there only, triton")
    report.ratio("there and back, trivet / raw socket", "there and back, trivet", "there and back, raw socket")


def _rate(address: str, call: Call, settings: Settings) -> float:
    caller = Caller(address, call)
    try:
        return caller.rate(settings.seconds)
    finally:
        caller.close()


def _peak(address: str, pid: int, model: str) -> float:
    """How much the resident memory of a process grows at its peak over large requests, in payloads.

    Small requests come first, so that code and buffers which any request needs are resident already.
    """
    small = Caller(address, Call(model, {"INPUT0": np.ones(16, np.float32)}, "OUTPUT0"))
    for _ in range(200):
        small()
    small.close()
    large = Caller(address, Call(model, {"INPUT0": np.ones(ELEMENTS, np.float32)}, "OUTPUT0"))
    machine.reset_peak(pid)
    before = machine.resident_bytes(pid)
    for _ in range(LARGE_REQUESTS):
        large()
    large.close()
    return (machine.peak_resident_bytes(pid) - before) / PAYLOAD


@contextmanager
def _raw() -> Iterator[tuple[str, int]]:
    """Address and process id of the raw socket loop."""
    process = subprocess.Popen([sys.executable, "-m", "bench.peers.echo_socket"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}", process.pid
    finally:
        process.terminate()
        process.wait()
