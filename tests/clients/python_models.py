"""Python models that tests of several kinds of clients serve. All take ``X`` and give ``Y``, of any type and shape."""

ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())])
                for request in requests]
"""
DOUBLE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", 2 * request.inputs()[0].as_numpy())])
                for request in requests]
"""

REFUSING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request.inputs()[0].as_numpy()) for request in requests]

    def answer(self, x):
        if x.min() < 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("negative"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])
"""
"""Echoes, but for negative numbers."""

REPEAT = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = request.inputs()[0].as_numpy()
            for factor in (1, 2, 3):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", factor * x)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
"""Decoupled: three responses, of X, 2 X and 3 X, and an empty one that is the last."""

GATE = """
import os, time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.open = os.path.join(args["model_repository"], "open")

    def execute(self, requests):
        while not os.path.exists(self.open):
            time.sleep(0.001)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", 2 * request.inputs()[0].as_numpy())])
                for request in requests]
"""
"""Doubles, once the file ``open`` is in the model's folder: what is cancelled before was not executed for sure."""
