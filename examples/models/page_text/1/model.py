from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """CTC: the best class of each step, without repeats and without blanks, which are class 0."""

    def initialize(self, args):
        version = Path(args["model_repository"], args["model_version"])
        self.characters = (version / "characters.txt").read_text(encoding="utf-8")

    def execute(self, requests):
        return [self.read(pb_utils.get_input_tensor_by_name(request, "scores").as_numpy()) for request in requests]

    def read(self, scores):
        texts = [text for text in map(self.line, scores.argmax(axis=2)) if text]
        return pb_utils.InferenceResponse([pb_utils.Tensor("text", np.array([t.encode() for t in texts], np.object_))])

    def line(self, best):
        changes = np.flatnonzero(np.diff(best, prepend=0))
        return "".join(self.characters[best[step] - 1] for step in changes if best[step])
