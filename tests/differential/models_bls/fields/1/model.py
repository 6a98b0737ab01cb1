"""Says what it sees of a request."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        seen = [
            f"id {request.request_id()!r}",
            f"correlation {request.correlation_id()!r}",
            f"outputs {sorted(request.requested_output_names())}",
            f"flags {request.flags()}",
            f"timeout {request.timeout()}",
            f"parameters {request.parameters()}",
            f"trace {request.trace().get_context()!r}",
            f"inputs {[tensor.name() for tensor in request.inputs()]}",
            f"cancelled {request.is_cancelled()}",
        ]
        return pb_utils.InferenceResponse([pb_utils.Tensor("FIELDS", np.array(seen, dtype=object))])
