"""Which requests share an execution, and what each sees there: ragged inputs, optional inputs, and requests that
do not fit the model."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest

from .differences import DIFFERENCES
from .messages import comparable
from .pairs import Pair, running_pair
from .recorders import BATCHES, TEXT, build, config

pytestmark = pytest.mark.differential

# A preferred size that all wait for, so that what arrives together is executed together.
PAIRS = "dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 1500000 }\n"
COUNTS = 'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" }\n'
SCATTER = 'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" }\n'

MODELS = {
    "plain": config(BATCHES, PAIRS),
    "ragged": config(BATCHES, PAIRS, COUNTS, SCATTER, x="allow_ragged_batch: true"),
    "optional": config(BATCHES, PAIRS, TEXT),
    "ragged_unbatched": config(x="allow_ragged_batch: true"),
    "shape_tensor": config(BATCHES, x="is_shape_tensor: true"),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    models = tmp_path_factory.mktemp("repository")
    build(models, MODELS)
    with running_pair(models, tmp_path_factory.mktemp("servers"), only=()) as pair:
        yield pair


def post(address: str, path: str, document: Any, binary: bytes = b"") -> tuple[int, Any]:
    head = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if binary else {}
    connection = HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", f"/v2/{path}", head + binary, headers)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None
    finally:
        connection.close()


def x(*rows: Sequence[float], shape: Sequence[int] | None = None) -> dict[str, Any]:
    data = [value for row in rows for value in row]
    return {
        "name": "x",
        "datatype": "FP32",
        "shape": [len(rows), len(rows[0])] if shape is None else shape,
        "data": data,
    }


def t(*texts: str) -> dict[str, Any]:
    return {"name": "t", "datatype": "BYTES", "shape": [len(texts) // 2, 2], "data": texts}


def executions(address: str, model: str, rounds: Sequence[Sequence[list[dict[str, Any]]]]) -> list[Any]:
    """What the model was given for ``rounds`` of requests; those of one round are sent at the same time."""
    assert post(address, f"repository/models/{model}/load", {}) == (200, None)
    answers = []
    with ThreadPoolExecutor(4) as pool:
        for together in rounds:
            documents = [{"inputs": inputs, "outputs": [{"name": "y"}]} for inputs in together]
            for status, answer in pool.map(lambda d: post(address, f"models/{model}/infer", d), documents):
                assert status == 200, answer
                answers.append(answer["outputs"])
    # A full batch by itself, so that it does not wait.
    status, answer = post(address, f"models/{model}/infer", {"inputs": [x([0], [0])], "outputs": [{"name": "log"}]})
    assert status == 200, answer
    log = json.loads(answer["outputs"][0]["data"][0])
    assert post(address, f"repository/models/{model}/unload", {}) == (200, None)
    # Which of the requests of a round is first is up to the threads here, and so is the order of executions.
    return [answers, sorted(sorted(json.dumps(inputs) for inputs in execution) for execution in log)]


ROUNDS = {
    "equal shapes": ("plain", [[[x([1, 2])], [x([3, 4])]]]),
    "different shapes": ("plain", [[[x([1, 2])], [x([3])]]]),
    "ragged": ("ragged", [[[x([1, 2])], [x([3])]]]),
    "ragged of batch size 2": ("ragged", [[[x([1, 2], [3, 4])]], [[x([5], [6])]]]),
    "ragged of size 0": ("ragged", [[[x([1])], [x([])]]]),
    "optional given": ("optional", [[[x([1]), t("a", "b")], [x([2]), t("c", "d")]]]),
    "optional left out": ("optional", [[[x([1])], [x([2])]]]),
    "optional given by one": ("optional", [[[x([1]), t("a", "b")], [x([2])]]]),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_the_same_requests_share_an_execution(servers: Pair, name: str) -> None:
    model, rounds = ROUNDS[name]
    triton, trivet = (executions(endpoints.http, model, rounds) for endpoints in servers)
    assert trivet == triton


REFUSED: dict[str, tuple[str, list[dict[str, Any]], bytes, str | None]] = {
    "too many rows": ("ragged", [x([1], [2], [3], [4], [5])], b"", None),
    "no batch dimension": ("ragged", [x([1, 2], shape=[2])], b"", None),
    "one dimension more": ("ragged", [x([1, 2], shape=[1, 1, 2])], b"", None),
    "no shape": ("ragged", [x([1], shape=[])], b"", None),
    "a batch input": ("ragged", [x([1]), {"name": "n", "datatype": "FP32", "shape": [1], "data": [1]}], b"", None),
    "unbatched, one dimension more": ("ragged_unbatched", [x([1, 2])], b"", None),
    "nothing": ("optional", [], b"", None),
    "unknown": ("optional", [x([1]), {"name": "u", "datatype": "FP32", "shape": [1, 1], "data": [1]}], b"", None),
    "three": ("optional", [x([1]), t("a", "b"), {**t("a", "b"), "name": "u"}], b"", None),
    "other batch": ("optional", [x([1]), t("a", "b", "c", "d")], b"", None),
    "other size": ("optional", [x([1]), {**t("a", "b"), "shape": [1, 1], "data": ["a"]}], b"", None),
    "only the optional one": ("optional", [t("a", "b")], b"", "required input"),
    "a batch of none": (
        "plain",
        [{"name": "x", "datatype": "FP32", "shape": [0, 2], "parameters": {"binary_data_size": 8}}],
        struct.pack("<2f", 1, 2),
        "batch of none",
    ),
    "a batch of none without data": ("plain", [{**x([1]), "shape": [0, 1], "data": []}], b"", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_alike(servers: Pair, name: str) -> None:
    model, inputs, binary, difference = REFUSED[name]

    def answer(address: str) -> tuple[int, str]:
        assert post(address, f"repository/models/{model}/load", {}) == (200, None)
        status, document = post(address, f"models/{model}/infer", {"inputs": inputs}, binary)
        return status, comparable(document.get("error", ""))

    triton, trivet = answer(servers.triton.http), answer(servers.trivet.http)
    assert trivet[0] == 400
    if difference is None:
        assert trivet == triton
    else:
        assert difference in DIFFERENCES
        assert trivet != triton


def test_shape_tensors_are_for_tensorrt_alone(servers: Pair) -> None:
    for endpoints in servers:
        status, answer = post(endpoints.http, "repository/models/shape_tensor/load", {})
        assert status == 400
        assert "shape tensors are only supported for TensorRT platform for shape_tensor" in answer["error"]
