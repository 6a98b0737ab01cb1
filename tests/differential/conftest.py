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
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from trivet.testing import running_server

MODELS = Path(__file__).parent / "models"
HEADER_PATTERN = "^x-fwd-"
_START_S = 180


class Endpoints(NamedTuple):
    """Where a server listens, as ``HOST:PORT``."""

    http: str
    grpc: str


@pytest.fixture(scope="session")
def real_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """A real Triton with all models loaded, controlled explicitly."""
    launcher = os.environ.get("TRIVET_REAL_TRITON")
    if not launcher:
        pytest.skip("TRIVET_REAL_TRITON does not name a program that starts a real Triton (tools/real_triton.py)")
    repository = _copy(tmp_path_factory.mktemp("triton"))
    log = tmp_path_factory.mktemp("log") / "triton.log"
    ports = _free_ports(3)
    command = [launcher, str(repository), *map(str, ports), "--model-control-mode=explicit", "--load-model=*"]
    command += [f"--http-header-forward-pattern={HEADER_PATTERN}", f"--grpc-header-forward-pattern={HEADER_PATTERN}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, ports[0], log)
        yield Endpoints(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def trivet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Trivet with all models loaded, controlled explicitly."""
    with running_server(
        _copy(tmp_path_factory.mktemp("trivet")),
        model_control_mode="explicit",
        load_model=["*"],
        http_header_forward_pattern=HEADER_PATTERN,
        grpc_header_forward_pattern=HEADER_PATTERN,
    ) as server:
        yield Endpoints(server.http_url, server.grpc_url)


def _copy(folder: Path) -> Path:
    """The models where a server may write beside them."""
    return Path(shutil.copytree(MODELS, folder / "models", ignore=shutil.ignore_patterns("__pycache__")))


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
