"""A request that has its answer is gone at once, and its memory with it: nothing waits for Python's collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from trivet.inference import InferenceRequest
from trivet.testing import RunningServer


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def requests_alive() -> int:
    return sum(type(each) is InferenceRequest for each in gc.get_objects())


def asked(model: str) -> dict[str, Any]:
    if model == "double":
        return {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}
    return {"inputs": [{"name": "IN", "datatype": "INT32", "shape": [1], "data": [-1]}]}


@pytest.mark.parametrize(("model", "fails"), [("double", False), ("moan", True)])
def test_over_http(collector_off: None, server: RunningServer, model: str, fails: bool) -> None:
    with httpx.Client(base_url=f"http://{server.http_url}") as client:
        before = requests_alive()
        for _ in range(5):
            assert client.post(f"/v2/models/{model}/infer", json=asked(model)).is_error is fails
    # The instance's thread may still have the last one in its hands.
    assert requests_alive() <= before + 1
