"""Triton's own load generator runs against Trivet as it is."""

from __future__ import annotations

import ctypes.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trivet.testing import RunningServer, running_server

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


SEQUENCES = """
backend: "python"
max_batch_size: 4
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
sequence_batching { oldest { max_candidate_sequences: 4 } }
"""


def test_it_measures_sequences_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "sequences" / "1").mkdir(parents=True)
    (tmp_path / "sequences" / "config.pbtxt").write_text(SEQUENCES)
    shutil.copy(ROOT / "tests" / "differential" / "models" / "double" / "1" / "model.py", tmp_path / "sequences" / "1")
    with running_server(tmp_path) as server:
        load = ["-m", "sequences", "-i", "grpc", "-u", server.grpc_url, "--request-count", str(REQUESTS)]
        load += ["--sequence-length", "5", "--concurrency-range", "6"]
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "perf_analyzer.py", *load],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Sequence count: " in done.stdout
