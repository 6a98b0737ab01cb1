"""Remembers what each execution was given, and tells it with the next: ``log`` is a JSON list of executions, each a
list of requests, each an object of inputs ``{name: [dtype, shape, values]}``. Fails a request in whose ``x`` is 13."""

import json
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self.with_values = "shapes_only" not in config["parameters"]
        self.executions = []

    def execute(self, requests):
        log = json.dumps(self.executions)
        self.executions.append([self.describe(request) for request in requests])
        responses = [self.answer(request, log) for request in requests]
        if not self.decoupled:
            return responses
        # Late, so that whoever does not wait for answers is found out.
        threading.Timer(0.2, self.send, (requests, responses)).start()
        return None

    def describe(self, request):
        inputs = {}
        for tensor in sorted(request.inputs(), key=lambda tensor: tensor.name()):
            array = tensor.as_numpy()
            values = [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]
            inputs[tensor.name()] = [str(array.dtype), list(array.shape), values if self.with_values else None]
        return inputs

    def answer(self, request, log):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        if 13 in x:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("thirteen"))
        logs = np.full((len(x), 1) if x.ndim > 1 else (1,), log.encode(), dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x), pb_utils.Tensor("log", logs)])

    def send(self, requests, responses):
        for index, request in enumerate(requests):
            sender = request.get_response_sender()
            sender.send(responses[index], flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
