import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

SMALLEST_FACE = 40  # pixels
SCALE_STEP = 0.709  # each scale of the picture has half the pixels of the one before
WINDOW, STRIDE = 12, 2  # of face_proposal
SURE = (0.6, 0.7, 0.7)  # the least probability that a stage passes on
BATCH = 256


class TritonPythonModel:
    """MTCNN: ``face_proposal`` finds windows at all scales, ``face_refinement`` and ``face_landmarks`` sift them."""

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[0]) for request in requests]

    def answer(self, file):
        try:
            image = Image.open(io.BytesIO(file)).convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            message = f"image cannot be decoded: {error}"
            return pb_utils.InferenceResponse([], error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        try:
            found = dict(zip(("boxes", "probabilities", "landmarks"), detect(image), strict=True))
        except pb_utils.TritonModelException as error:
            return pb_utils.InferenceResponse([], error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.ascontiguousarray(value, np.float32)) for name, value in found.items()]
        )


def detect(image):
    boxes, scores = proposals(image)
    if len(boxes):
        crops = np.stack([crop(image, box, 24) for box in boxes])
        corrections, probabilities = infer("face_refinement", crops, "correction", "probability")
        kept = probabilities[:, 1] > SURE[1]
        boxes, scores, corrections = boxes[kept], probabilities[kept, 1], corrections[kept]
        best = without_doubles(boxes, scores, 0.7)
        boxes, scores = squares(moved(boxes[best], corrections[best])), scores[best]
    if not len(boxes):
        return np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))
    crops = np.stack([crop(image, box, 48) for box in boxes])
    corrections, landmarks, probabilities = infer("face_landmarks", crops, "correction", "landmarks", "probability")
    kept = probabilities[:, 1] > SURE[2]
    boxes, scores, corrections = boxes[kept], probabilities[kept, 1], corrections[kept]
    points = landmarks[kept].reshape(-1, 2, 5).transpose(0, 2, 1) * sizes(boxes)[:, None] + boxes[:, None, :2] - 1
    boxes = moved(boxes, corrections)
    best = without_doubles(boxes, scores, 0.7, of_smaller=True)
    return boxes[best], scores[best], points[best]


def proposals(image):
    """Boxes [N, 4] and scores [N] of windows that may be faces, at every scale of the picture."""
    scale = WINDOW / SMALLEST_FACE
    all_boxes, all_scores = [np.zeros((0, 4))], [np.zeros(0)]
    while min(image.size) * scale >= WINDOW:
        width, height = (int(side * scale + 1) for side in image.size)
        smaller = image.resize((width, height), Image.Resampling.BOX)
        correction, probability = infer("face_proposal", pixels(smaller)[np.newaxis], "correction", "probability")
        rows, columns = np.nonzero(probability[0, 1] >= SURE[0])
        corners = np.stack([columns, rows, columns, rows], axis=1) * STRIDE + [1, 1, WINDOW, WINDOW]
        boxes, scores = np.floor(corners / scale), probability[0, 1, rows, columns]
        shift = correction[0, :, rows, columns] * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        best = without_doubles(boxes, scores, 0.5)
        all_boxes.append((boxes + shift)[best])
        all_scores.append(scores[best])
        scale *= SCALE_STEP
    boxes, scores = np.concatenate(all_boxes), np.concatenate(all_scores)
    best = without_doubles(boxes, scores, 0.7)
    return squares(boxes[best]), scores[best]


def sizes(boxes):
    return boxes[:, 2:] - boxes[:, :2] + 1


def moved(boxes, corrections):
    return boxes + corrections * np.tile(sizes(boxes), 2)


def squares(boxes):
    """Boxes as wide as they are high, around the same middle."""
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.concatenate([middle - side / 2, middle + side / 2], axis=1)


def without_doubles(boxes, scores, most, of_smaller=False):
    """Indices of the boxes, best first, that do not overlap a better one by more than ``most``."""
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    order, best = np.argsort(-scores), []
    while len(order):
        first, others = order[0], order[1:]
        best.append(first)
        width = np.minimum(right[first], right[others]) - np.maximum(left[first], left[others]) + 1
        height = np.minimum(bottom[first], bottom[others]) - np.maximum(top[first], top[others]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        whole = np.minimum(areas[first], areas[others]) if of_smaller else areas[first] + areas[others] - shared
        order = others[shared / whole <= most]
    return np.array(best, int)


def crop(image, box, side):
    """FP32 [3, side, side]: what of a box lies in the picture."""
    left, top, right, bottom = (int(edge) for edge in box)
    left, top = max(left - 1, 0), max(top - 1, 0)
    right, bottom = max(min(right, image.width), left + 1), max(min(bottom, image.height), top + 1)
    return pixels(image.resize((side, side), Image.Resampling.BOX, (left, top, right, bottom)))


def pixels(image):
    return ((np.asarray(image, np.float32) - 127.5) / 128).transpose(2, 0, 1)


def infer(model, images, *outputs):
    """Outputs of another model of this server, for any number of images."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    answers = [infer_batch(model, part, outputs) for part in parts]
    return [np.concatenate(columns) for columns in zip(*answers, strict=True)]


def infer_batch(model, images, outputs):
    tensor = pb_utils.Tensor("image", np.ascontiguousarray(images))
    request = pb_utils.InferenceRequest(model_name=model, inputs=[tensor], requested_output_names=list(outputs))
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return [pb_utils.get_output_tensor_by_name(response, output).as_numpy() for output in outputs]
