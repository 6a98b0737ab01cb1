"""What TorchServe's own handlers do to an image, without torchvision: the same numbers.

Source: ``torchvision.transforms`` 0.29 on images of Pillow: ``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trivet_backend_torch.ts.utils.util import PredictionException

_BILINEAR = 2  # PIL.Image.Resampling, which averages over as many pixels as become one
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rgb(image: Any) -> Any:
    """An image of Pillow, in three channels of 8 bits. Raises :class:`PredictionException` (400) for deeper ones."""
    if image.mode.startswith(("I", "F")):
        # Pillow would cut off what is above 255.
        raise PredictionException(f"an image of mode '{image.mode}', and 8 bits a channel are expected", 400)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_tensor(image: Any) -> torch.Tensor:
    """An image of Pillow as float32 [3, height, width] from 0 to 1. Raises as :func:`rgb`."""
    return torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1).contiguous().float().div(255)


@dataclass(frozen=True)
class ImageNet:
    """The middle of an image, as networks that were trained on ImageNet take it: float32 [3, crop, crop]."""

    resize: int = 256
    """The shorter side, before."""
    crop: int = 224

    def __call__(self, image: Any) -> torch.Tensor:
        """``image`` is one of Pillow.

        Raises as :func:`rgb`, and :class:`PredictionException` with status 400 for one that is so long and thin that it
        would have more pixels than Pillow reads.
        """
        import PIL.Image  # noqa: PLC0415 - who has an image has it

        image = rgb(image)
        width, height = image.size
        shorter = min(width, height)
        size = (self.resize * width // shorter, self.resize * height // shorter)
        limit = PIL.Image.MAX_IMAGE_PIXELS
        if limit is not None and size[0] * size[1] > limit:
            raise PredictionException(
                f"an image of {width}x{height} pixels, which would have {size[0]}x{size[1]}: no more than {limit} are"
                " allowed",
                400,
            )
        image = image.resize(size, _BILINEAR)
        left, top = (round((side - self.crop) / 2) for side in image.size)
        tensor = to_tensor(image.crop((left, top, left + self.crop, top + self.crop)))
        return tensor.sub(_column(_MEAN)).div(_column(_DEVIATION))


def _column(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1)
