"""One response per step, N steps."""

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        self.steps = {}

    def execute(self, requests):
        for request in requests:
            name = request.request_id()
            steps = self.steps[name] = self.steps.get(name, 0) + 1
            last = steps >= int(pb_utils.get_input_tensor_by_name(request, "N").as_numpy()[0])
            answer = pb_utils.InferenceResponse([pb_utils.Tensor("STEPS", np.array([steps], np.int32))])
            sender = request.get_response_sender()
            if last:
                del self.steps[name]
                sender.send(answer, flags=FINAL)
            else:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                sender.send(answer)
