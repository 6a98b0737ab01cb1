"""Metrics side by side: each family that Triton shows has its name, type, text, labels and values here too."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair

pytestmark = pytest.mark.differential

MODELS = Path(__file__).parent / "models"
# What a run decides: how long something took, how busy the machine is.
MEASURED = re.compile(r"duration|util|memory|summary_us")
# Trivet keeps no pool of pinned memory.
ABSENT = {"nv_pinned_memory_pool_total_bytes", "nv_pinned_memory_pool_used_bytes"}


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


def _post(url: str, document: object) -> None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(document).encode()), timeout=30) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.read()


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
    assert set(theirs) - set(ours) == ABSENT
    for name in theirs.keys() - ABSENT:
        assert ours[name][:2] == theirs[name][:2], name


def test_each_sample_of_triton_is_there_with_its_labels_and_value(pair: Pair) -> None:
    theirs, ours = map(_scrape, pair)
    for name in theirs.keys() - ABSENT:
        expected, found = theirs[name].samples, ours[name].samples
        assert found.keys() >= expected.keys(), name
        if not MEASURED.search(name):
            assert {key: found[key] for key in expected} == expected, name


def test_an_error_of_a_python_model_is_a_failure_here_and_a_success_there(
    real_triton: Endpoints, trivet: Endpoints
) -> None:
    assert "error counts" in DIFFERENCES
    labels = frozenset({("model", "failing"), ("version", "1")})
    success, failure = "nv_inference_request_success", "nv_inference_request_failure"
    grown = []
    for server in (real_triton, trivet):
        before = _scrape(server)
        tensor = {"name": "HOW", "datatype": "INT32", "shape": [1, 1], "data": [100]}
        _post(f"http://{server.http}/v2/models/failing/infer", {"inputs": [tensor]})
        after = _scrape(server)
        reason = labels | {("reason", "BACKEND")}
        grown.append(
            tuple(
                after[name].samples[name, key] - before[name].samples[name, key]
                for name, key in ((success, labels), (failure, reason))
            )
        )
    assert grown == [(1, 0), (0, 1)]
