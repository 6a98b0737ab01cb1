import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

HEIGHT, ORIENTATION_WIDTH = 48, 192  # what the models were trained on
WHITE = 1.0


class TritonPythonModel:
    """Cuts the lines of horizontal text out of a page, top to bottom. A page without text gives one empty line."""

    def execute(self, requests):
        return [self.cut(request) for request in requests]

    def cut(self, request):
        page = Image.fromarray(pb_utils.get_input_tensor_by_name(request, "page").as_numpy())
        score_map = pb_utils.get_input_tensor_by_name(request, "score_map").as_numpy()[0, 0]
        lines = [page.crop(box) for box in text_boxes(score_map)] or [Image.new("RGB", (HEIGHT, HEIGHT), "white")]
        full = [pixels(line) for line in lines]
        widths = np.array([line.shape[2] for line in full], np.int32)
        squeezed = [fill(pixels(line, ORIENTATION_WIDTH), ORIENTATION_WIDTH, 0) for line in lines]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("squeezed", np.stack(squeezed)),
                pb_utils.Tensor("lines", np.stack([fill(line, widths.max(), WHITE) for line in full])),
                pb_utils.Tensor("widths", widths),
            ]
        )


def pixels(line, most=None):
    """FP32 [3, 48, W], blue first, -1 to 1."""
    width = max(round(line.width * HEIGHT / line.height), 1)
    resized = line.resize((min(width, most or width), HEIGHT))
    return (np.asarray(resized, np.float32)[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)


def fill(line, width, value):
    return np.pad(line, [(0, 0), (0, 0), (0, width - line.shape[2])], constant_values=value)


def text_boxes(score_map):
    """Where rows, and then columns, have text; grown by what the model was trained to leave out."""
    text = score_map > 0.3
    boxes = []
    for top, bottom in runs(text.any(axis=1)):
        for left, right in runs(text[top:bottom].any(axis=0)):
            rows = np.flatnonzero(text[top:bottom, left:right].any(axis=1)) + top
            first, last = int(rows[0]), int(rows[-1]) + 1
            width, height = right - left, last - first
            if min(width, height) > 3:
                grow = round(1.6 * width * height / (2 * (width + height)))
                boxes.append((max(left - grow, 0), max(first - grow, 0), right + grow, last + grow))
    return boxes


def runs(flags):
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
