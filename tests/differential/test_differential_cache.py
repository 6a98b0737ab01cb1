"""The response cache of a real Triton and of Trivet: the same requests hit, and statistics count them alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair
from .waiting import wait_until

pytestmark = pytest.mark.differential

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.executions = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            self.executions += 1
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if (x == 7).any():
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("seven")))
                continue
            doubled = pb_utils.Tensor("DOUBLED", x * 2)
            count = pb_utils.Tensor("COUNT", np.full_like(x, self.executions))
            responses.append(pb_utils.InferenceResponse([doubled, count]))
        return responses
"""

OUTPUTS = """
output [{ name: "DOUBLED" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "COUNT" data_type: TYPE_FP32 dims: [ -1 ] }]
"""
TENSORS = 'max_batch_size: 8 input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }' + OUTPUTS
PYTHON = 'backend: "python" instance_group { kind: KIND_CPU }' + TENSORS
CACHED = "response_cache { enable: true }"
ENSEMBLE = f"""
platform: "ensemble" {CACHED} {TENSORS}
ensemble_scheduling {{ step {{
  model_name: "plain" model_version: -1 input_map {{ key: "X" value: "X" }}
  output_map {{ key: "DOUBLED" value: "DOUBLED" }} output_map {{ key: "COUNT" value: "COUNT" }}
}} }}
"""

CONFIGURATIONS = {
    "cached": PYTHON + CACHED,
    "batched": PYTHON + CACHED + "dynamic_batching { max_queue_delay_microseconds: 100 }",
    "plain": PYTHON,
    "off": PYTHON + "response_cache { enable: false }",
    "ensemble": ENSEMBLE,
    "sequence": PYTHON + CACHED + "sequence_batching {}",
    "decoupled": PYTHON + CACHED + "model_transaction_policy { decoupled: true }",
}


class Ask(NamedTuple):
    """One request; ``more`` is what else its JSON says."""

    x: list[list[float]]
    more: Mapping[str, Any] = MappingProxyType({})


ONE = Ask([[1, 2]])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    models = tmp_path_factory.mktemp("models")
    for name, config in CONFIGURATIONS.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.pbtxt").write_text(config)
        if name != "ensemble":
            (models / name / "1" / "model.py").write_text(MODEL)
    setting = "local,size=1048576"
    folder = tmp_path_factory.mktemp("pair")
    with running_pair(models, folder, options=[f"--cache-config={setting}"], cache_config=[setting]) as running:
        yield running


def call(server: Endpoints, path: str, document: Any = None) -> Any:
    """The JSON of the answer; an error's too."""
    data = None if document is None else json.dumps(document).encode()
    try:
        with urlopen(Request(f"http://{server.http}/v2/{path}", data), timeout=60) as response:
            content = response.read()
    except HTTPError as error:
        content = error.read()
    return json.loads(content) if content else None


def infer(server: Endpoints, model: str, ask: Ask) -> Any:
    """Outputs by name, or the error."""
    shape = [len(ask.x), len(ask.x[0])]
    x = {"name": "X", "datatype": "FP32", "shape": shape, "data": [value for row in ask.x for value in row]}
    answer = call(server, f"models/{model}/infer", {"inputs": [x], **ask.more})
    if "error" in answer:
        return answer["error"]
    return {output["name"]: (output["shape"], output["data"]) for output in answer["outputs"]}


def counts(server: Endpoints, model: str) -> dict[str, Any]:
    """What statistics count; of durations, whether there was any."""
    (statistics,) = call(server, f"models/{model}/stats")["model_stats"]
    # An instance of ours is a thread, which has nothing to do for inputs and outputs of a Python model.
    timed = ("success", "fail", "queue", "cache_hit", "cache_miss") if model != "ensemble" else ()
    parts = {
        name: (int(part.get("count", 0)), int(part.get("ns", 0)) > 0 if name in timed else None)
        for name, part in statistics["inference_stats"].items()
    }
    batches = {batch["batch_size"]: int(batch["compute_infer"]["count"]) for batch in statistics.get("batch_stats", [])}
    return {
        "inference_count": int(statistics.get("inference_count", 0)),
        "execution_count": int(statistics.get("execution_count", 0)),
        **parts,
        "batches": batches,
    }


def both(pair: Pair, model: str, *asks: Ask) -> tuple[Any, Any]:
    """Answers to ``asks``, one after the other, and what statistics counted for them."""
    seen = []
    for server in pair:
        before = counts(server, model)
        answers = [infer(server, model, ask) for ask in asks]
        after = settled(server, model, before, len(asks))
        seen.append((answers, {name: _less(after[name], before[name]) for name in after}))
    return seen[0], seen[1]


def settled(server: Endpoints, model: str, before: Mapping[str, Any], asked: int) -> dict[str, Any]:
    """What statistics count, ``asked`` requests after ``before``; Triton counts a request, and then its execution,
    after it answered it."""

    def counted(of: Mapping[str, Any]) -> tuple[int, int]:
        return of["success"][0] + of["fail"][0], of["execution_count"] + of["cache_hit"][0]

    def complete() -> bool:
        return all(new >= old + asked for new, old in zip(counted(counts(server, model)), counted(before), strict=True))

    wait_until(complete, f"'{model}' has counted {asked} requests")
    return counts(server, model)


def _less(after: Any, before: Any) -> Any:
    if isinstance(after, tuple):
        return after[0] - before[0], after[1]
    if isinstance(after, dict):
        return {size: count - before.get(size, 0) for size, count in after.items() if count != before.get(size, 0)}
    return after - before


def doubled(answer: Any) -> Any:
    return answer["DOUBLED"] if isinstance(answer, dict) else answer


@pytest.mark.parametrize("model", ["cached", "batched", "plain", "off", "ensemble"])
@pytest.mark.parametrize(
    "asks",
    [
        pytest.param([ONE] * 3, id="equal"),
        pytest.param([Ask([[3, 4]]), Ask([[3, 5]]), Ask([[3, 4]])], id="different"),
        pytest.param([Ask([[5, 6], [7.5, 8]])] * 2 + [Ask([[5, 6]])], id="batches"),
        pytest.param([Ask([[9, 9]], {"id": "a"}), Ask([[9, 9]], {"id": "b"})], id="ids"),
        pytest.param([Ask([[10, 9]], {"parameters": {"priority": 1}}), Ask([[10, 9]])], id="priority"),
        pytest.param([Ask([[0.0]]), Ask([[-0.0]])], id="zeros"),
        pytest.param([Ask([[11]], {"outputs": [{"name": "COUNT"}, {"name": "DOUBLED"}]})] * 2, id="outputs"),
    ],
)
def test_the_same_requests_hit(pair: Pair, model: str, asks: list[Ask]) -> None:
    triton, trivet = both(pair, model, *asks)
    assert triton[1] == trivet[1]
    assert [doubled(answer) for answer in triton[0]] == [doubled(answer) for answer in trivet[0]]


def test_hits_do_not_execute(pair: Pair) -> None:
    """The suite compares what it means to compare."""
    for _, counted in both(pair, "cached", *[Ask([[20.0]])] * 3):
        assert counted["cache_hit"][0] == 2
        assert counted["cache_miss"][0] == counted["execution_count"] == 1


@pytest.mark.parametrize("model", ["sequence", "decoupled"])
def test_models_that_cannot_be_cached_are_refused_alike(pair: Pair, model: str) -> None:
    triton, trivet = (call(server, f"repository/models/{model}/load", {})["error"] for server in pair)
    assert triton == f"failed to load '{model}', failed to poll from model repository"  # the reason is in its log
    assert f"Response Cache does not currently support model {model} with" in trivet


@pytest.mark.parametrize(
    ("difference", "asks", "triton_hits"),
    [
        ("cached error", [Ask([[7.0]])] * 2, 1),
        ("cached outputs", [Ask([[30.0]], {"outputs": [{"name": "DOUBLED"}]}), Ask([[30.0]])], 1),
        ("cached shape", [Ask([[31.0, 32.0]]), Ask([[31.0], [32.0]])], 1),
        ("cached parameters", [Ask([[33.0]]), Ask([[33.0]], {"parameters": {"p": 1}})], 1),
        ("cached sequence", [Ask([[34.0]]), Ask([[34.0]], {"parameters": {"sequence_id": 5}})], 1),
    ],
)
def test_where_triton_answers_with_the_response_to_something_else(
    pair: Pair, difference: str, asks: list[Ask], triton_hits: int
) -> None:
    assert difference in DIFFERENCES
    (triton_answers, triton), (trivet_answers, trivet) = both(pair, "cached", *asks)
    assert (triton["cache_hit"][0], trivet["cache_hit"][0]) == (triton_hits, 0)
    if difference not in ("cached parameters", "cached sequence"):
        assert [doubled(one) if "DOUBLED" in one else one for one in triton_answers] != [
            doubled(one) if "DOUBLED" in one else one for one in trivet_answers
        ] or triton_answers[1].keys() != trivet_answers[1].keys()


def test_a_changed_model(pair: Pair) -> None:
    """Triton goes on with what the model of before computed."""
    assert "cached model" in DIFFERENCES
    ask = Ask([[40.0]])
    last = []
    for server in pair:
        infer(server, "cached", ask)
        config = json.dumps(
            {"backend": "python", "max_batch_size": 4, "response_cache": {"enable": True}, **_tensors()}
        )
        assert call(server, "repository/models/cached/load", {"parameters": {"config": config}}) is None
        unused = counts(server, "cached")
        infer(server, "cached", ask)
        last.append(settled(server, "cached", unused, 1)["cache_hit"][0])
    assert last == [1, 0]


def _tensors() -> dict[str, Any]:
    names = {"input": ["X"], "output": ["DOUBLED", "COUNT"]}
    return {kind: [{"name": name, "data_type": "TYPE_FP32", "dims": [-1]} for name in names[kind]] for kind in names}
