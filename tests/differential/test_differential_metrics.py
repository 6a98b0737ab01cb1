"""Metrics side by side: each family that Triton shows has its name, type, text, labels and values here too."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair
from .waiting import wait_until

pytestmark = pytest.mark.differential

MODELS = Path(__file__).parent / "models"
# What a run decides: how long something took, how busy the machine is.
MEASURED = re.compile(r"duration|util|cpu_memory|summary")
# Read at intervals by Triton, and so not yet of what was just counted.
READ_NOW_AND_THEN = re.compile(
    r"^nv_cache_num_(entries|hits|misses|lookups|evictions)$|^nv_pinned_memory_pool_(total|used)_bytes$"
)

OWN_MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        family = pb_utils.MetricFamily
        labels = {"model": args["model_name"]}
        self.requests = family(name="seen_requests", description="Requests that it saw", kind=family.COUNTER)
        self.counter = self.requests.Metric(labels=labels)
        self.size = family(name="seen_size", description="Size of the last one", kind=family.GAUGE)
        self.gauge = self.size.Metric(labels=labels)
        self.wait_s = 0.5 if args["model_name"] == "bounded" else 0

    def execute(self, requests):
        time.sleep(self.wait_s)
        answers = []
        for request in requests:
            x = request.inputs()[0].as_numpy()
            self.counter.increment(1)
            self.gauge.set(x.size)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        return answers
"""
TENSORS = """
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: -1 }
output { name: "Y" data_type: TYPE_FP32 dims: -1 }
"""
STEP = """step {{ model_name: "{}" model_version: -1
  input_map {{ key: "X" value: "{}" }} output_map {{ key: "Y" value: "{}" }} }}"""
OWN_MODELS = {
    "plain": "",
    "cached": "response_cache { enable: true }",
    "tagged": 'metric_tags { key: "team" value: "a b" } metric_tags { key: "tier" value: "1" }',
    "bounded": "dynamic_batching { default_queue_policy { max_queue_size: 1 } }",
}


class Shown(NamedTuple):
    """One family of a scrape. Samples are by name and labels."""

    kind: str
    description: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    config = ["summary_latencies=true", "histogram_latencies=true"]
    with running_pair(
        MODELS,
        tmp_path_factory.mktemp("metrics"),
        options=[
            "--cache-config=local,size=1000000",
            *(f"--metrics-config={each}" for each in config),
        ],
        only=("double", "decoupled"),
        cache_config=["local,size=1000000"],
        metrics_config=config,
    ) as running:
        for server in running:
            _use(server)
        yield running


def _use(server: Endpoints) -> None:
    """Some requests that succeed, and some that are refused and do not count."""
    x = {"name": "INPUT0", "datatype": "FP32", "shape": [2, 16], "data": [1.0] * 32}
    for document in (*[{"inputs": [x]}] * 7, {"inputs": []}, {"inputs": [{**x, "shape": [9, 16]}]}):
        _post(f"http://{server.http}/v2/models/double/infer", document)
    _wait_until_counted(server, {"double": (7, 7)})


def _wait_until_counted(server: Endpoints, counts: Mapping[str, tuple[int, int]]) -> None:
    """``counts`` are successful requests and executions by model, which Triton counts after it answered."""
    names = ("nv_inference_request_success", "nv_inference_exec_count")

    def counted() -> bool:
        shown = _scrape(server)
        return all(
            shown[name].samples[found] >= count
            for model, expected in counts.items()
            for name, count in zip(names, expected, strict=True)
            for found in shown[name].samples
            if ("model", model) in found[1]
        )

    wait_until(counted, f"{counts} are counted")


def _post(url: str, document: object) -> int:
    """The status of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(document).encode()), timeout=30) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.read()
        return error.code
    return 200


def _scrape(server: Endpoints) -> dict[str, Shown]:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    families: dict[str, Shown] = {}
    description = name = ""
    for line in lines:
        if line.startswith("# HELP "):
            _, _, name, description = line.split(" ", 3)
        elif line.startswith("# TYPE "):
            families[name] = Shown(line.split(" ")[3], description, {})
        else:
            metric, _, value = line.rpartition(" ")
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', metric))
            families[name].samples[metric.partition("{")[0], labels] = float(value)  # type: ignore[index]
    return families


def test_each_family_of_triton_is_there_under_its_name(pair: Pair) -> None:
    theirs, ours = map(_scrape, pair)
    assert set(theirs) <= set(ours)
    for name in theirs:
        assert ours[name][:2] == theirs[name][:2], name


def test_each_sample_of_triton_is_there_with_its_labels_and_value(pair: Pair) -> None:
    theirs, ours = map(_scrape, pair)
    for name in theirs:
        expected, found = theirs[name].samples, ours[name].samples
        assert found.keys() >= expected.keys(), name
        if not MEASURED.search(name) and not READ_NOW_AND_THEN.match(name):
            assert {key: found[key] for key in expected} == expected, name


def test_the_pool_of_pinned_memory_has_its_size_also_where_no_gpu_is(pair: Pair) -> None:
    names = ("nv_pinned_memory_pool_total_bytes", "nv_pinned_memory_pool_used_bytes")

    def same() -> bool:
        theirs, ours = ([_scrape(server)[name].samples[name, frozenset()] for name in names] for server in pair)
        assert ours == [256 << 20, 0]
        assert theirs in ([0, 0], ours)  # not read yet, or the same
        return theirs == ours

    wait_until(same, "Triton has read the size of its pool")


def test_an_error_of_a_python_model_is_a_failure_here_and_a_success_there(
    real_triton: Endpoints, trivet: Endpoints
) -> None:
    assert "error counts" in DIFFERENCES
    labels = frozenset({("model", "failing"), ("version", "1")})
    success, failure = "nv_inference_request_success", "nv_inference_request_failure"

    def counts(server: Endpoints) -> tuple[float, float]:
        shown = _scrape(server)
        return (
            shown[success].samples[success, labels],
            shown[failure].samples[failure, labels | {("reason", "BACKEND")}],
        )

    grown = []
    for server in (real_triton, trivet):
        before = counts(server)
        tensor = {"name": "HOW", "datatype": "INT32", "shape": [1, 1], "data": [100]}
        _post(f"http://{server.http}/v2/models/failing/infer", {"inputs": [tensor]})
        # Triton answers first and counts then.
        wait_until(lambda server=server, before=before: counts(server) != before, "the request is counted")
        after = counts(server)
        grown.append((after[0] - before[0], after[1] - before[1]))
    assert grown == [(1, 0), (0, 1)]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers after the same requests to models with metrics and tags, a cache, a short queue, and an ensemble."""
    models = tmp_path_factory.mktemp("models")
    for name, config in OWN_MODELS.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / "model.py").write_text(OWN_MODEL)
        (models / name / "config.pbtxt").write_text(f'backend: "python" {TENSORS} {config}')
    steps = STEP.format("plain", "X", "between") + STEP.format("tagged", "between", "Y")
    (models / "pipeline" / "1").mkdir(parents=True)
    (models / "pipeline" / "config.pbtxt").write_text(
        f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ {steps} }}'
    )
    config = ["summary_latencies=true"]
    with running_pair(
        models,
        tmp_path_factory.mktemp("counted"),
        options=["--cache-config=local,size=1000000", "--metrics-config=summary_latencies=true"],
        cache_config=["local,size=1000000"],
        metrics_config=config,
    ) as running:
        for server in running:
            for model in ("plain", *["cached"] * 5, "tagged", "pipeline", "pipeline"):
                _ask(server, model)
            with ThreadPoolExecutor(16) as threads:
                bounded = list(threads.map(lambda _, server=server: _ask(server, "bounded"), range(16))).count(200)
            once = dict.fromkeys(("plain", "tagged"), (3, 3))
            _wait_until_counted(server, {**once, "pipeline": (2, 2), "cached": (5, 1), "bounded": (bounded, 1)})
        yield running


def _ask(server: Endpoints, model: str) -> int:
    """The status of the answer."""
    x = {"name": "X", "datatype": "FP32", "shape": [2, 2], "data": [1.0] * 4}
    return _post(f"http://{server.http}/v2/models/{model}/infer", {"inputs": [x]})


def test_metrics_of_models_tags_caches_and_ensembles(counted: Pair) -> None:
    theirs, ours = map(_scrape, counted)
    assert set(theirs) <= set(ours)
    for name in theirs:
        assert ours[name][:2] == theirs[name][:2], name
        expected, found = theirs[name].samples, ours[name].samples
        assert found.keys() >= expected.keys(), name
        if not MEASURED.search(name) and not READ_NOW_AND_THEN.match(name):
            assert _without(found, "bounded", expected) == _without(expected, "bounded", expected), name


def test_counts_and_sums_of_summaries(counted: Pair) -> None:
    theirs, ours = map(_scrape, counted)
    for name, shown in theirs.items():
        for key, value in shown.samples.items():
            if shown.kind == "summary" and key[0].endswith("_count") and ("model", "bounded") not in key[1]:
                assert ours[name].samples[key] == value, key


def test_a_full_queue_rejects_and_is_counted_here_alone(counted: Pair) -> None:
    assert "rejections count" in DIFFERENCES
    labels = frozenset({("model", "bounded"), ("version", "1")})
    reasons = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    refused = []
    for server in counted:
        shown = _scrape(server)
        answered = shown["nv_inference_request_success"].samples["nv_inference_request_success", labels]
        assert shown["seen_requests"].samples["seen_requests", frozenset({("model", "bounded")})] == answered < 16
        failures = shown["nv_inference_request_failure"].samples
        by_reason = [failures["nv_inference_request_failure", labels | {("reason", reason)}] for reason in reasons]
        refused.append((16 - answered, by_reason))
    (_, theirs), (missing, ours) = refused
    assert theirs == [0, 0, 0, 0]
    assert ours == [missing, 0, 0, 0]


def _without(
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float],
    model: str,
    shown: Mapping[tuple[str, frozenset[tuple[str, str]]], float],
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Those of ``samples`` that ``shown`` has as well, but for one model, whose counts chance decides."""
    return {key: samples[key] for key in shown if ("model", model) not in key[1]}
