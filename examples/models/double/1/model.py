import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Doubles its input."""

    def execute(self, requests):
        responses = []
        for request in requests:
            doubled = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy() * 2
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", doubled)]))
        return responses
