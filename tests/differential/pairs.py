"""A real Triton and a Trivet, side by side on copies of the same models.

The real one is started by the program that ``TRIVET_REAL_TRITON`` names (``tools/real_triton.py``), which takes a
repository, three ports and options of tritonserver. Where the variable is not set, what needs it is skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from trivet.testing import running_server

_START_S = 180


class Endpoints(NamedTuple):
    """Where a server listens, as ``HOST:PORT``, and its copy of the models."""

    http: str
    grpc: str
    metrics: str
    models: Path


class Pair(NamedTuple):
    """Both servers."""

    triton: Endpoints
    trivet: Endpoints


@contextmanager
def running_pair(
    models: Path, folder: Path, *, options: Sequence[str] = (), only: Sequence[str] = ("*",), **settings: Any
) -> Iterator[Pair]:
    """Both servers on copies of ``models``, controlled explicitly, with the models of ``only`` loaded.

    ``folder`` is an empty one for the copies and the log. ``options`` are those of tritonserver, ``settings`` the same
    for :func:`trivet.testing.running_server`. A model that does not load is left out on both sides, as with
    ``--exit-on-error=false``.
    """
    with (
        running_triton(models, folder / "triton", options=options, only=only) as triton,
        running_trivet(models, folder / "trivet", only=only, **settings) as trivet,
    ):
        yield Pair(triton, trivet)


@contextmanager
def running_triton(
    models: Path, folder: Path, *, options: Sequence[str] = (), only: Sequence[str] = ("*",)
) -> Iterator[Endpoints]:
    """The real one alone; see :func:`running_pair`."""
    launcher = os.environ.get("TRIVET_REAL_TRITON")
    if not launcher:
        pytest.skip("TRIVET_REAL_TRITON does not name a program that starts a real Triton (tools/real_triton.py)")
    repository = _copy(models, folder)
    log = folder / "triton.log"
    ports = _free_ports(3)
    command = [launcher, str(repository), *map(str, ports), "--model-control-mode=explicit", "--exit-on-error=false"]
    command += [*(f"--load-model={name}" for name in only), "--strict-readiness=false", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, ports[0], log)
        yield Endpoints(*(f"127.0.0.1:{port}" for port in ports), repository)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_trivet(models: Path, folder: Path, *, only: Sequence[str] = ("*",), **settings: Any) -> Iterator[Endpoints]:
    """Trivet alone; see :func:`running_pair`."""
    repository = _copy(models, folder)
    with running_server(
        repository,
        allow_failures=True,
        model_control_mode="explicit",
        load_model=list(only),
        strict_readiness=False,
        **settings,
    ) as server:
        yield Endpoints(server.http_url, server.grpc_url, server.url("metrics"), repository)


def _copy(models: Path, folder: Path) -> Path:
    """The models where a server may write beside them."""
    return Path(shutil.copytree(models, folder / "models", ignore=shutil.ignore_patterns("__pycache__")))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)  # nothing tells when another process listens
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"the real Triton is not ready; the end of its log:\n{tail}")
