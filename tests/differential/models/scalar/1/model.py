"""Each batch entry has rank 0 for the model and one dimension for clients, through ``reshape``."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            output = pb_utils.Tensor("OUT", (array + array.ndim).astype(np.float32))
            responses.append(pb_utils.InferenceResponse([output]))
        return responses
