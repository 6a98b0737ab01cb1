"""Archives of TorchServe on a server, over sockets: what a client gets of what a handler says."""

from __future__ import annotations

import json
import queue
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

pytest.importorskip("torch")

STATUS = """
def handle(data, context):
    answers = []
    for index, row in enumerate(data or ()):
        text = row["data"].decode()
        context.metrics.add_counter("Asked", 1)
        context.set_response_header(index, "x-length", str(len(text)))
        if text == "bad":
            context.set_response_status(422, "Unprocessable Entity", index)
        answers.append(f"{len(data)} {text}")
    return answers
"""
STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    for part in range(2 if data else 0):
        parts = [f"{part} {row['data'].decode()}" for row in data]
        send_intermediate_predict_response(parts, context.request_ids, "Intermediate", 200, context)
    for index, row in enumerate(data or ()):
        if row["data"] == b"more":
            send_intermediate_predict_response(["and more"], {0: context.request_ids[index]}, "", 200, context)
    return ["last"] * len(data or ())
"""
SEQUENCE = """
sums = {}

def handle(data, context):
    for index, row in enumerate(data or ()):
        name = context.get_sequence_id(index)
        sums[name] = sums.get(name, 0) + int(row["data"])
    return [sums[context.get_sequence_id(index)] for index in range(len(data or ()))]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"


def write(repository: Path, name: str, handler: str, options: str = "", config: str = "") -> None:
    (repository / name / "1").mkdir(parents=True)
    with zipfile.ZipFile(repository / name / "1" / "model.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": name, "handler": "handler.py"}}))
        archive.writestr("handler.py", handler)
        archive.writestr("model-config.yaml", options)
    if config:
        (repository / name / "config.pbtxt").write_text(config)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("archives")
    write(repository, "status", STATUS, "batchSize: 3\nmaxBatchDelay: 30000\n")
    write(repository, "stream", STREAM, config=DECOUPLED)
    write(repository, "batched", STREAM, "batchSize: 3\nmaxBatchDelay: 30000\n", config=DECOUPLED)
    write(repository, "whole", STREAM)
    write(repository, "sums", SEQUENCE, "minWorkers: 2\nbatchSize: 2\nsequenceBatching: true\n")
    with running_server(repository) as running:
        yield running


def given(client: Any, *rows: bytes) -> list[Any]:
    tensor = client.InferInput("data", [len(rows), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[row] for row in rows], dtype=object))
    return [tensor]


def test_of_a_batch_only_the_row_that_the_handler_refuses_fails(server: RunningServer) -> None:
    arrived: queue.Queue[tuple[str, Any]] = queue.Queue()
    with triton_grpc.InferenceServerClient(server.grpc_url) as connection:
        for text in (b"good", b"bad", b"fine"):
            connection.async_infer(
                "status",
                given(triton_grpc, text),
                lambda result, error, text=text: arrived.put((text.decode(), error or result)),
            )
        answers = dict(arrived.get(timeout=60) for _ in range(3))
    assert answers["good"].as_numpy("prediction").tolist() == [[b"3 good"]]
    assert answers["fine"].get_response().parameters["x-length"].string_param == "4"
    assert isinstance(answers["bad"], InferenceServerException)
    assert "3 bad (status 422, Unprocessable Entity, model 'status' version 1)" in str(answers["bad"])
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics") as page:
        assert 'Asked{Level="Model",ModelName="status"} 3' in page.read().decode()


def test_an_unpacked_archive_is_one_whatever_files_it_has(tmp_path: Path) -> None:
    version = tmp_path / "unpacked" / "1"
    write(
        tmp_path, "unpacked", "from model import ANSWER\n\ndef handle(data, context):\n    return data and [ANSWER]\n"
    )
    with zipfile.ZipFile(version / "model.mar") as archive:
        archive.extractall(version)
    (version / "model.mar").unlink()
    (version / "model.py").write_text("ANSWER = 'from beside it'\n")
    with running_server(tmp_path) as server, triton_http.InferenceServerClient(server.http_url) as connection:
        result = connection.infer("unpacked", given(triton_http, b"a"))
        assert result.as_numpy("prediction").tolist() == [[b"from beside it"]]


def test_a_handler_answers_in_parts(server: RunningServer) -> None:
    arrived: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(server.grpc_url) as connection:
        connection.start_stream(lambda result, error: arrived.put(error or result.as_numpy("prediction").tolist()))
        for text in ("a", "b"):
            connection.async_stream_infer("stream", given(triton_grpc, text.encode()))
            parts = [arrived.get(timeout=60) for _ in range(3)]
            assert parts == [[[f"0 {text}".encode()]], [[f"1 {text}".encode()]], [[b"last"]]]
        connection.stop_stream()


def test_a_handler_answers_some_of_a_batch_in_parts(server: RunningServer) -> None:
    arrived: dict[bytes, queue.Queue[Any]] = {text: queue.Queue() for text in (b"less", b"more", b"none")}
    with ExitStack() as stack:
        for text, answers in arrived.items():
            connection = stack.enter_context(triton_grpc.InferenceServerClient(server.grpc_url))
            connection.start_stream(
                lambda result, error, answers=answers: answers.put(error or result.as_numpy("prediction").tolist())
            )
            stack.callback(connection.stop_stream)
            connection.async_stream_infer("batched", given(triton_grpc, text), request_id="the same")
        for text, answers in arrived.items():
            parts = [b"0 " + text, b"1 " + text, *([b"and more"] if text == b"more" else []), b"last"]
            assert [answers.get(timeout=60) for _ in parts] == [[[part]] for part in parts]


def test_a_model_that_is_not_decoupled_says_why_it_cannot_answer_in_parts(server: RunningServer) -> None:
    with (
        triton_http.InferenceServerClient(server.http_url) as connection,
        pytest.raises(InferenceServerException, match=r"set 'model_transaction_policy \{ decoupled: true \}'"),
    ):
        connection.infer("whole", given(triton_http, b"a"))


def test_a_sequence_has_one_handler_to_itself(server: RunningServer) -> None:
    with triton_http.InferenceServerClient(server.http_url) as connection:
        sums = []
        for step, names in enumerate([("x", "y"), ("y", "x"), ("x", "y")]):
            for name in names:
                place = {"sequence_start": step == 0, "sequence_end": step == 2}
                result = connection.infer("sums", given(triton_http, b"5"), sequence_id=name, **place)
                sums.append((name, json.loads(result.as_numpy("prediction")[0, 0])))
    assert sums == [("x", 5), ("y", 5), ("y", 10), ("x", 10), ("x", 15), ("y", 15)]
