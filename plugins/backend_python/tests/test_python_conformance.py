from __future__ import annotations

from pathlib import Path

import numpy as np
from trivet.testing.conformance import BackendConformance, Stream, StreamingBackendConformance
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


DECOUPLED = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            for row in np.split(x, 2):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("output", 1 / row)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


class TestDecoupledModel(StreamingBackendConformance):
    """A response for each half of the input, after which a last one has nothing."""

    backend = "python"
    batching = False
    config = """
        input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
        output { name: "output" data_type: TYPE_FP32 dims: [ 1 ] }
        model_transaction_policy { decoupled: true }
    """

    def write_model(self, folder: Path) -> None:
        (folder / "model.py").write_text(DECOUPLED)

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"x": 1 + np.random.default_rng(seed).random(2, np.float32)}

    def expected(self, inputs: Arrays) -> Arrays:
        """What a caller has who keeps the last value of each output."""
        return {"output": 1 / inputs["x"][1:]}

    def stream(self) -> Stream:
        x = np.array([2, 4], np.float32)
        return Stream({"x": x}, [{"output": 1 / x[:1]}, {"output": 1 / x[1:]}])
