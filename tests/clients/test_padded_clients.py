"""Requests of different lengths, padded to share executions, are answered as if each had been alone."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.parser import parse_model
from tritonclient.utils import InferenceServerException
from trivet.testing import RunningServer, running_server

# A mean over what the mask leaves in, and a softmax: each would tell padding from values.
MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
masked (float[B, S] x, int64[B, S] mask) => (float[B, S] weights, float[B, 1] mean) {
    last = Constant <value_ints = [1]> ()
    one = Constant <value = float {1.0}> ()
    large = Constant <value = float {1.0e30}> ()
    kept = Cast <to = 1> (mask)
    masked_x = Mul(x, kept)
    sum = ReduceSum <keepdims = 1> (masked_x, last)
    count = ReduceSum <keepdims = 1> (kept, last)
    mean = Div(sum, count)
    left = Sub(kept, one)
    away = Mul(left, large)
    scores = Add(masked_x, away)
    weights = Softmax <axis = 1> (scores)
}
"""
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: DELAY }
parameters { key: "dynamic_batching.pad" value { string_value: "x=0, mask=0" } }
parameters { key: "dynamic_batching.unpad" value { string_value: "weights.1=x.1" } }
"""
LENGTHS = (9, 16, 12, 10)
"""Few enough apart to be padded to one."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    for name, delay in (("patient", 30_000_000), ("masked", 5_000)):
        (folder / name / "1").mkdir(parents=True)
        onnx.save(parse_model(MODEL), folder / name / "1" / "model.onnx")
        (folder / name / "config.pbtxt").write_text(CONFIG.replace("DELAY", str(delay)))
    with running_server(folder) as running:
        yield running


def values(length: int) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(1, length)).astype(np.float32)


def expected(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exponential = np.exp(x - x.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True), x.mean(axis=1, keepdims=True)


def check(x: np.ndarray, answer: tuple[np.ndarray, ...]) -> None:
    for own, right in zip(answer, expected(x), strict=True):
        assert own.shape == right.shape
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-6)


def ask_json(server: RunningServer, model: str, x: np.ndarray) -> tuple[np.ndarray, ...]:
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()},
        {"name": "mask", "datatype": "INT64", "shape": list(x.shape), "data": [1] * x.size},
    ]
    url = f"http://{server.http_url}/v2/models/{model}/infer"
    with urlopen(Request(url, json.dumps({"inputs": inputs}).encode()), timeout=60) as response:
        outputs = {output["name"]: output for output in json.load(response)["outputs"]}
    return tuple(np.reshape(outputs[name]["data"], outputs[name]["shape"]) for name in ("weights", "mean"))


def ask_client(
    module: object, url: str, model: str, x: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    tensors = {"x": x, "mask": np.ones(x.shape, np.int64) if mask is None else mask}
    inputs = []
    for name, array in tensors.items():
        tensor = module.InferInput(name, list(array.shape), "FP32" if name == "x" else "INT64")  # type: ignore[attr-defined]
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with module.InferenceServerClient(url) as client:  # type: ignore[attr-defined]
        result = client.infer(model, inputs)
        return tuple(result.as_numpy(name) for name in ("weights", "mean"))


def test_requests_of_all_protocols_and_lengths_share_an_execution(server: RunningServer) -> None:
    rows = [values(length) for length in LENGTHS]

    def ask(index: int) -> tuple[np.ndarray, ...]:
        if index % 3 == 0:
            return ask_json(server, "patient", rows[index])
        if index % 3 == 1:
            return ask_client(triton_http, server.http_url, "patient", rows[index])
        return ask_client(triton_grpc, server.grpc_url, "patient", rows[index])

    with ThreadPoolExecutor(len(rows)) as pool:
        answers = list(pool.map(ask, range(len(rows))))
    for x, answer in zip(rows, answers, strict=True):
        check(x, answer)
    statistics = server.engine.model("patient").statistics
    assert {size: batch.compute_infer.count for size, batch in statistics.batches.items()} == {4: 1}


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_whoever_else_is_there_changes_nothing(server: RunningServer, lengths: list[int]) -> None:
    rows = [values(length) for length in lengths]
    with ThreadPoolExecutor(len(rows)) as pool:
        answers = list(pool.map(lambda x: ask_client(triton_http, server.http_url, "masked", x), rows))
    for x, answer in zip(rows, answers, strict=True):
        check(x, answer)


def test_a_mask_that_does_not_fit_costs_nobody_else(server: RunningServer) -> None:
    def wrong(_: int) -> str:
        with pytest.raises(InferenceServerException) as caught:
            ask_client(triton_http, server.http_url, "masked", values(10), np.ones((1, 11), np.int64))
        return str(caught.value)

    def right(length: int) -> None:
        check(values(length), ask_client(triton_http, server.http_url, "masked", values(length)))

    with ThreadPoolExecutor(8) as pool:
        errors = [pool.submit(wrong, index) for index in range(3)]
        others = [pool.submit(right, length) for length in (9, 10, 11, 12)]
        assert all("Mul" in error.result() for error in errors)
        for other in others:
            other.result()
