"""Full queues, timeouts and overload as clients see them, over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from arithmetic_backend import ArithmeticPlugin, Gate
from tritonclient.utils import InferenceServerException
from trivet.plugins import PluginRegistry
from trivet.testing import RunningServer, running_server
from trivet_protocol_kserve_v2 import plugin as kserve
from trivet_scheduler_dynamic import plugin as batching
from trivet_transport_http import plugin as transport

WIDTH = 65536
POLICIES = {
    "full": "default_queue_policy { max_queue_size: 8 }",
    "late": "default_queue_policy { default_timeout_microseconds: 20000 }",
    "shorter": "default_queue_policy { default_timeout_microseconds: 60000000 allow_timeout_override: true }",
}


@pytest.fixture
def arithmetic() -> ArithmeticPlugin:
    return ArithmeticPlugin()


@pytest.fixture
def gate(arithmetic: ArithmeticPlugin) -> Iterator[Gate]:
    """Closed: a model stays in its first execution until the test opens it."""
    with arithmetic.journal.gate as closed:
        yield closed


@pytest.fixture
def server(tmp_path: Path, arithmetic: ArithmeticPlugin) -> Iterator[RunningServer]:
    for name, policy in POLICIES.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.arith").write_text("10")
        (tmp_path / name / "config.pbtxt").write_text(f"max_batch_size: 8 dynamic_batching {{ {policy} }}")
    registry = PluginRegistry.of(arithmetic=arithmetic, batching=batching, kserve=kserve, transport=transport)
    with running_server(tmp_path, registry=registry) as running:
        yield running


def ask(server: RunningServer, model: str, x: float = 1, **parameters: int) -> tuple[int, Any]:
    """Status and document of an inference over HTTP."""
    host, _, port = server.http_url.partition(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    inputs = [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [x]}]
    connection.request(
        "POST", f"/v2/models/{model}/infer", json.dumps({"id": "me", "inputs": inputs, "parameters": parameters})
    )
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def queued(server: RunningServer, model: str) -> int:
    found: int = server.call(lambda: server.engine.model(model).scheduler.queued)
    return found


def wait_until_queued(server: RunningServer, model: str, count: int) -> None:
    while queued(server, model) < count:
        threading.Event().wait(0.001)


@pytest.mark.parametrize(("model", "parameters"), [("late", {}), ("shorter", {"timeout": 20000})])
def test_a_request_that_waits_too_long_is_answered_503_and_unavailable(
    server: RunningServer, gate: Gate, model: str, parameters: dict[str, int]
) -> None:
    with ThreadPoolExecutor(1) as pool, triton_grpc.InferenceServerClient(server.grpc_url) as client:
        first = pool.submit(ask, server, model)
        gate.wait_until_entered()
        assert ask(server, model, **parameters) == (503, {"error": "Request timeout expired"})
        x = triton_grpc.InferInput("x", [1, 1], "FP32")
        x.set_data_from_numpy(np.ones((1, 1), np.float32))
        with pytest.raises(InferenceServerException) as failed:
            client.infer(model, [x], timeout=parameters.get("timeout"))
        assert (failed.value.status(), failed.value.message()) == (
            "StatusCode.UNAVAILABLE",
            "Request timeout expired",
        )
        gate.open.set()
        status, document = first.result()
        assert (status, document["outputs"][0]["data"]) == (200, [10])


def test_ten_times_what_the_queue_holds_is_refused_at_once_and_costs_no_memory(
    server: RunningServer, gate: Gate
) -> None:
    with ThreadPoolExecutor(9) as pool:
        accepted = [pool.submit(ask, server, "full", 0)]
        gate.wait_until_entered()
        for number in range(1, 9):
            accepted.append(pool.submit(ask, server, "full", number))
            wait_until_queued(server, "full", number)
        with triton_grpc.InferenceServerClient(server.grpc_url) as client:
            x = triton_grpc.InferInput("x", [1, WIDTH], "FP32")
            x.set_data_from_numpy(np.ones((1, WIDTH), np.float32))

            def overload(count: int) -> None:
                """Each is answered while the model is still in its first execution."""
                for _ in range(count):
                    status, document = ask(server, "full")
                    assert (status, document["error"]) == (503, "[request id: me] Exceeds maximum queue size")
                    with pytest.raises(InferenceServerException, match="Exceeds maximum queue size") as failed:
                        client.infer("full", [x])
                    assert failed.value.status() == "StatusCode.UNAVAILABLE"

            overload(40)
            before = psutil.Process().memory_info().rss
            overload(40)
            assert psutil.Process().memory_info().rss - before < 40 * 4 * WIDTH / 2  # they are not kept
        assert queued(server, "full") == 8
        gate.open.set()
        outputs = [future.result()[1]["outputs"][0]["data"] for future in accepted]
    assert outputs == [[10.0 * number] for number in range(9)]
    [statistics] = server.call(server.engine.statistics, "full")
    assert (statistics.success.count, statistics.fail.count) == (9, 160)
    assert {size: batch.compute_infer.count for size, batch in statistics.batches.items()} == {1: 1, 8: 1}
