"""Images to tensors: decoded, resized and laid out as an input asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from trivet_protocol_kserve_v2.cli.exchange import InputDescription

_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
# Means and standard deviations of ImageNet's training images, RGB in 0 to 1, as torchvision's models expect them.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def read_image(file: str, target: InputDescription, scaling: str | None, crop: bool) -> NDArray[Any]:
    """One image as an array of ``target.shape``, float32 or uint8.

    A free dimension (-1) follows the image: its own size, or in proportion where the other dimension is fixed. Raises
    :class:`click.UsageError` where the input is no image or Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - optional
    except ImportError as error:
        raise click.UsageError(f"{file}: reading images needs Pillow; pip install pillow") from error
    channels_first, channels, height, width = _layout(target)
    try:
        with Image.open(file) as opened:
            image = opened.convert(_CHANNELS[channels])
    except UnidentifiedImageError as error:
        raise click.UsageError(f"{file}: not an image that Pillow can read") from error
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror or error}") from error
    pixels = np.asarray(_resize(image, height, width, crop))
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    scaled = _scale(pixels, scaling or ("unit" if target.datatype.numpy.kind == "f" else "none"), target)
    return scaled.transpose(2, 0, 1) if channels_first else scaled


def _layout(target: InputDescription) -> tuple[bool, int, int, int]:
    """Whether channels come first, how many they are, height and width (-1 is free)."""
    shape = target.shape
    if len(shape) == 3:
        # Without a declared format, the dimension that can only be a number of channels tells.
        first = target.format == "FORMAT_NCHW" or (target.format == "FORMAT_NONE" and shape[0] in _CHANNELS)
        channels, height, width = shape if first else (shape[2], *shape[:2])
        if channels in _CHANNELS:
            return first, channels, height, width
    raise click.UsageError(
        f"input '{target.name}' of shape {list(shape)} is not an image of 1, 3 or 4 channels; prepare it as .npy"
    )


def _resize(image: Image, height: int, width: int, crop: bool) -> Image:
    if height < 0 and width < 0:
        return image
    if height < 0:
        height = max(1, round(image.height * width / image.width))
    elif width < 0:
        width = max(1, round(image.width * height / image.height))
    if not crop:
        return image.resize((width, height))
    factor = max(width / image.width, height / image.height)
    covering = image.resize((max(width, round(image.width * factor)), max(height, round(image.height * factor))))
    left, top = (covering.width - width) // 2, (covering.height - height) // 2
    return covering.crop((left, top, left + width, top + height))


def _scale(pixels: NDArray[np.uint8], scaling: str, target: InputDescription) -> NDArray[Any]:
    if scaling == "none":
        return pixels
    if target.datatype.numpy.kind != "f":
        raise click.UsageError(
            f"--scaling {scaling} gives fractions, and input '{target.name}' takes {target.datatype}"
        )
    unit = pixels.astype(np.float32) / np.float32(255)
    if scaling == "inception":
        return unit * np.float32(2) - np.float32(1)
    if scaling == "imagenet":
        if pixels.shape[2] != 3:
            raise click.UsageError(
                f"--scaling imagenet is for three channels, input '{target.name}' has {pixels.shape[2]}"
            )
        return (unit - np.array(_MEAN, np.float32)) / np.array(_DEVIATION, np.float32)
    return unit
