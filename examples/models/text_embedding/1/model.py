import triton_python_backend_utils as pb_utils

TOKENS = ["input_ids", "attention_mask", "token_type_ids"]


class TritonPythonModel:
    """Text in, embedding out: calls ``sentence_tokenizer`` and then ``sentence_embedding`` on the same server."""

    def execute(self, requests):
        return [self.embed(request) for request in requests]

    def embed(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "text")
        response = infer("sentence_tokenizer", [text], TOKENS)
        if not response.has_error():
            response = infer("sentence_embedding", response.output_tensors(), ["sentence_embedding"])
        if response.has_error():
            return pb_utils.InferenceResponse([], error=response.error())
        (embedding,) = response.output_tensors()
        return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", embedding.as_numpy())])


def infer(model, inputs, outputs):
    return pb_utils.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs).exec()
