"""``ts.torch_handler.object_detector``: what is in an image, and where."""

from __future__ import annotations

from typing import Any

from trivet_backend_torch.handlers.rows import batch
from trivet_backend_torch.ts.torch_handler.transforms import to_tensor
from trivet_backend_torch.ts.torch_handler.vision_handler import VisionHandler
from trivet_backend_torch.ts.utils.util import map_class_to_label


class ObjectDetector(VisionHandler):
    """Answers with a list of objects: the label with its box, and the ``score``.

    The network takes images of one size as one tensor, [n, 3, height, width]; where a batch has several, one by one.
    """

    image_processing = staticmethod(to_tensor)
    threshold = 0.5
    """Of what scores less nothing is said."""

    def preprocess(self, data: Any) -> Any:
        """As :meth:`VisionHandler.preprocess`, and a list of tensors where they differ in size."""
        images = [self._tensor(row).to(self.device) for row in data]
        return batch(images) if len({image.shape for image in images}) == 1 else images

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """What the network finds in each image."""
        found: list[Any] = []
        for images in [image.unsqueeze(0) for image in data] if isinstance(data, list) else [data]:
            found += super().inference(images, *args, **kwargs)
        return found

    def postprocess(self, data: Any) -> list[Any]:
        """``data`` has a dictionary of ``boxes`` [n, 4], ``labels`` [n] and ``scores`` [n] for each row."""
        return [self._objects(found) for found in data]

    def _objects(self, found: Any) -> list[dict[str, Any]]:
        chosen = found["scores"] >= self.threshold
        boxes, labels, scores = (found[key][chosen].tolist() for key in ("boxes", "labels", "scores"))
        named = map_class_to_label([[box] for box in boxes], self.mapping, [[label] for label in labels])
        return [{**one, "score": score} for one, score in zip(named, scores, strict=True)]
