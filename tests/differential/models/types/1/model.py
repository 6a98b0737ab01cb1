"""Gives back whichever inputs it was given, one per datatype that numpy knows."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            outputs = [
                pb_utils.Tensor(tensor.name().replace("IN_", "OUT_"), tensor.as_numpy()) for tensor in request.inputs()
            ]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
