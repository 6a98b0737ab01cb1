"""Real ONNX models with ragged inputs: batched or alone, each request gets the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import trivet_backend_onnx.plugin
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from trivet.backend import ArrayInstance, InstanceContext, ModelContext
from trivet.batching import gather, split
from trivet.config import POOL, ModelConfig
from trivet.config.spec import ModelSpec
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor
from trivet.testing import running_engine
from trivet_backend_onnx.backend import OnnxBackend

CONFIG = """
name: "segments"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
batch_input {
  kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "bounds" data_type: TYPE_INT32 source_input: "x"
}
output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "double" data_type: TYPE_FP32 dims: [ -1 ] }
batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "double" source_input: "x" }
"""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="module")
def segments(build_model: Any) -> onnx.ModelProto:
    """Each request's sum, as the difference of two running sums, and all values doubled, in one flat output."""

    def constant(name: str, kind: int, values: Sequence[float]) -> onnx.TensorProto:
        return helper.make_tensor(name, kind, [len(values)], values)

    return build_model(
        [
            helper.make_node("CumSum", ["x", "axis"], ["running"]),
            helper.make_node("Concat", ["zero", "running"], ["padded"], axis=0),
            helper.make_node("Gather", ["padded", "bounds"], ["at"]),
            helper.make_node("Slice", ["at", "one", "end"], ["upper"]),
            helper.make_node("Slice", ["at", "start", "last"], ["lower"]),
            helper.make_node("Sub", ["upper", "lower"], ["sums"]),
            helper.make_node("Unsqueeze", ["sums", "one"], ["sum"]),
            helper.make_node("Add", ["x", "x"], ["double"]),
        ],
        {"x": (TensorProto.FLOAT, (None,)), "bounds": (TensorProto.INT32, (None,))},
        {"sum": (TensorProto.FLOAT, (None, 1)), "double": (TensorProto.FLOAT, (None,))},
        [
            helper.make_tensor("axis", TensorProto.INT64, [], [0]),
            constant("zero", TensorProto.FLOAT, [0]),
            constant("start", TensorProto.INT64, [0]),
            constant("one", TensorProto.INT64, [1]),
            constant("last", TensorProto.INT64, [-1]),
            constant("end", TensorProto.INT64, [2**62]),
        ],
    )


class Batches:
    """The model with one instance, given batches of any requests."""

    def __init__(self, instance: ArrayInstance, spec: ModelSpec) -> None:
        self.instance = instance
        self.spec = spec

    def execute(self, arrays: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        requests = []
        for array in arrays:
            request = InferenceRequest("segments", {"x": Tensor.from_numpy("x", array)})
            request.batch_size = len(array)
            requests.append(request)
        results = self.instance.execute(gather(self.spec, requests, None), self.spec.output_names)
        return [values(response) for response in split(self.spec, requests, results)]


def values(response: InferenceResponse) -> dict[str, Any]:
    assert response.error is None, response.error
    return {tensor.name: tensor.numpy().tolist() for tensor in response.outputs}


@pytest.fixture(scope="module")
def batches(segments: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batches]:
    folder = tmp_path_factory.mktemp("segments")
    (folder / "1").mkdir()
    onnx.save(segments, folder / "1" / "model.onnx")
    config = text_format.Parse(CONFIG, ModelConfig(), descriptor_pool=POOL)
    context = ModelContext("segments", 1, folder, folder / "1", config, logging.getLogger("test"))
    model = OnnxBackend().load(context)
    instance = model.create_instance(InstanceContext("segments_0_0", "CPU"))
    assert isinstance(instance, ArrayInstance)
    yield Batches(instance, ModelSpec.from_config(config))
    instance.close()
    model.close()


# Whole numbers are exact in float32, in whatever order they are summed.
one_row = st.lists(st.integers(-1000, 1000), max_size=20).map(lambda row: np.array([row], np.float32))


@given(st.lists(one_row, min_size=1, max_size=8))
def test_a_batch_gives_each_request_what_it_gets_alone(batches: Batches, arrays: list[np.ndarray]) -> None:
    together = batches.execute(arrays)
    assert together == [batches.execute([array])[0] for array in arrays]
    assert together == [{"sum": [[array.sum()]], "double": (array * 2).tolist()} for array in arrays]


@pytest.mark.anyio
async def test_the_engine_serves_such_a_model_and_warms_it_up(segments: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "segments" / "1").mkdir(parents=True)
    onnx.save(segments, tmp_path / "segments" / "1" / "model.onnx")
    warmup = """
    model_warmup {
      name: "some" batch_size: 4 count: 2
      inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 16 ] random_data: true } }
    }
    """
    (tmp_path / "segments" / "config.pbtxt").write_text(CONFIG + warmup)
    async with running_engine(tmp_path, registry=PluginRegistry.of(onnx=trivet_backend_onnx.plugin)) as engine:
        # Two instances, each with twice the four requests.
        assert engine.model("segments").statistics.success.count == 16

        async def ask(length: int) -> None:
            array = np.arange(length, dtype=np.float32)[np.newaxis]
            response = await engine.infer(InferenceRequest("segments", {"x": Tensor.from_numpy("x", array)}))
            assert values(response) == {"sum": [[array.sum()]], "double": (array * 2).tolist()}

        await asyncio.gather(*map(ask, range(1, 20)))


@pytest.mark.anyio
@pytest.mark.parametrize(("data", "ready"), [("zero_data: true", True), ("random_data: true", False)])
async def test_a_warmup_sample_that_the_session_refuses_fails_the_load(
    build_model: Any, tmp_path: Path, data: str, ready: bool
) -> None:
    table = helper.make_tensor("table", TensorProto.FLOAT, [2], [10, 20])
    lookup = build_model(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        {"ids": (TensorProto.INT64, (None, 64))},
        {"y": (TensorProto.FLOAT, (None, 64))},
        [table],
    )
    (tmp_path / "lookup" / "1").mkdir(parents=True)
    onnx.save(lookup, tmp_path / "lookup" / "1" / "model.onnx")
    (tmp_path / "lookup" / "config.pbtxt").write_text(f"""
    model_warmup {{
      name: "ids" batch_size: 2 inputs {{ key: "ids" value {{ data_type: TYPE_INT64 dims: [ 64 ] {data} }} }}
    }}
    """)
    registry = PluginRegistry.of(onnx=trivet_backend_onnx.plugin)
    async with running_engine(tmp_path, registry=registry, allow_failures=True) as engine:
        [entry] = await engine.repository_index()
        assert engine.model_ready("lookup") == ready, entry.reason
        if not ready:
            assert entry.reason.startswith("Invalid argument: failed to run warmup sample 'ids': ")
            assert "out of data bounds" in entry.reason
