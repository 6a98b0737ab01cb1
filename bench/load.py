"""Load generators that cost little themselves, each behind one function: wrk, h2load and perf_analyzer.

Every function returns what it measured, or raises :class:`LoadError` where any request failed.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.calls import Call
from bench.servers import TOOLS, Server

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}
"""The Debian package that each program comes from."""

_SETTLE_S = 5.0


class LoadError(RuntimeError):
    """A load generator could not run, or a request failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a load generator saw."""

    requests: int
    """Answered with success."""
    rate: float
    """Requests answered a second."""
    p50_ms: float
    p99_ms: float
    server_us: float = 0.0
    """Processor time that the server spent per request, in µs; from :func:`checked`."""


Generator = Callable[[Server, Call, int, float], Load]
"""``generator(server, call, in_flight, seconds)``"""


def wrk(server: Server, call: Call, in_flight: int, seconds: float) -> Load:
    """HTTP/1.1, one connection per request in flight, the tensors in binary."""
    script = Path(__file__).with_name("post.lua")
    with tempfile.NamedTemporaryFile() as body:
        body.write(call.http_body)
        body.flush()
        command = [_program("wrk"), "--threads=1", f"--connections={in_flight}", f"--duration={max(1, round(seconds))}"]
        command += ["--timeout=30", f"--script={script}", f"http://{server.http}{call.http_path}"]
        output = _run([*command, "--", body.name, str(call.http_header_length)], seconds + 60)
    seen = json.loads(output.splitlines()[-1])
    if any(seen["failed"].values()):
        raise LoadError(f"{server.name}: wrk saw failed requests: {seen['failed']}")
    rate = seen["requests"] / (seen["duration_us"] * 1e-6)
    return Load(seen["requests"], rate, seen["p50_us"] * 1e-3, seen["p99_us"] * 1e-3)


def h2load(server: Server, call: Call, in_flight: int, seconds: float) -> Load:
    """GRPC as frames made beforehand, over as many connections as a few clients would have (at most 4).

    h2load reads no trailers and so takes a gRPC error for success: use it through :func:`checked`.
    """
    clients = min(4, in_flight)
    with tempfile.TemporaryDirectory() as folder:
        frame, log = Path(folder, "frame"), Path(folder, "log")
        frame.write_bytes(call.grpc_frame)
        command = [_program("h2load"), f"--clients={clients}", f"--max-concurrent-streams={in_flight // clients}"]
        command += [f"--duration={max(1, round(seconds))}", f"--data={frame}", f"--log-file={log}"]
        command += ["--header=content-type: application/grpc", "--header=te: trailers"]
        output = _run([*command, f"http://{server.grpc}/inference.GRPCInferenceService/ModelInfer"], seconds + 60)
        # One line per request: when it began (microseconds), HTTP status, how long it took (microseconds).
        lines = [line.split() for line in log.read_text().splitlines()]
    counted = _match(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if any(map(int, counted[1:])) or any(status != "200" for _, status, _ in lines):
        raise LoadError(f"{server.name}: h2load saw failed requests:\n{output}")
    rate = float(_match(r"finished in [^,]+, ([\d.]+) req/s", output)[0])
    took = sorted(int(microseconds) for _, _, microseconds in lines)
    if not took:
        raise LoadError(f"{server.name}: h2load got no answer:\n{output}")
    return Load(int(counted[0]), rate, took[len(took) // 2] * 1e-3, took[len(took) * 99 // 100] * 1e-3)


def perf_analyzer(server: Server, model: str, protocol: str, in_flight: int, seconds: float) -> Load:
    """Triton's own load generator with its own data; ``protocol`` is ``http`` or ``grpc``.

    It is told to measure once for ``seconds`` and not to wait for stable results, as rounds are repeated here. Its HTTP
    client now and then never ends: it then gets another try, and the third time is an error.
    """
    url = server.http if protocol == "http" else server.grpc
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.csv")
        command = [sys.executable, str(TOOLS / "perf_analyzer.py"), "-m", model, "-i", protocol, "-u", url]
        command += [f"--concurrency-range={in_flight}", f"--measurement-interval={round(seconds * 1000)}"]
        command += ["--max-trials=3", "--stability-percentage=999", "--percentile=50", "-f", str(table)]
        for attempt in range(3):
            try:
                output = _run(command, 6 * seconds + 30)
                break
            except subprocess.TimeoutExpired:
                print(f"    perf_analyzer ({protocol}) did not end, attempt {attempt + 1} of 3", file=sys.stderr)
        else:
            raise LoadError(f"perf_analyzer ({protocol}) against {server.name} did not end in three attempts")
        with table.open(newline="") as file:
            (row,) = csv.DictReader(file)
    requests = int(_match(r"Request count: (\d+)", output)[0])
    rate = float(row["Inferences/Second"])
    return Load(requests, rate, float(row["p50 latency"]) * 1e-3, float(row["p99 latency"]) * 1e-3)


def checked(generator: Generator, server: Server, call: Call, in_flight: int, seconds: float) -> Load:
    """Run a generator and compare its count with the server's statistics.

    Raises :class:`LoadError` where the server counted fewer successes than the generator saw answers, or more requests
    than the generator can have sent: those seen, and those it hung up on at its end.
    """
    succeeded, failed = _settled(server, call.model)
    spent_s = server.processor_s()
    load = generator(server, call, in_flight, seconds)
    spent_s = server.processor_s() - spent_s
    now_succeeded, now_failed = _settled(server, call.model)
    new, bad = now_succeeded - succeeded, now_failed - failed
    if new < load.requests or new + bad > load.requests + in_flight:
        raise LoadError(
            f"{server.name}: {generator.__name__} saw {load.requests} answers with {in_flight} in flight, but the"
            f" server's statistics count {new} successes and {bad} failures"
        )
    # What the generator hung up on at its end cost the server as much as what it waited for.
    return replace(load, server_us=spent_s / (new + bad) * 1e6)


def _settled(server: Server, model: str) -> tuple[int, int]:
    """The server's counts once they stand still: it may count an answer a moment after it sent it, and goes on with
    requests whose caller hung up.
    """
    deadline = time.monotonic() + _SETTLE_S
    counts = server.counts(model)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        before, counts = counts, server.counts(model)
        if counts == before:
            return counts
    raise LoadError(f"{server.name} still counts requests to '{model}' {_SETTLE_S:g} s after the last one was sent")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise LoadError(f"{name} is not installed; on Debian and Ubuntu: apt-get install {PACKAGES[name]}")
    return found


def _run(command: Sequence[str], timeout_s: float) -> str:
    """Standard output of a program. Raises :class:`LoadError` where it fails; the program is ended at the timeout."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise LoadError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _match(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise LoadError(f"no {pattern!r} in the load generator's report:\n{text}")
    return tuple(str(group) for group in found.groups())
