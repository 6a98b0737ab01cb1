import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image


class TritonPythonModel:
    """Decodes a page, and draws its edges out to multiples of 32 as detection needs."""

    def execute(self, requests):
        return [self.decode(pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[0]) for request in requests]

    def decode(self, file):
        try:
            page = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            message = f"image cannot be decoded: {error}"
            return pb_utils.InferenceResponse([], error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        channels = (page.astype(np.float32)[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)
        height, width = page.shape[:2]
        pixels = np.pad(channels, [(0, 0), (0, -height % 32), (0, -width % 32)], mode="edge")[np.newaxis]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("page", np.ascontiguousarray(page)),
                pb_utils.Tensor("pixels", np.ascontiguousarray(pixels)),
            ]
        )
