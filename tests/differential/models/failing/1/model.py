"""Fails in the way that its input says; 0 does not fail."""

import triton_python_backend_utils as pb_utils

CODES = ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED")


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "HOW").as_numpy()
            how = int(array[0][0])
            if how == 0:
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]))
            elif how == 100:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("plain error")))
            elif how == 101:
                responses.append(pb_utils.InferenceResponse([]))
            else:
                code = CODES[how - 1]
                error = pb_utils.TritonError(f"error of code {code}", getattr(pb_utils.TritonError, code))
                responses.append(pb_utils.InferenceResponse(error=error))
        return responses
