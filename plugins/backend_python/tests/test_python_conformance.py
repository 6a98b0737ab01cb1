from __future__ import annotations

from pathlib import Path

import numpy as np
from trivet.testing.conformance import BackendConformance
from trivet.testing.conformance.requests import Arrays

TYPED = """
import numpy as np
from trivet_backend_python import Array, Float32, model


@model(max_batch_size=8)
def reciprocal(x: Array[Float32, 3]) -> Array[Float32, 3]:
    if (x == 0).any():
        raise ValueError("x must not be 0")
    return 1 / x
"""

TRITON = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if (x == 0).any():
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("x must not be 0")))
            else:
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("output", 1 / x)]))
        return responses
"""


class TestTypedModel(BackendConformance):
    backend = "python"
    source = TYPED

    def write_model(self, folder: Path) -> None:
        (folder / "model.py").write_text(self.source)

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"x": 1 + np.random.default_rng(seed).random((rows, 3), np.float32)}

    def expected(self, inputs: Arrays) -> Arrays:
        return {"output": 1 / inputs["x"]}

    def failing_inputs(self) -> Arrays:
        return {"x": np.zeros((1, 3), np.float32)}


class TestTritonModel(TestTypedModel):
    source = TRITON
    config = """
        max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
        output { name: "output" data_type: TYPE_FP32 dims: [ 3 ] }
    """
