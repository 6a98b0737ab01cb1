"""What a server exports: metrics, statistics and the client count the same requests alike."""

from __future__ import annotations

import queue
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic
from python_models import REPEAT
from tritonclient.utils import InferenceServerException
from trivet.inference import InferenceRequest
from trivet.tensor import Tensor
from trivet.testing import RunningServer, running_server

MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.family = pb_utils.MetricFamily(
            name="seen_total", description="What it saw", kind=pb_utils.MetricFamily.COUNTER)
        self.seen = self.family.Metric(labels={"who": "model"})

    def execute(self, requests):
        answers = []
        for request in requests:
            x = request.inputs()[0].as_numpy()
            self.seen.increment(1)
            if x.min() < 0:
                answers.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("negative")))
            else:
                answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        return answers
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: 4 }
output { name: "Y" data_type: TYPE_FP32 dims: 4 }
"""
BUCKETS = """
model_metrics { metric_control {
  metric_identifier { family: "nv_inference_first_response_histogram_ms" }
  histogram_options { buckets: [ 10, 60000 ] } } }
"""
ODD_BUCKETS = BUCKETS.replace("10, 60000", "60000, inf, 10, 10, nan, -inf")
NAMES_OF_OTHERS = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.metrics = [
            family.Metric(labels={"of": "half \\udcff"})
            for family in (
                pb_utils.MetricFamily("nv_inference_count", "The server's", pb_utils.MetricFamily.COUNTER),
                pb_utils.MetricFamily("trivet_request_duration_seconds_sum", "Also", pb_utils.MetricFamily.GAUGE),
                pb_utils.MetricFamily("own", "The model's \\udcff", pb_utils.MetricFamily.GAUGE),
            )
        ]
        for metric in self.metrics:
            metric.increment(7)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", each.inputs()[0].as_numpy())]) for each in requests]
"""


def add(repository: Path, name: str, code: str = MODEL, config: str = "") -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    (folder.parent / "config.pbtxt").write_text(CONFIG + config)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    add(tmp_path, "plain", config='metric_tags { key: "team" value: "a" }')
    add(tmp_path, "bounded", config="dynamic_batching { default_queue_policy { max_queue_size: 1 } }")
    add(tmp_path, "cached", config="response_cache { enable: true }")
    add(tmp_path, "repeat", REPEAT, "model_transaction_policy { decoupled: true }")
    add(tmp_path, "buckets", REPEAT, f"model_transaction_policy {{ decoupled: true }} {BUCKETS}")
    add(tmp_path, "odd_buckets", REPEAT, f"model_transaction_policy {{ decoupled: true }} {ODD_BUCKETS}")
    with running_server(
        tmp_path,
        cache_config=["local,size=1000000"],
        metrics_config=["summary_latencies=true", "histogram_latencies=true"],
    ) as running:
        yield running


def scrape(server: RunningServer, accept: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    call = urllib.request.Request(f"http://{server.url('metrics')}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(call, timeout=30) as response:
        text = response.read().decode()
    if accept:
        samples = [sample for family in read_openmetrics(text) for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    # Not by the client library: it gives every counter a name that ends with "_total".
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {
        (metric.partition("{")[0], frozenset(re.findall(r'(\w+)="([^"]*)"', metric))): float(value)
        for metric, _, value in lines
    }


def sample(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def ask(server: RunningServer, model: str, value: float) -> str:
    """One request; says how it ended."""
    x = http_client.InferInput("X", [1, 4], "FP32")
    x.set_data_from_numpy(np.full((1, 4), value, np.float32))
    try:
        with http_client.InferenceServerClient(server.http_url) as client:
            client.infer(model, [x])
    except InferenceServerException as error:
        return "rejected" if "queue size" in str(error) else "failed"
    return "ok"


def test_metrics_statistics_and_client_agree_on_every_request(server: RunningServer) -> None:
    with ThreadPoolExecutor(16) as threads:
        plain = Counter(threads.map(lambda n: ask(server, "plain", -1.0 if n % 5 == 0 else 1.0), range(400)))
        bounded = Counter(threads.map(lambda _: ask(server, "bounded", 1.0), range(400)))
        cached = Counter(threads.map(lambda n: ask(server, "cached", float(n % 10)), range(200)))
    assert plain == {"ok": 320, "failed": 80}
    assert cached == {"ok": 200}
    assert set(bounded) <= {"ok", "rejected"}

    found = scrape(server)
    tags = {"model": "plain", "version": "1", "_team": "a"}
    for model, labels, counts in (
        ("plain", tags, plain),
        ("bounded", {"model": "bounded", "version": "1"}, bounded),
        ("cached", {"model": "cached", "version": "1"}, cached),
    ):
        (statistics,) = server.call(server.engine.statistics, model)
        assert sample(found, "nv_inference_request_success", **labels) == counts["ok"] == statistics.success.count
        assert sample(found, "nv_inference_request_failure", **labels, reason="BACKEND") == counts["failed"]
        assert sample(found, "nv_inference_request_failure", **labels, reason="REJECTED") == counts["rejected"]
        assert statistics.fail.count == counts["failed"] + counts["rejected"]
        assert sample(found, "nv_inference_count", **labels) == statistics.inference_count
        assert sample(found, "nv_inference_exec_count", **labels) == statistics.execution_count
        assert sample(found, "nv_inference_queue_duration_us", **labels) == statistics.queue.ns // 1000
        assert sample(found, "nv_inference_pending_request_count", **labels) == 0
        assert sample(found, "trivet_request_duration_seconds_count", **labels) == counts["ok"]
        assert sample(found, "trivet_queue_duration_seconds_bucket", **labels, le="+Inf") == counts["ok"]
        assert sample(found, "trivet_batch_size_count", **labels) == statistics.execution_count
        assert sample(found, "nv_inference_request_summary_us_count", **labels) == counts["ok"]
        assert sample(found, "nv_inference_request_summary_us", **labels, quantile="0.5") > 0
    (statistics,) = server.call(server.engine.statistics, "cached")
    labels = {"model": "cached", "version": "1"}
    assert sample(found, "nv_cache_num_hits_per_model", **labels) == statistics.cache_hit.count
    assert sample(found, "nv_cache_num_misses_per_model", **labels) == statistics.cache_miss.count
    assert statistics.cache_hit.count + statistics.cache_miss.count == 200
    for what, duration in (("hit", statistics.cache_hit), ("miss", statistics.cache_miss)):
        assert sample(found, f"nv_cache_{what}_summary_per_model_count", **labels) == duration.count
        median = sample(found, f"nv_cache_{what}_summary_per_model", **labels, quantile="0.5")
        assert 0 < median <= duration.ns / 1000
    # Requests that the cache answered were not computed in no time: they were not computed.
    assert sample(found, "nv_inference_compute_infer_summary_us", **labels, quantile="0.5") > 0
    assert sample(found, "trivet_cache_insertions_total", cache="local") == statistics.cache_miss.count
    assert sample(found, "nv_cache_num_entries") == 10
    executed = sum(
        server.call(server.engine.statistics, model)[0].batches[1].compute_infer.count
        for model in ("plain", "bounded", "cached")
    )
    assert sample(found, "seen_total", who="model") == executed
    assert sample(found, "nv_cpu_memory_total_bytes") > sample(found, "nv_cpu_memory_used_bytes") > 0


def test_a_request_whose_caller_gave_up_is_counted_as_cancelled(server: RunningServer) -> None:
    engine = server.engine

    async def submit_and_cancel() -> None:
        request = InferenceRequest("plain", {"X": Tensor.from_numpy("X", np.ones((1, 4), np.float32))})
        engine.submit(request)
        engine.cancel(request)

    server.call(submit_and_cancel)
    labels = {"model": "plain", "version": "1", "_team": "a"}
    assert sample(scrape(server), "nv_inference_request_failure", **labels, reason="CANCELED") == 1


def test_first_responses_of_decoupled_models(server: RunningServer) -> None:
    answers: queue.Queue[object] = queue.Queue()
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: answers.put(error))
        x = grpc_client.InferInput("X", [1, 4], "FP32")
        x.set_data_from_numpy(np.ones((1, 4), np.float32))
        client.async_stream_infer("repeat", [x])
        assert [answers.get(timeout=30) for _ in range(3)] == [None] * 3
        client.stop_stream()
    found = scrape(server)
    name = "nv_inference_first_response_histogram_ms"
    assert sample(found, f"{name}_count", model="repeat", version="1") == 1
    bounds = {
        model: [dict(labels)["le"] for of, labels in found if of == f"{name}_bucket" and ("model", model) in labels]
        for model in ("repeat", "buckets", "odd_buckets")
    }
    assert bounds == {
        "repeat": ["100.0", "500.0", "2000.0", "5000.0", "+Inf"],
        "buckets": ["10.0", "60000.0", "+Inf"],
        "odd_buckets": ["10.0", "60000.0", "+Inf"],
    }


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_what_a_model_calls_its_metrics_does_not_spoil_the_page(tmp_path: Path, accept: str) -> None:
    add(tmp_path, "names", NAMES_OF_OTHERS)
    with running_server(tmp_path) as server:
        assert ask(server, "names", 1.0) == "ok"
        call = urllib.request.Request(f"http://{server.url('metrics')}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(call, timeout=30) as response:
            text = response.read().decode()
    families = list((read_openmetrics if accept else read_classic)(text))
    assert len(families) == len({family.name for family in families})
    samples = [sample for family in families for sample in family.samples]
    theirs = [sample for sample in samples if "of" in sample.labels]
    assert [(sample.name, sample.labels, sample.value) for sample in theirs] == [("own", {"of": "half ?"}, 7)]
    (own,) = [family for family in families if family.name == "own"]
    assert own.documentation == "The model's ?"
    assert 'nv_inference_count{model="names",version="1"} 1\n' in text


def test_openmetrics_shows_the_same(server: RunningServer) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    assert {name for name, _ in scrape(server)} == {name for name, _ in scrape(server, accept)}


@pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
def test_openmetrics_has_examples_with_the_trace_that_callers_say(server: RunningServer, module: Any) -> None:
    """By either protocol, whether or not the server traces anything itself."""
    trace = {http_client: "0af7651916cd43dd8448eb211c80319c", grpc_client: "4bf92f3577b34da6a3ce929d0e0e4736"}[module]
    x = module.InferInput("X", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    with module.InferenceServerClient(server.http_url if module is http_client else server.grpc_url) as client:
        client.infer("plain", [x], headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    accept = "application/openmetrics-text; version=1.0.0"
    scraped = urllib.request.Request(f"http://{server.url('metrics')}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(scraped, timeout=30) as response:
        assert f'# {{trace_id="{trace}"}}' in response.read().decode()


def test_metrics_can_be_left_out(tmp_path: Path) -> None:
    add(tmp_path, "plain")
    with running_server(tmp_path, allow_metrics=False) as server, pytest.raises(LookupError):
        server.url("metrics")
