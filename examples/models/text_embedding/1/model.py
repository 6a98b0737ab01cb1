import triton_python_backend_utils as pb_utils

TOKENS = ["input_ids", "attention_mask", "token_type_ids"]


class TritonPythonModel:
    """Text in, embedding out: calls ``sentence_tokenizer`` and then ``sentence_embedding`` on the same server."""

    def execute(self, requests):
        return [self.embed(request) for request in requests]

    def embed(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "text")
        tokens = infer("sentence_tokenizer", [text], TOKENS)
        (embedding,) = infer("sentence_embedding", tokens, ["sentence_embedding"])
        return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", embedding.as_numpy())])


def infer(model, inputs, outputs):
    """Ask another model of this server. What it refuses becomes this model's error, and so the client's."""
    response = pb_utils.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs).exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return [pb_utils.get_output_tensor_by_name(response, name) for name in outputs]
