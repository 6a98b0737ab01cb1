"""The contract of backends: on the stand-in of a GPU, and on a real one with TensorRT for RTX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import trivet.engine
from gpu_plans import builder_here
from onnx.parser import parse_model
from trivet.placement import gpu_count
from trivet.testing.conformance import BackendConformance
from trivet.testing.conformance.requests import Arrays
from trivet_backend_trt.building import BuildOptions, build_plan
from trivet_backend_trt.shapes import read_profiles

MODEL = """<ir_version: 10, opset_import: ["" : 18]>
add_sub (float[batch, 4] a, float[batch, 4] b) => (float[batch, 4] sum, float[batch, 4] difference) {
    sum = Add(a, b)
    difference = Sub(a, b)
}"""


class AddSub(BackendConformance):
    backend = "tensorrt"
    config = "instance_group { kind: KIND_GPU count: 2 gpus: [ 0 ] }"

    def inputs(self, rows: int, seed: int) -> Arrays:
        chance = np.random.default_rng(seed)
        return {name: chance.random((rows, 4), np.float32) for name in "ab"}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"sum": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]}


@pytest.mark.usefixtures("gpu")
class TestOnTheStandIn(AddSub):
    @pytest.fixture(autouse=True)
    def _one_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trivet.engine, "gpu_count", lambda: 1)

    def write_model(self, folder: Path) -> None:
        from trt_standin import write_plan

        content = write_plan(parse_model(MODEL), profiles=[{name: [[1, 4], [2, 4], [8, 4]] for name in "ab"}])
        (folder / "model.plan").write_bytes(content)


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_count(), reason="needs an NVIDIA GPU; this machine has none")
class TestOnAGpu(AddSub):
    _plan: bytes = b""

    def write_model(self, folder: Path) -> None:
        if not TestOnAGpu._plan:
            path = folder.parent / "add_sub.onnx"
            onnx.save(parse_model(MODEL), str(path))
            profiles = read_profiles(["a:1x4,b:1x4"], ["a:2x4,b:2x4"], ["a:8x4,b:8x4"])
            TestOnAGpu._plan = build_plan(path, BuildOptions(profiles=profiles, **builder_here()))
        (folder / "model.plan").write_bytes(TestOnAGpu._plan)
