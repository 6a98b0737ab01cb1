from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    """Turns sentences into the token tensors that ``sentence_embedding`` takes."""

    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(32)
        config.add_input({"name": "text", "data_type": "TYPE_STRING", "dims": [1]})
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            config.add_output({"name": name, "data_type": "TYPE_INT64", "dims": [-1]})
        return config

    def initialize(self, args):
        version = Path(args["model_repository"], args["model_version"])
        self.tokenizer = Tokenizer.from_file(str(version / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_length=256)
        self.tokenizer.enable_padding()  # to the longest sentence of a request

    def execute(self, requests):
        return [self.tokenize(request) for request in requests]

    def tokenize(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        try:
            sentences = [sentence.decode() for sentence in text[:, 0]]
        except UnicodeDecodeError as error:  # one request's fault: the others of this call are answered all the same
            message = f"text has to be UTF-8: {error}"
            return pb_utils.InferenceResponse([], error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        encodings = self.tokenizer.encode_batch(sentences)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.array([getattr(encoding, column) for encoding in encodings], np.int64))
                for name, column in columns.items()
            ]
        )
