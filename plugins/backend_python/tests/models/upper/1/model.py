import numpy as np
import triton_python_backend_utils as pb_utils
from text_tools import shout


class TritonPythonModel:
    """Strings in and out, with an error for the requests that hold none."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        auto_complete_model_config.add_input({"name": "TEXT", "data_type": "TYPE_STRING", "dims": [-1]})
        auto_complete_model_config.add_output({"name": "UPPER", "data_type": "TYPE_STRING", "dims": [-1]})
        auto_complete_model_config.add_output({"name": "LENGTH", "data_type": "TYPE_INT32", "dims": [-1]})
        auto_complete_model_config.set_max_batch_size(16)
        return auto_complete_model_config

    def execute(self, requests):
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            if text.size == 0:
                error = pb_utils.TritonError("TEXT is empty", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            upper = np.array([shout(item.decode("utf-8")) for item in text.reshape(-1)], dtype=np.object_)
            length = np.array([len(item) for item in upper], dtype=np.int32)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor("UPPER", upper.reshape(text.shape)),
                        pb_utils.Tensor("LENGTH", length.reshape(text.shape)),
                    ]
                )
            )
        return responses
