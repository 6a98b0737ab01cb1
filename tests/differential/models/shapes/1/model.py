"""Two inputs, one of them with a dynamic dimension, and two outputs."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "B").as_numpy()
            outputs = [
                pb_utils.Tensor("A_SUM", a.sum(axis=1, dtype=np.float32)),
                pb_utils.Tensor("B_TWICE", (b * 2).astype(np.int32)),
            ]
            wanted = request.requested_output_names()
            responses.append(pb_utils.InferenceResponse([output for output in outputs if output.name() in wanted]))
        return responses
