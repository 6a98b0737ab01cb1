"""Scores in several datatypes, for the classification extension. The label file is one label short on purpose."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            scores = pb_utils.get_input_tensor_by_name(request, "SCORES").as_numpy()
            outputs = {
                "LABELLED": scores,
                "PLAIN": scores.astype(np.float64),
                "RANKS": np.clip(scores, -100, 100).astype(np.int32),
                "NAMES": scores.astype(np.str_).astype(np.object_),
                "HALF": np.clip(scores, -100, 100).astype(np.float16),
            }
            wanted = request.requested_output_names()
            responses.append(
                pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in outputs if name in wanted])
            )
        return responses
