"""Answers N times and then with nothing but the final flag; for a negative N with an error in the middle."""

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            n = int(pb_utils.get_input_tensor_by_name(request, "N").as_numpy()[0])
            for i in range(abs(n)):
                answer = pb_utils.InferenceResponse([pb_utils.Tensor("I", np.array([i], np.int32))])
                if n < 0 and i == 1:
                    answer = pb_utils.InferenceResponse(error=pb_utils.TritonError("no more"))
                # A thousand and more: the last response carries the flag.
                sender.send(answer, flags=FINAL if abs(n) >= 100 and i + 1 == abs(n) else 0)
            if abs(n) < 100:
                sender.send(flags=FINAL)
