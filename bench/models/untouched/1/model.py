import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers with the number of elements of its input."""

    def execute(self, requests):
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            size = np.array([array.size], dtype=np.int64)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", size)]))
        return responses
