from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx.parser import parse_model
from trivet.testing.conformance import BackendConformance
from trivet.testing.conformance.requests import Arrays

MODEL = """
<ir_version: 10, opset_import: ["" : 18]>
add_sub (float[batch, 4] a, float[batch, 4] b) => (float[batch, 4] sum, float[batch, 4] difference) {
    sum = Add(a, b)
    difference = Sub(a, b)
}
"""


class TestOnnxRuntime(BackendConformance):
    backend = "onnxruntime"

    def write_model(self, folder: Path) -> None:
        onnx.save(parse_model(MODEL), str(folder / "model.onnx"))

    def inputs(self, rows: int, seed: int) -> Arrays:
        chance = np.random.default_rng(seed)
        return {name: chance.random((rows, 4), np.float32) for name in "ab"}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"sum": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]}
