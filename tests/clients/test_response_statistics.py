"""Statistics of decoupled models by the place of a response in its stream."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from trivet.testing import RunningServer

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for number in request.inputs()[0].as_numpy():
                if number < 0:
                    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("negative")))
                else:
                    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", number.reshape(1))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
CONFIG = """
backend: "python"
input { name: "X" data_type: TYPE_FP32 dims: -1 }
output { name: "Y" data_type: TYPE_FP32 dims: 1 }
model_transaction_policy { decoupled: true }
"""


def test_responses_are_counted_by_their_place(tmp_path: Path, trivet_server: Callable[..., RunningServer]) -> None:
    (tmp_path / "numbers" / "1").mkdir(parents=True)
    (tmp_path / "numbers" / "1" / "model.py").write_text(MODEL)
    (tmp_path / "numbers" / "config.pbtxt").write_text(CONFIG)
    server = trivet_server(tmp_path)
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: answers.put(result if error is None else error))
        for numbers in ([1.0, 2.0], [3.0, -1.0], []):
            x = triton.InferInput("X", [len(numbers)], "FP32")
            x.set_data_from_numpy(np.array(numbers, np.float32))
            client.async_stream_infer("numbers", [x], enable_empty_final_response=True)
            for _ in range(len(numbers) + 1):
                answers.get(timeout=30)
        client.stop_stream()
        found = client.get_inference_statistics("numbers", as_json=True)["model_stats"][0]["response_stats"]
    counts = {
        place: {kind: int(duration.get("count", 0)) for kind, duration in statistics.items()}
        for place, statistics in found.items()
    }
    none = dict.fromkeys(("compute_infer", "compute_output", "success", "fail", "empty_response", "cancel"), 0)
    assert counts == {
        "0": {**none, "compute_infer": 2, "compute_output": 2, "success": 2, "empty_response": 1},
        "1": {**none, "compute_infer": 2, "compute_output": 1, "success": 1, "fail": 1},
        "2": {**none, "empty_response": 2},
    }
    assert int(found["0"]["success"]["ns"]) >= int(found["0"]["compute_infer"]["ns"]) > 0
