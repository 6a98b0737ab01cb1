"""A model of every kind that the backends serve comes and goes 200 times: what it took is given back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from wide_models import KINDS, WIDTH

from bench import servers

CYCLES = 200
SETTLED = 50
"""Cycles after which caches and pools have their size."""
READINGS = 25
"""What a single reading says depends on what the allocator just holds: the median of so many does not."""
GROWTH = 1.1
"""At most, from the first readings to the last. With the weights, 4 MB, kept each time it would be 2 or more."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_loads_and_unloads_leave_memory_flat(
    kind: str, add_model: Callable[..., Any], tmp_path: Path
) -> None:
    add_model(tmp_path, kind, "wide")
    ones = np.ones((1, WIDTH), np.float32)
    x = triton.InferInput("x", ones.shape, "FP32").set_data_from_numpy(ones)
    resident = []
    with (
        servers.trivet(tmp_path, "--model-control-mode=explicit") as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        process = psutil.Process(server.pid)
        for _ in range(CYCLES):
            client.load_model("wide")
            answer = client.infer("wide", [x]).as_numpy("y")
            assert (answer == WIDTH).all()
            client.unload_model("wide")
            resident.append(process.memory_info().rss / 1024)
    first, last = np.median(resident[SETTLED : SETTLED + READINGS]), np.median(resident[-READINGS:])
    slope = np.polyfit(range(SETTLED, CYCLES), resident[SETTLED:], 1)[0]
    print(f"{kind}: {slope:.1f} KB a cycle, {first:.0f} KB resident after {SETTLED} cycles, {last:.0f} KB at the end")
    assert last < first * GROWTH
