"""Tells which version answered. Versions 1 and 3 are served, 2 is there and is not."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.version = int(args["model_version"])

    def execute(self, requests):
        output = pb_utils.Tensor("VERSION", np.array([self.version], dtype=np.int32))
        return [pb_utils.InferenceResponse([output]) for _ in requests]
