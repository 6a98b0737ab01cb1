"""``ts.torch_handler.image_segmenter``: what is at each pixel of an image."""

from __future__ import annotations

from typing import Any

import torch

from trivet_backend_torch.ts.torch_handler.transforms import ImageNet
from trivet_backend_torch.ts.torch_handler.vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """Answers with the likeliest class of each pixel, and its probability."""

    image_processing = ImageNet()

    def postprocess(self, data: Any) -> list[Any]:
        """From ``data["out"]``, logits [rows, classes, height, width], lists of [rows, height, width, 2]."""
        best = torch.max(torch.nn.functional.softmax(data["out"], dim=1), dim=1)
        answers: list[Any] = torch.stack([best.indices.to(best.values.dtype), best.values], dim=3).tolist()
        return answers
