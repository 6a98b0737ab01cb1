"""Models in an engine, with what schedulers add: batches, and the state of a sequence. On the stand-in of a GPU."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import trivet.engine
from onnx.parser import parse_model
from trivet.engine import Engine
from trivet.errors import InvalidArgumentError
from trivet.testing import running_engine
from trivet.testing.conformance.requests import infer, request

pytestmark = [pytest.mark.usefixtures("gpu"), pytest.mark.anyio]

Serve = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """An engine with a model ``m`` on the stand-in's GPU."""
    monkeypatch.setattr(trivet.engine, "gpu_count", lambda: 1)

    @asynccontextmanager
    async def serving(text: str, config: str = "", **about: Any) -> AsyncIterator[Engine]:
        from trt_standin import write_plan

        folder = tmp_path / "m" / "1"
        folder.mkdir(parents=True)
        (folder / "model.plan").write_bytes(write_plan(parse_model(text), **about))
        (folder.parent / "config.pbtxt").write_text(f'platform: "tensorrt_plan" {config}')
        async with running_engine(tmp_path, allow_failures=True) as engine:
            yield engine

    return serving


async def test_a_sequence_keeps_its_state(serve: Serve) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    sum (float[batch, 1] x, float[batch, 1] before) => (float[batch, 1] y, float[batch, 1] after) {
        y = Add(x, before)
        after = Identity(y)
    }"""
    config = """max_batch_size: 4
    input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
    output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
    sequence_batching { state {
      input_name: "before" output_name: "after" data_type: TYPE_FP32 dims: [ 1 ]
      initial_state { name: "zero" data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }
    } }"""
    profile = {name: [[1, 1], [1, 1], [4, 1]] for name in ("x", "before")}
    async with serve(text, config, profiles=[profile]) as engine:
        for number, (x, y) in enumerate(((1, 1), (2, 3), (4, 7))):
            step = request(
                "m",
                {"x": np.array([[x]], np.float32)},
                correlation_id=5,
                sequence_start=number == 0,
                sequence_end=number == 2,
            )
            assert (await infer(engine, step))["y"].tolist() == [[y]]


EXPAND = """<ir_version: 10, opset_import: ["" : 18]>
expand (float[batch, 1] x, int64[2] shape) => (float[batch, n] y) { y = Expand(x, shape) }"""


async def test_a_shape_tensor_comes_once_for_a_batch(serve: Serve) -> None:
    """Requests with the same values share a batch; its number of rows is put before them."""
    profile = {"x": [[1, 1], [2, 1], [4, 1]], "shape values": [[1, 1], [2, 3], [4, 5]]}
    async with serve(EXPAND, profiles=[profile], shape_tensors=["shape"]) as engine:
        answers: dict[int, Any] = {}

        async def ask(number: int) -> None:
            inputs = {"x": np.full((1, 1), number, np.float32), "shape": np.array([3], np.int64)}
            answers[number] = (await infer(engine, request("m", inputs)))["y"]

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(ask, number)
        assert {number: answer.tolist() for number, answer in answers.items()} == {n: [[n] * 3] for n in range(8)}


async def test_plans_that_cannot_be_loaded_cost_no_other_model(serve: Serve, tmp_path: Path) -> None:
    """Of another version, damaged, and one that the real TensorRT for RTX refuses, as there is no driver below it."""
    from trt_standin import write_plan

    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[4] x) => (float[4] y) { y = Add(x, x) }'
    plan = write_plan(parse_model(text))
    wrong = {
        "old": (write_plan(parse_model(text), version=(8, 6, 1, 6)), "built by TensorRT 8.6.1.6, and tensorrt is 10.3"),
        "damaged": (plan[:-20], "the file is damaged"),
        "rtx": (b"vtrt" + plan[4:], "unable to deserialize 'model.plan'"),
    }
    for name, (content, _) in wrong.items():
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.plan").write_bytes(content)
        (folder.parent / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    async with serve(text) as engine:
        found = {entry.name: entry.reason for entry in await engine.repository_index()}
        for name, (_, reason) in wrong.items():
            assert f"failed to load model '{name}': " in found[name]
            assert reason in found[name]
        assert (await infer(engine, request("m", {"x": np.ones(4, np.float32)})))["y"].tolist() == [2] * 4


async def test_a_request_that_no_profile_takes_is_told_so(serve: Serve) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    double (float[batch, width] x) => (float[batch, width] y) { y = Add(x, x) }"""
    async with serve(text, profiles=[{"x": [[1, 2], [2, 4], [8, 8]]}]) as engine:
        assert engine.model("m").spec.max_batch_size == 8
        with pytest.raises(InvalidArgumentError, match="dimension 1 to be between 2 and 8 but received 9"):
            await infer(engine, request("m", {"x": np.ones((1, 9), np.float32)}))
        answer = await infer(engine, request("m", {"x": np.ones((1, 8), np.float32)}))
        assert answer["y"].tolist() == [[2] * 8]
