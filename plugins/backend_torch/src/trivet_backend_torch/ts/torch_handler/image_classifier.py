"""``ts.torch_handler.image_classifier``: what is in an image."""

from __future__ import annotations

from typing import Any

import torch

from trivet_backend_torch.ts.torch_handler.transforms import ImageNet
from trivet_backend_torch.ts.torch_handler.vision_handler import VisionHandler
from trivet_backend_torch.ts.utils.util import map_class_to_label


class ImageClassifier(VisionHandler):
    """Answers with the likeliest classes and their probabilities, the best first."""

    topk = 5
    image_processing = ImageNet()

    def set_max_result_classes(self, topk: int) -> None:
        """How many classes an answer has."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """How many classes an answer has."""
        return self.topk

    def postprocess(self, data: Any) -> list[Any]:
        """For each row of logits [rows, classes] a dictionary from label to probability."""
        probabilities = torch.nn.functional.softmax(data, dim=1)
        best = torch.topk(probabilities, min(self.topk, probabilities.shape[1]), dim=1)
        return [*map_class_to_label(best.values.tolist(), self.mapping, best.indices.tolist())]
