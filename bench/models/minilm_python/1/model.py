"""MiniLM on ONNX Runtime in a Python model, for Trivet and for Triton: a batch of sequences of different lengths.

Sequences of about the same length are run together, padded to the longest of them.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

TOGETHER = 8
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class TritonPythonModel:
    def initialize(self, args):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        sequences = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0] for name in INPUTS] for request in requests
        ]
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index][0]))
        responses = [None] * len(requests)
        for first in range(0, len(order), TOGETHER):
            together = order[first : first + TOGETHER]
            longest = len(sequences[together[-1]][0])
            batch = np.zeros((len(INPUTS), len(together), longest), np.int64)
            for row, index in enumerate(together):
                for number, values in enumerate(sequences[index]):
                    batch[number, row, : len(values)] = values
            (embeddings,) = self.session.run(["sentence_embedding"], dict(zip(INPUTS, batch, strict=True)))
            for index, embedding in zip(together, embeddings, strict=True):
                tensor = pb_utils.Tensor("sentence_embedding", embedding[None])
                responses[index] = pb_utils.InferenceResponse([tensor])
        return responses
