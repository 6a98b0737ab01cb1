import io
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, UnidentifiedImageError

HEIGHT, ORIENTATION_WIDTH = 48, 192  # what the models were trained on


class TritonPythonModel:
    """Turns a line of text upright with ``text_orientation`` and reads it with ``text_recognition``."""

    def initialize(self, args):
        version = Path(args["model_repository"], args["model_version"])
        self.characters = (version / "characters.txt").read_text(encoding="utf-8")

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        try:
            texts = [self.read(decoded(file)) for file in files[:, 0]]
        except pb_utils.TritonModelException as error:
            return pb_utils.InferenceResponse([], error=pb_utils.TritonError(str(error)))
        text = np.array([[text.encode()] for text in texts], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("text", text)])

    def read(self, line):
        upright, upside_down = infer(
            "text_orientation", pixels(line, ORIENTATION_WIDTH), "save_infer_model/scale_0.tmp_1"
        )
        scores = infer("text_recognition", pixels(line.rotate(180) if upside_down > upright else line), "fetch_name_0")
        return self.decode(scores)

    def decode(self, scores):
        """CTC: the best class of each step, without repeats and without blanks, which are class 0."""
        best = scores.argmax(axis=1)
        changes = np.flatnonzero(np.diff(best, prepend=0))
        return "".join(self.characters[best[step] - 1] for step in changes if best[step])


def decoded(file):
    try:
        return Image.open(io.BytesIO(file)).convert("RGB")
    except UnidentifiedImageError:
        raise pb_utils.TritonModelException(
            "image has to be a PNG, a JPEG, or another format that Pillow reads"
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise pb_utils.TritonModelException(f"image cannot be decoded: {error}") from error


def pixels(line, width=None):
    """FP32 [1, 3, 48, W], blue first, -1 to 1: in proportion, or squeezed or filled up with grey to ``width``."""
    natural = max(round(line.width * HEIGHT / line.height), 1)
    resized = line.resize((min(natural, width or natural), HEIGHT))
    channels = (np.asarray(resized, np.float32)[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)
    return np.pad(channels[np.newaxis], [(0, 0)] * 3 + [(0, (width or resized.width) - resized.width)])


def infer(model, x, output):
    """The output of another model of this server for a batch of one."""
    tensor = pb_utils.Tensor("x", np.ascontiguousarray(x))
    response = pb_utils.InferenceRequest(model_name=model, inputs=[tensor], requested_output_names=[output]).exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return pb_utils.get_output_tensor_by_name(response, output).as_numpy()[0]
