"""A real Redis for the tests that need one: ``with redis_servers(folder) as start: redis = start()``."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")

StartRedis = Callable[..., "RunningRedis"]


class RunningRedis:
    """A Redis of this test alone, in memory, on a free port of 127.0.0.1."""

    def __init__(self, port: int, arguments: tuple[str, ...], folder: Path) -> None:
        self.port = port
        self._arguments = arguments
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Also again, after :meth:`stop`: empty."""
        assert PROGRAM is not None
        command = [PROGRAM, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        if "--tls-port" not in self._arguments:
            command += ["--port", str(self.port)]
        with (self._folder / "redis.log").open("wb") as log:
            self._process = subprocess.Popen([*command, *self._arguments], stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "redis.log").read_text()) from None
                time.sleep(0.01)  # nothing tells when another process listens

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_servers(folder: Path) -> Iterator[StartRedis]:
    """Starts a Redis with the given command line; all end with the context. Skips the test where there is none."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    started: list[RunningRedis] = []

    def start(*arguments: str, tls: bool = False) -> RunningRedis:
        port = _free_port()
        if tls:
            arguments = ("--port", "0", "--tls-port", str(port), *arguments)
        started.append(RunningRedis(port, arguments, folder))
        return started[-1]

    try:
        yield start
    finally:
        for redis in started:
            redis.stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
