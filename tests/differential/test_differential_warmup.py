"""Models are warmed up as a real Triton warms them up, and samples that fail cost the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from .messages import comparable
from .pairs import Pair, running_pair, running_triton
from .recorders import BATCHES, DECOUPLED, SHAPES_ONLY, TEXT, build, config, sample

pytestmark = pytest.mark.differential

_SOON = ["--exit-timeout-secs=1"]  # it is not waited for where it hangs

READY = {
    "zero": config(BATCHES, sample(more="batch_size: 2 count: 2")),
    "zero_that_says_false": config(BATCHES, sample("dims: [ 3 ] zero_data: false")),
    "random": config(BATCHES, SHAPES_ONLY, sample("dims: [ 5 ] random_data: true")),
    "files": config(
        BATCHES,
        TEXT,
        sample('dims: [ 3 ] input_data_file: "values"', more="batch_size: 2", t='input_data_file: "texts"'),
    ),
    "random_text": config(BATCHES, TEXT, sample(t="random_data: true")),
    "left_out": config(BATCHES, TEXT, sample()),
    "skipped": config(BATCHES, sample(more="batch_size: 0"), sample("dims: [ 2 ] zero_data: true", name="then")),
    "unbatched": config(sample(more="batch_size: 1 count: 2")),
    "decoupled": config(BATCHES, DECOUPLED, sample(more="batch_size: 2 count: 2")),
    "undeclared": config(BATCHES, sample(t="zero_data: true")),
    # What the scheduler would add is up to the sample: here one control of two.
    "sequence": config(
        BATCHES,
        """
        sequence_batching {
          control_input { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }
          control_input { name: "ready" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } }
        }
        """,
        sample(
            more='batch_size: 2 inputs { key: "start" value { data_type: TYPE_INT32 dims: [ 1 ] zero_data: true } }'
        ),
    ),
}

# What both say of why the model does not load. Not among them: a decoupled model that answers a sample with an error,
# which ends the real server's process more often than not.
FAILING = {
    "fails": (
        config(BATCHES, sample(), sample('dims: [ 3 ] input_data_file: "thirteen"', name="bad", more="batch_size: 2")),
        "Invalid argument: failed to run warmup sample 'bad': thirteen; thirteen; ",
    ),
    "short": (config(BATCHES, sample('dims: [ 30 ] input_data_file: "values"')), "warmup setting expects 120 bytes"),
    "no_file": (config(BATCHES, sample('dims: [ 3 ] input_data_file: "none"')), "failed to open text file for read"),
    "wrong_text": (
        config(BATCHES, TEXT, sample(t='input_data_file: "values"')),
        "for inference input 't'",
    ),
    "wrong_datatype": (
        config(BATCHES, sample("data_type: TYPE_INT32 dims: [ 3 ] zero_data: true")),
        "inference input 'x' data-type is 'INT32', but model 'wrong_datatype' expects 'FP32'",
    ),
    "wrong_rank": (
        config(BATCHES, sample("dims: [ 2, 2 ] zero_data: true")),
        "unexpected shape for input 'x' for model 'wrong_rank'",
    ),
    "variable": (
        config(BATCHES, sample("dims: [ -1 ] zero_data: true")),
        "warmup setting expects all variable-size dimensions are specified for input 'x'",
    ),
    "no_data": (
        config(BATCHES, sample("dims: [ 3 ]")),
        "warmup setting expects input 'x' to have input_data_type set",
    ),
    "no_input": (config(BATCHES, 'model_warmup { name: "s" batch_size: 1 }'), "missing required input(s) ['x']"),
    "too_large": (config(BATCHES, sample(more="batch_size: 5")), "max allowed is 4"),
    "unbatched_two": (config(sample(more="batch_size: 2")), "max allowed is 0"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    build(folder, READY | {name: text for name, (text, _) in FAILING.items()})
    return folder


@pytest.fixture(scope="module")
def servers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both, with no model loaded: several that fail at the same time can take the real one down."""
    with running_pair(models, tmp_path_factory.mktemp("servers"), only=()) as pair:
        yield pair


@pytest.fixture(scope="module")
def triton_says(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Why each model of ``FAILING`` does not load on a real Triton.

    One such load in twenty or so hangs there for good: then it is asked again, of a new server.
    """
    said: dict[str, str] = {}
    for _ in FAILING:
        folder = tmp_path_factory.mktemp("triton")
        with running_triton(models, folder, options=_SOON, only=()) as triton, suppress(TimeoutError):
            for name in FAILING.keys() - said:
                said[name] = refusal(triton.http, name)
        if said.keys() == FAILING.keys():
            break
    return said


def post(address: str, path: str, document: Any, *, timeout_s: float = 60) -> tuple[int, Any]:
    connection = HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("POST" if document is not None else "GET", f"/v2/{path}", document and json.dumps(document))
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None
    finally:
        connection.close()


@pytest.mark.parametrize("name", READY)
def test_a_model_is_given_the_same_before_it_is_ready(servers: Pair, name: str) -> None:
    def given(address: str) -> Any:
        assert post(address, f"repository/models/{name}/load", {}) == (200, None)
        _, statistics = post(address, f"models/{name}/stats", None)
        [model] = statistics["model_stats"]
        counts = [model["inference_count"], model["execution_count"], model["inference_stats"]["success"]["count"]]
        batches = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in model["batch_stats"]}
        return counts, batches, None if name == "decoupled" else log(address, name)

    triton, trivet = map(given, (servers.triton.http, servers.trivet.http))
    assert trivet == triton


def log(address: str, name: str) -> Any:
    shape = [1] if name == "unbatched" else [1, 1]
    request: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": [0]}]}
    if name == "sequence":
        request["parameters"] = {"sequence_id": "a", "sequence_start": True, "sequence_end": True}
    status, answer = post(address, f"models/{name}/infer", request)
    assert status == 200, answer
    return json.loads(next(output["data"][0] for output in answer["outputs"] if output["name"] == "log"))


def refusal(address: str, name: str) -> str:
    status, answer = post(address, f"repository/models/{name}/load", {}, timeout_s=12)
    assert status == 400
    assert post(address, f"models/{name}/ready", None)[0] == 400
    return comparable(answer["error"])


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.timeout(300)  # the real one may have to be started several times
def test_a_sample_that_fails_fails_the_load(servers: Pair, triton_says: dict[str, str], name: str) -> None:
    for message in (triton_says[name], refusal(servers.trivet.http, name)):
        assert message.startswith(f"load failed for model '{name}': version 1 is at UNAVAILABLE state: ")
        assert FAILING[name][1] in message
