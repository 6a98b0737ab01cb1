"""Sequences as a model of the Python backend sees them: batches, rows, controls; and what clients are told.

Of implicit state, Triton's Python backend shows a model what a sequence begins with, and takes none back; the rest is
tested without it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .differences import DIFFERENCES
from .pairs import Endpoints, Pair, running_pair
from .sequence_cases import CASES, Case, Stream
from .sequence_models import MODEL, MODELS

pytestmark = pytest.mark.differential


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    models = tmp_path_factory.mktemp("repository")
    for name, text in MODELS.items():
        folder = models / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL)
        (folder.parent / "config.pbtxt").write_text(text)
        if "numbers" in text:
            (folder.parent / "initial_state").mkdir()
            (folder.parent / "initial_state" / "numbers").write_bytes(np.array([7, 8, 9, 10], np.int32).tobytes())
    # The real one waits when it stops until the last sequence is idle for long enough.
    with running_pair(models, Path(tmp_path_factory.mktemp("servers")), options=["--exit-timeout-secs=1"]) as pair:
        yield pair


def both(servers: Pair, model: str, case: Case) -> tuple[Any, Any]:
    seen = []
    for server in servers:
        stream = Stream(server, model)
        try:
            seen.append(case(stream))
        finally:
            stream.client.stop_stream()
            stream.client.close()
    return seen[0], seen[1]


@pytest.mark.parametrize(
    ("model", "case"), CASES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_both_show_the_model_the_same_batches_and_clients_the_same_errors(
    servers: Pair, model: str, case: Case
) -> None:
    real, ours = both(servers, model, case)
    assert ours == real


def test_a_request_of_a_sequence_is_one_entry(servers: Pair) -> None:
    def refusal(address: str) -> str:
        x = triton.InferInput("X", [2, 1], "INT32").set_data_from_numpy(np.zeros((2, 1), np.int32))
        with triton.InferenceServerClient(address) as client, pytest.raises(InferenceServerException) as raised:
            client.infer("direct", [x], sequence_id=1, sequence_start=True)
        return str(raised.value)

    assert refusal(servers.trivet.grpc) == refusal(servers.triton.grpc)


def test_rows_without_a_request_count_as_executed_and_not_as_inferences(servers: Pair) -> None:
    def counted(server: Endpoints) -> Any:
        stream = Stream(server, "two")
        for id in (1, 2, 3, 4):
            stream.ask(id, start=True)
        with triton.InferenceServerClient(server.grpc) as client:
            before = settled(client, 4)
            for id in (1, 2, 3, 4):
                stream.ask(id, end=True)
            after = settled(client, before[0] + 4)
        stream.client.stop_stream()
        stream.client.close()
        return [new - old for old, new in zip(before, after, strict=True)]

    triton_counts, trivet_counts = counted(servers.triton), counted(servers.trivet)
    assert trivet_counts == triton_counts


def settled(client: Any, inferences: int) -> list[int]:
    """The counters of model ``two``, which the real one writes some time after an answer."""
    for _ in range(100):
        counts = statistics(client, "two")
        if counts[0] >= inferences:
            break
        time.sleep(0.05)
    return counts


def statistics(client: Any, model: str) -> list[int]:
    [found] = client.get_inference_statistics(model).model_stats
    sizes = {batch.batch_size: batch.compute_infer.count for batch in found.batch_stats}
    return [found.inference_count, found.execution_count, sizes.get(1, 0), sizes.get(2, 0)]


def test_a_text_as_correlation_id_reaches_a_model_that_asks_for_it(servers: Pair) -> None:
    assert "string corrid" in DIFFERENCES
    real, ours = both(servers, "text", lambda s: s.ask("abc", start=True, end=True))
    assert real == "unexpected number of string elements 2 for inference input 'CORRID', expecting 1"
    [row] = ours
    assert row["CORRID"] == ["object", [1, 1], "[b'abc']"]


def test_a_sequence_is_not_idle_while_its_request_is_executed(servers: Pair) -> None:
    assert "idle time" in DIFFERENCES
    real, ours = both(servers, "idle", lambda s: [s.ask(1, 2500, start=True), s.ask(1, end=True)])
    assert ours[0] == real[0]
    assert "must specify the START flag" in real[1]
    assert ours[1][0]["request"] == ["", 1, 2]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"sequence_id": 0, "sequence_start": True},
        {"sequence_id": "", "sequence_start": True},
        {"sequence_id": 41},
        {"sequence_id": "einundvierzig"},
        {"sequence_id": 42, "sequence_start": True, "sequence_end": True},
        {"sequence_id": "x" * 129, "sequence_start": True, "sequence_end": True},
        {"sequence_id": 2**64 - 1, "sequence_start": True, "sequence_end": True},
        {"sequence_id": -1, "sequence_start": True, "sequence_end": True},
        {"sequence_id": 1.5, "sequence_start": True, "sequence_end": True},
        {"sequence_id": True, "sequence_start": True, "sequence_end": True},
        {"sequence_id": 43, "sequence_start": 1},
        {"sequence_id": 43, "sequence_start": "true"},
    ],
    ids=str,
)
def test_requests_over_http_are_told_the_same(servers: Pair, parameters: dict[str, Any]) -> None:
    def by_http(address: str) -> tuple[int, Any]:
        x = {"name": "X", "datatype": "INT32", "shape": [1, 1], "data": [0]}
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", "/v2/models/bare/infer", json.dumps({"inputs": [x], "parameters": parameters}))
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        return response.status, body.get("error") or json.loads(body["outputs"][0]["data"][0])

    assert by_http(servers.trivet.http) == by_http(servers.triton.http)
