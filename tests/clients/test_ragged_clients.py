"""Requests of different lengths, over HTTP (binary and JSON) and gRPC, share one execution of a ragged ONNX model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx.parser import parse_model
from trivet.testing import RunningServer, running_server

MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
ragged (float[N] x, int32[M] lengths, float[B, 1] weight) => (float[N] double, int32[M, 1] length, float[B, 1] half) {
    second = Constant <value_ints = [1]> ()
    two = Constant <value = float {2.0}> ()
    double = Mul(x, two)
    length = Unsqueeze(lengths, second)
    half = Div(weight, two)
}
"""
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
input { name: "weight" data_type: TYPE_FP32 dims: [ 1 ] }
batch_input { kind: BATCH_ELEMENT_COUNT target_name: "lengths" data_type: TYPE_INT32 source_input: "x" }
output { name: "double" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "length" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "half" data_type: TYPE_FP32 dims: [ 1 ] }
batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "double" source_input: "x" }
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { preferred_batch_size: [ 6 ] max_queue_delay_microseconds: 30000000 }
model_warmup {
  name: "six" batch_size: 6
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
  inputs { key: "weight" value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "ragged" / "1").mkdir(parents=True)
    onnx.save(parse_model(MODEL), folder / "ragged" / "1" / "model.onnx")
    (folder / "ragged" / "config.pbtxt").write_text(CONFIG)
    with running_server(folder) as running:
        yield running


def ask_json(server: RunningServer, values: list[float]) -> list[np.ndarray]:
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values},
        {"name": "weight", "datatype": "FP32", "shape": [1, 1], "data": [len(values)]},
    ]
    url = f"http://{server.http_url}/v2/models/ragged/infer"
    with urlopen(Request(url, json.dumps({"inputs": inputs}).encode()), timeout=60) as response:
        outputs = {output["name"]: output for output in json.load(response)["outputs"]}
    return [np.reshape(outputs[name]["data"], outputs[name]["shape"]) for name in ("double", "length", "half")]


def ask_client(module: object, url: str, values: list[float]) -> list[np.ndarray]:
    x = module.InferInput("x", [1, len(values)], "FP32")  # type: ignore[attr-defined]
    x.set_data_from_numpy(np.array([values], np.float32))
    weight = module.InferInput("weight", [1, 1], "FP32")  # type: ignore[attr-defined]
    weight.set_data_from_numpy(np.array([[len(values)]], np.float32))
    with module.InferenceServerClient(url) as client:  # type: ignore[attr-defined]
        result = client.infer("ragged", [x, weight])
        return [result.as_numpy(name) for name in ("double", "length", "half")]


def test_requests_of_all_protocols_and_lengths_share_an_execution(server: RunningServer) -> None:
    rows = [[float(value) for value in range(length)] for length in (1, 7, 3, 2, 5, 4)]

    def ask(index: int) -> list[np.ndarray]:
        if index % 3 == 0:
            return ask_json(server, rows[index])
        if index % 3 == 1:
            return ask_client(triton_http, server.http_url, rows[index])
        return ask_client(triton_grpc, server.grpc_url, rows[index])

    with ThreadPoolExecutor(len(rows)) as pool:
        answers = list(pool.map(ask, range(len(rows))))
    for row, (double, length, half) in zip(rows, answers, strict=True):
        assert double.tolist() == [[2 * value for value in row]]
        assert length.tolist() == [[len(row)]]
        assert half.tolist() == [[len(row) / 2]]
    statistics = server.engine.model("ragged").statistics
    # The warmup's, and this one.
    assert {size: batch.compute_infer.count for size, batch in statistics.batches.items()} == {6: 2}
