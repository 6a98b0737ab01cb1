"""Requests that share a batch with one whose answer is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from trivet.errors import InternalError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor
from trivet.testing import running_engine

pytestmark = pytest.mark.anyio

CONFIG = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 10000000 }
"""
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        values = [request.inputs()[0].as_numpy()[:, 0] for request in requests]
        shapes = [np.zeros((1, 3), np.float32) if value[0] < 0 else value for value in values]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]) for y in shapes]
"""


async def test_an_output_of_a_wrong_shape_costs_its_own_request_only(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.py").write_text(MODEL)
    (tmp_path / "m" / "config.pbtxt").write_text(CONFIG)

    async def ask(value: float) -> InferenceResponse:
        return await engine.infer(InferenceRequest("m", {"x": Tensor.from_numpy("x", np.array([[value]], np.float32))}))

    async with running_engine(tmp_path) as engine:
        first, wrong, third, fourth = await asyncio.gather(*map(ask, (1, -1, 3, 4)))
        assert engine.model("m").statistics.execution_count == 1
    assert isinstance(wrong.error, InternalError)
    assert "output tensor shape does not match size of output for 'y'" in wrong.error.message
    assert [answer.outputs[0].numpy().tolist() for answer in (first, third, fourth)] == [[[1]], [[3]], [[4]]]
