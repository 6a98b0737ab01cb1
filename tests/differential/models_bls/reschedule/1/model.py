"""Executes a request N times before it answers; what a step writes into the input is not there in the next."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.steps = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            name = request.request_id()
            n = pb_utils.get_input_tensor_by_name(request, "N").as_numpy()
            wanted = int(n[0])
            n[0] = 1000
            steps = self.steps[name] = self.steps.get(name, 0) + 1
            if steps < wanted:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                responses.append(None)
            else:
                del self.steps[name]
                output = pb_utils.Tensor("STEPS", np.array([steps], np.int32))
                responses.append(pb_utils.InferenceResponse([output]))
        return responses
