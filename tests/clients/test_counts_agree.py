"""A thousand requests of all kinds, counted by their clients, by statistics, by metrics and by traces alike."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from otlp_collector import Collector, collecting
from python_models import GATE, REFUSING
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

# As many responses as the number says; after them an error where it is negative.
STREAM = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = request.inputs()[0].as_numpy()
            count = int(x[0, 0])
            for _ in range(abs(count)):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
            if count < 0:
                error = pb_utils.InferenceResponse(error=pb_utils.TritonError("negative"))
                sender.send(error, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
TENSORS = """
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: 4 }
output { name: "Y" data_type: TYPE_FP32 dims: 4 }
"""
STEP = """step {{ model_name: "{}" model_version: -1
  input_map {{ key: "X" value: "{}" }} output_map {{ key: "Y" value: "{}" }} }}"""
STEPS = f"{STEP.format('plain', 'X', 'between')} {STEP.format('cached', 'between', 'Y')}"
PIPELINE = f'platform: "ensemble" ensemble_scheduling {{ {STEPS} }}'
MODELS = {
    "plain": (REFUSING, "dynamic_batching { }"),
    "bounded": (REFUSING, "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"),
    "cached": (REFUSING, "response_cache { enable: true }"),
    "stream": (STREAM, "model_transaction_policy { decoupled: true }"),
    "gate": (GATE, "dynamic_batching { }"),
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, (code, config) in MODELS.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text(code)
        (tmp_path / name / "config.pbtxt").write_text(f'backend: "python" {TENSORS} {config}')
    (tmp_path / "pipeline" / "1").mkdir(parents=True)
    (tmp_path / "pipeline" / "config.pbtxt").write_text(TENSORS + PIPELINE)
    return tmp_path


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def server(repository: Path, collector: Collector) -> Iterator[RunningServer]:
    """It traces each request, and sends what it traced at once."""
    trace = ["mode=opentelemetry", "level=TIMESTAMPS", "rate=1", f"opentelemetry,url={collector.url}/v1/traces"]
    trace += ["opentelemetry,bsp_max_queue_size=100000", "opentelemetry,bsp_schedule_delay=10"]
    with running_server(repository, cache_config=["local,size=1000000"], trace_config=trace) as running:
        yield running


ERRORS = {"BACKEND": "internal", "REJECTED": "unavailable", "CANCELED": "cancelled"}
"""The type of the error in a trace, by the reason of the failure in the metrics."""


def traced(collector: Collector, model: str, count: int) -> Counter[str]:
    """How requests to a model ended, and how many were executed, by their traces, of which there will be ``count``."""
    collector.wait_until(lambda found: sum(span.name == model for span in found.spans) >= count)
    spans = {span.span_id: span for span in collector.spans if span.name == model}
    ends: Counter[str] = Counter()
    for span in spans.values():
        attributes = {each.key: each.value for each in span.attributes}
        ends[attributes["error.type"].string_value if "error.type" in attributes else "ok"] += 1
        ends["hits"] += "trivet.cache_hit" in attributes
    ends["executed"] = sum(span.name == "compute_infer" and span.parent_span_id in spans for span in collector.spans)
    return +ends


class Counts:
    """What a server says of one model, by the metrics, the statistics extension and the traces; they must agree.

    ``refused`` requests were refused before they were any model's: only the traces have them.
    """

    def __init__(self, server: RunningServer, collector: Collector, model: str, refused: int = 0) -> None:
        with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics", timeout=30) as response:
            text = response.read().decode()
        metrics = {
            (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)).get("reason", "")): float(value)
            for name, labels, value in re.findall(r"^(\w+)\{([^}]*)\} (\S+)$", text, re.MULTILINE)
            if f'model="{model}"' in labels and "le=" not in labels
        }
        with urllib.request.urlopen(f"http://{server.http_url}/v2/models/{model}/stats", timeout=30) as response:
            (statistics,) = json.load(response)["model_stats"]
        inference = {name: int(part["count"]) for name, part in statistics["inference_stats"].items()}
        reasons = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
        self.failures = {reason: int(metrics["nv_inference_request_failure", reason]) for reason in reasons}
        self.failures = {reason: count for reason, count in self.failures.items() if count}
        self.success = int(metrics["nv_inference_request_success", ""])
        self.executions = int(metrics["nv_inference_exec_count", ""])
        self.inferences = int(metrics["nv_inference_count", ""])
        self.hits = int(metrics.get(("nv_cache_num_hits_per_model", ""), 0))
        self.responses = statistics.get("response_stats", {})
        assert inference["success"] == self.success == metrics["trivet_request_duration_seconds_count", ""]
        assert inference["queue"] == metrics["trivet_queue_duration_seconds_count", ""]
        assert inference["fail"] == sum(self.failures.values())
        assert inference["cache_hit"] == self.hits
        assert int(statistics["inference_count"]) == self.inferences
        assert int(statistics["execution_count"]) == self.executions
        assert sum(int(batch["compute_infer"]["count"]) for batch in statistics["batch_stats"]) == self.executions
        assert metrics["nv_inference_pending_request_count", ""] == 0
        ends = traced(collector, model, self.success + sum(self.failures.values()) + refused)
        self.executed = ends.pop("executed", 0)
        failed = {ERRORS[reason]: count for reason, count in self.failures.items()}
        assert ends == +Counter({"ok": self.success, "hits": self.hits, **failed, "invalid argument": refused})


def tensor(client: Any, value: float, rows: int = 1) -> Any:
    x = client.InferInput("X", [rows, 4], "FP32")
    x.set_data_from_numpy(np.full((rows, 4), value, np.float32))
    return x


def outcome(infer: Callable[[], Any]) -> str:
    """How a request ended for its client."""
    try:
        infer()
    except InferenceServerException as error:
        message = str(error)
        return next(word for word in ("negative", "queue size", "batch-size must be") if word in message)
    return "ok"


def ask(server: RunningServer, model: str, values: list[float], rows: int = 1) -> Counter[str]:
    """Requests by HTTP and gRPC in turn, 16 at a time."""

    def one(number: int) -> str:
        library, url = ((http_client, server.http_url), (grpc_client, server.grpc_url))[number % 2]
        with library.InferenceServerClient(url) as client:
            return outcome(lambda: client.infer(model, [tensor(library, values[number], rows)]))

    with ThreadPoolExecutor(16) as threads:
        return Counter(threads.map(one, range(len(values))))


def test_answers_failures_and_refusals(server: RunningServer, collector: Collector) -> None:
    plain = ask(server, "plain", [-1.0 if number % 5 == 0 else float(number) for number in range(300)])
    bounded = ask(server, "bounded", [1.0] * 200)
    cached = ask(server, "cached", [float(number % 10) for number in range(150)])
    refused = ask(server, "plain", [1.0] * 50, rows=9)
    assert plain == {"ok": 240, "negative": 60}
    assert cached == {"ok": 150}
    assert refused == {"batch-size must be": 50}  # before they were requests of the model: only the traces have them

    counts = Counts(server, collector, "plain", refused=50)
    assert (counts.success, counts.failures) == (240, {"BACKEND": 60})
    assert counts.executed == 300
    assert counts.inferences == 240
    counts = Counts(server, collector, "bounded")
    assert counts.success == bounded["ok"]
    assert counts.failures.get("REJECTED", 0) == bounded["queue size"] == 200 - bounded["ok"]
    counts = Counts(server, collector, "cached")
    assert (counts.success, counts.failures) == (150, {})
    assert counts.hits + counts.inferences == 150
    assert counts.executed == counts.inferences


def test_ensembles_count_beside_their_steps(server: RunningServer, collector: Collector) -> None:
    answers = ask(server, "pipeline", [-1.0 if number % 4 == 0 else float(number % 7) for number in range(100)])
    assert answers == {"ok": 75, "negative": 25}
    pipeline, plain, cached = (Counts(server, collector, model) for model in ("pipeline", "plain", "cached"))
    assert (pipeline.success, sum(pipeline.failures.values())) == (75, 25)
    assert (plain.success, plain.failures) == (75, {"BACKEND": 25})
    assert (cached.success, cached.failures) == (75, {})  # a step behind one that failed is not run
    assert cached.hits + cached.inferences == 75


def test_streams_count_requests_and_each_response(server: RunningServer, collector: Collector) -> None:
    answers: Counter[str] = Counter()
    done = threading.Semaphore(0)

    def answered(result: Any, error: Any) -> None:
        if error is not None:
            answers["error"] += 1
            done.release()
            return
        response = result.get_response()
        answers["response"] += bool(response.outputs)
        if response.parameters["triton_final_response"].bool_param:
            done.release()

    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=answered)
        for number in range(100):
            value = -1.0 if number % 5 == 0 else float(number % 3)
            client.async_stream_infer("stream", [tensor(grpc_client, value)], enable_empty_final_response=True)
        for _ in range(100):
            assert done.acquire(timeout=60)
        client.stop_stream()
    counts = Counts(server, collector, "stream")
    assert answers["error"] == 20
    assert (counts.success, counts.failures) == (80, {"BACKEND": 20})
    by_kind: Counter[str] = Counter()
    for statistics in counts.responses.values():
        for kind in ("success", "fail", "empty_response", "cancel"):
            by_kind[kind] += int(statistics[kind]["count"])
    assert by_kind == {"success": answers["response"], "fail": 20, "empty_response": 80, "cancel": 0}


def test_callers_that_give_up(server: RunningServer, repository: Path, collector: Collector) -> None:
    number = 50
    gone: Counter[str] = Counter()
    settled = threading.Semaphore(0)

    def answered(result: Any, error: Any) -> None:
        gone["ok" if error is None else "cancelled"] += 1
        settled.release()

    body = json.dumps({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
    head = f"POST /v2/models/gate/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    host, _, port = server.http_url.partition(":")
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        # Some stay, of which one is executed meanwhile; the others give up.
        calls = [client.async_infer("gate", [tensor(grpc_client, 1.0)], callback=answered)]
        wait_until(lambda: in_flight(server) == 1 and queued(server, "gate") == 0)
        calls += [
            client.async_infer("gate", [tensor(grpc_client, 1.0)], callback=answered) for _ in range(2 * number - 1)
        ]
        connections = [socket.create_connection((host, int(port))) for _ in range(number)]
        for connection in connections:
            connection.sendall(head + body)
        wait_until(lambda: in_flight(server) == 3 * number)
        for call in calls[number:]:
            call.cancel()
        for connection in connections:
            connection.close()
        wait_until(lambda: server.call(server.engine.statistics, "gate")[0].fail.count == 2 * number)
        (repository / "gate" / "open").touch()
        for _ in calls:
            assert settled.acquire(timeout=60)
    assert gone == {"ok": number, "cancelled": number}
    counts = Counts(server, collector, "gate")
    assert (counts.success, counts.failures) == (number, {"CANCELED": 2 * number})
    assert counts.executed == number
    assert in_flight(server) == 0


def test_streams_that_are_cut_off(server: RunningServer, repository: Path, collector: Collector) -> None:
    """A stream that ends with requests in flight cancels them."""
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: None)
        for _ in range(20):
            client.async_stream_infer("gate", [tensor(grpc_client, 1.0)])
        wait_until(lambda: in_flight(server) == 20)
        client.stop_stream(cancel_requests=True)
        wait_until(lambda: server.call(server.engine.statistics, "gate")[0].fail.count == 20)
    (repository / "gate" / "open").touch()
    # What was executed when they went is executed to its end, for nobody.
    wait_until(lambda: server.call(server.engine.statistics, "gate")[0].execution_count == 1)
    counts = Counts(server, collector, "gate")
    assert (counts.success, counts.failures) == (0, {"CANCELED": 20})


def in_flight(server: RunningServer) -> int:
    """Requests of all models that have not been answered."""
    count: int = server.call(lambda: sum(len(model.in_flight) for model in server.engine.ready_models()))
    return count


def queued(server: RunningServer, model: str) -> int:
    """Requests that no instance has taken."""
    count: int = server.call(lambda: server.engine.model(model).scheduler.queued)
    return count


def wait_until(true: Callable[[], bool]) -> None:
    """Nothing tells a client when a server has heard that another gave up."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
