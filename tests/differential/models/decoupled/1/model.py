"""Answers COUNT times, counting up, then closes without a tensor.

Parameters: ``fail_at`` is the place of an answer that is an error, ``close_with_last`` closes with the last one.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            parameters = json.loads(request.parameters())
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0])
            closed = False
            for index in range(count):
                if index == parameters.get("fail_at"):
                    response = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"answer {index} is an error"))
                else:
                    output = pb_utils.Tensor("INDEX", np.array([index], dtype=np.int32))
                    response = pb_utils.InferenceResponse([output])
                closed = index == count - 1 and bool(parameters.get("close_with_last"))
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if closed else 0)
            if not closed:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
