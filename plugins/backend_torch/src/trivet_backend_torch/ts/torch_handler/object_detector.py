"""``ts.torch_handler.object_detector``: what is in an image, and where."""

from __future__ import annotations

from typing import Any

from trivet_backend_torch.ts.torch_handler.transforms import to_tensor
from trivet_backend_torch.ts.torch_handler.vision_handler import VisionHandler
from trivet_backend_torch.ts.utils.util import map_class_to_label


class ObjectDetector(VisionHandler):
    """Answers with a list of objects: the label with its box, and the ``score``. Images of a batch have one size."""

    image_processing = staticmethod(to_tensor)
    threshold = 0.5
    """Of what scores less nothing is said."""

    def postprocess(self, data: Any) -> list[Any]:
        """``data`` has a dictionary of ``boxes`` [n, 4], ``labels`` [n] and ``scores`` [n] for each row."""
        return [self._objects(found) for found in data]

    def _objects(self, found: Any) -> list[dict[str, Any]]:
        chosen = found["scores"] >= self.threshold
        boxes, labels, scores = (found[key][chosen].tolist() for key in ("boxes", "labels", "scores"))
        named = map_class_to_label([[box] for box in boxes], self.mapping, [[label] for label in labels])
        return [{**one, "score": score} for one, score in zip(named, scores, strict=True)]
