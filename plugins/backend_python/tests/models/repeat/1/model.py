import json
import threading

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers with one response per element, from threads of its own."""

    def initialize(self, args):
        assert pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))
        self.threads = []

    def execute(self, requests):
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            thread = threading.Thread(target=self.respond, args=(request.get_response_sender(), values))
            self.threads.append(thread)
            thread.start()

    def respond(self, sender, values):
        for index in range(len(values)):
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", values[index : index + 1])]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        for thread in self.threads:
            thread.join()
