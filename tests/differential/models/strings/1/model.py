"""Upper-cases ASCII letters and counts bytes."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            upper = np.array([item.upper() for item in text.reshape(-1)], dtype=np.object_).reshape(text.shape)
            length = np.array([len(item) for item in text.reshape(-1)], dtype=np.int64).reshape(text.shape)
            outputs = [pb_utils.Tensor("UPPER", upper), pb_utils.Tensor("LENGTH", length)]
            wanted = request.requested_output_names()
            responses.append(pb_utils.InferenceResponse([output for output in outputs if output.name() in wanted]))
        return responses
