"""Answers a request and wants it again, which cannot be."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        output = pb_utils.Tensor("STEPS", np.array([1], np.int32))
        return [pb_utils.InferenceResponse([output]) for _ in requests]
