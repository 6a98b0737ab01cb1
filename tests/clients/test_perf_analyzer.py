"""Triton's own load generator runs against Trivet as it is."""

from __future__ import annotations

import ctypes.util
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trivet.testing import RunningServer

ROOT = Path(__file__).parents[2]
REQUESTS = 200

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64" or ctypes.util.find_library("b64") is None,
        reason="perf_analyzer needs Linux on x86-64 and the Debian package libb64-0d",
    ),
]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_measures_without_an_error(protocol: str, trivet_server: Callable[..., RunningServer]) -> None:
    server = trivet_server(
        ROOT / "tests" / "differential" / "models", model_control_mode="explicit", load_model=["double"]
    )
    url = server.http_url if protocol == "http" else server.grpc_url
    load = ["-m", "double", "-i", protocol, "-u", url, "--request-count", str(REQUESTS), "--concurrency-range", "4"]
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "perf_analyzer.py", *load],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count = re.search(r"Successful request count: (\d+)", done.stdout)
    assert count is not None, done.stdout
    # It reads the statistics while its last request is on the way.
    assert int(count[1]) >= REQUESTS - 4
