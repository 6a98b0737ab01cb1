from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

EDGE, BLOCK, NOTHING = 1024, 4096, 256


class TritonPythonModel:
    """Takes what ``file_type`` looks at out of a file, and puts a name to what it answers."""

    def initialize(self, args):
        version = Path(args["model_repository"], args["model_version"])
        self.types = (version / "labels.txt").read_text(encoding="utf-8").splitlines()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        files = pb_utils.get_input_tensor_by_name(request, "content").as_numpy()
        features = pb_utils.Tensor("bytes", np.stack([edges(file) for file in files[:, 0]]))
        response = pb_utils.InferenceRequest(
            model_name="file_type", inputs=[features], requested_output_names=["target_label"]
        ).exec()
        if response.has_error():
            return pb_utils.InferenceResponse([], error=response.error())
        scores = pb_utils.get_output_tensor_by_name(response, "target_label").as_numpy()
        names = np.array([[self.types[best].encode()] for best in scores.argmax(axis=1)], dtype=np.object_)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("type", names), pb_utils.Tensor("score", scores.max(axis=1, keepdims=True))]
        )


def edges(content):
    """INT32 [2048]: the first and the last 1024 bytes without white space around, 256 where there are none."""
    features = np.full(2 * EDGE, NOTHING, np.int32)
    head, tail = content[:BLOCK].lstrip()[:EDGE], content[-BLOCK:].rstrip()[-EDGE:]
    features[: len(head)] = np.frombuffer(head, np.uint8)
    features[2 * EDGE - len(tail) :] = np.frombuffer(tail, np.uint8)
    return features
