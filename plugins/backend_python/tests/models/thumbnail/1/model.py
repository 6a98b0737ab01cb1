import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image


class TritonPythonModel:
    """Decodes and resizes images, as the first step before a network."""

    def initialize(self, args):
        self.mean = np.array([0.485, 0.456, 0.406], dtype=np.float32)
        self.deviation = np.array([0.229, 0.224, 0.225], dtype=np.float32)

    def prepare(self, data):
        image = Image.open(io.BytesIO(data.tobytes())).convert("RGB").resize((8, 8))
        pixels = np.asarray(image, dtype=np.float32) / 255
        return ((pixels - self.mean) / self.deviation).transpose(2, 0, 1)

    def execute(self, requests):
        responses = []
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            pixels = np.stack([self.prepare(image) for image in images])
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("PIXELS", pixels)]))
        return responses
