"""What TorchServe's own handlers do to an image, without torchvision: the same numbers.

Source: ``torchvision.transforms`` 0.29 on images of Pillow: ``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_BILINEAR = 2  # PIL.Image.Resampling, which averages over as many pixels as become one
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_tensor(image: Any) -> torch.Tensor:
    """An image of Pillow, three channels of 8 bits, as float32 [3, height, width] from 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


@dataclass(frozen=True)
class ImageNet:
    """The middle of an image, as networks that were trained on ImageNet take it: float32 [3, crop, crop]."""

    resize: int = 256
    """The shorter side, before."""
    crop: int = 224

    def __call__(self, image: Any) -> torch.Tensor:
        """``image`` is one of Pillow, three channels of 8 bits."""
        width, height = image.size
        shorter = min(width, height)
        image = image.resize((self.resize * width // shorter, self.resize * height // shorter), _BILINEAR)
        left, top = (round((side - self.crop) / 2) for side in image.size)
        tensor = to_tensor(image.crop((left, top, left + self.crop, top + self.crop)))
        return tensor.sub(_column(_MEAN)).div(_column(_DEVIATION))


def _column(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1)
