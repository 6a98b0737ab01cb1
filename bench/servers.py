"""Start and stop the servers under measurement: Trivet and the real Triton, as processes on free ports of 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from bench import machine

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "tools"

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60


class ServerError(RuntimeError):
    """A server did not start, or answered what it should not have."""


class Server:
    """A server process that is ready. ``http``, ``grpc`` and ``metrics`` are ``host:port``."""

    def __init__(
        self, name: str, process: subprocess.Popen[str], http: str, grpc: str, metrics: str, ready_s: float
    ) -> None:
        self.name = name
        self.http = http
        self.grpc = grpc
        self.metrics = metrics
        self.pid = process.pid
        self.ready_s = ready_s
        """Seconds from starting the process until it said that it was ready."""

    def call(self, method: str, path: str, body: bytes = b"", timeout_s: float = 60) -> Any:
        """One HTTP request on a connection of its own; the answer's JSON (``None`` for an empty body).

        Raises :class:`ServerError` for any status but 200.
        """
        connection = HTTPConnection(self.http, timeout=timeout_s)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ServerError(f"{self.name}: {method} {path} was answered {response.status}: {answer[:500]!r}")
        return json.loads(answer) if answer else None

    def processor_s(self) -> float:
        """Processor time that the server and its child processes have used so far."""
        return machine.processor_s(self.pid)

    def counts(self, model: str) -> tuple[int, int]:
        """Requests of ``model`` that succeeded and that failed so far, from the statistics extension."""
        (statistics,) = self.call("GET", f"/v2/models/{model}/stats")["model_stats"]
        inference = statistics["inference_stats"]
        return int(inference["success"].get("count", 0)), int(inference["fail"].get("count", 0))


class Log:
    """Reads a process's log to its end, so that the process never blocks on it, and notices when it says it is ready.

    Keeps the last lines for the error that a failed start gives.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.tail: deque[str] = deque(maxlen=40)
        self.addresses: dict[str, str] = {}
        """Where Trivet says that it listens, ``host:port`` by listener."""
        self.ready_at = 0.0
        """``time.perf_counter()`` at the line that says the server is ready; 0 when the log ended before."""
        self._process = process
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_ready(self, name: str) -> None:
        """Block until the server is ready. Raises :class:`ServerError` with the last lines where it is not."""
        if not self._told.wait(_START_TIMEOUT_S) or not self.ready_at:
            raise ServerError(f"{name} did not start; its last lines:\n" + "".join(self.tail))

    def close(self) -> None:
        """Wait for the end of the log, which is that of the process, and let go of it."""
        self._thread.join()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _read(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        for line in stream:
            self.tail.append(line)
            if self._says_ready(line):
                self.ready_at = time.perf_counter()
                self._told.set()
        self._told.set()

    def _says_ready(self, line: str) -> bool:
        if not line.startswith("{"):
            return "Started Metrics Service at" in line  # the last line of Triton's start
        record = json.loads(line)
        if "listener" in record:
            self.addresses[record["listener"]] = record["address"].rpartition("//")[2]
        return "elapsed_s" in record


@contextmanager
def trivet(
    repository: Path, *options: str, name: str = "trivet", program: Sequence[str] = (sys.executable, "-m", "trivet")
) -> Iterator[Server]:
    """``trivet serve`` of this environment, or of the one that ``program`` runs in."""
    command = [*program, "serve", str(repository), "--log-format=json"]
    for listener in ("http", "grpc", "metrics"):
        command += [f"--{listener}-address=127.0.0.1", f"--{listener}-port=0"]
    with _running(name, [*command, *options]) as (process, log, started):
        http, grpc, metrics = (log.addresses.get(listener, "") for listener in ("http", "grpc", "metrics"))
        yield Server(name, process, http, grpc, metrics, log.ready_at - started)


@contextmanager
def real_triton(repository: Path, *options: str, name: str = "triton") -> Iterator[Server]:
    """The real Triton 2.51 with its Python backend; the first use downloads it (tools/real_triton.py)."""
    http, grpc, metrics = _free_ports(3)
    command = [sys.executable, str(TOOLS / "real_triton.py"), str(repository), str(http), str(grpc), str(metrics)]
    with _running(name, [*command, *options]) as (process, log, started):
        addresses = (f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"127.0.0.1:{metrics}")
        yield Server(name, process, *addresses, log.ready_at - started)


def provide_to_triton(package: str) -> None:
    """Install this environment's version of a package where the real Triton's Python models run, unless it is there."""
    spec = spec_from_file_location("real_triton", TOOLS / "real_triton.py")
    assert spec is not None
    assert spec.loader is not None
    real = module_from_spec(spec)
    spec.loader.exec_module(real)
    real.install()
    pip = [str(real.CACHE / "venv" / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    # Its numpy stays: Triton's stub was built for it.
    subprocess.run([*pip, f"{package}=={version(package)}", "numpy<2"], check=True, stdout=sys.stderr)


@contextmanager
def _running(name: str, command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], Log, float]]:
    started = time.perf_counter()
    # In a session of its own: an interrupt from the keyboard is for this program, which then stops its servers.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    log = Log(process)
    try:
        log.wait_ready(name)
        yield process, log, started
        if process.poll() is not None:
            raise ServerError(f"{name} ended with status {process.returncode}:\n" + "".join(log.tail))
    finally:
        _stop(process)
        log.close()


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise ServerError(f"process {process.pid} did not stop within {_STOP_TIMEOUT_S} s and was killed") from None


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, for a server that cannot choose its own."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
