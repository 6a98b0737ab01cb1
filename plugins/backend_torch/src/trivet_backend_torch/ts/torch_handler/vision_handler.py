"""``ts.torch_handler.vision_handler``: the class that handlers of images derive from."""

from __future__ import annotations

import base64
import importlib
import io
from typing import Any

import torch

from trivet_backend_torch.handlers.rows import batch, numbers, posted
from trivet_backend_torch.ts.torch_handler.base_handler import BaseHandler
from trivet_backend_torch.ts.utils.util import PredictionException


class VisionHandler(BaseHandler):
    """Reads images and has :attr:`image_processing` make tensors of them, all of the same shape."""

    image_processing: Any = None
    """From an image of Pillow, in the mode of its file, to a tensor: a method, or any object that can be called. One of
    ``torchvision.transforms`` will do, where that is installed.
    """

    def initialize(self, context: Any) -> None:
        """As :class:`BaseHandler`. Raises :class:`RuntimeError` where Pillow is not installed, too."""
        try:
            import PIL.Image  # noqa: F401, PLC0415 - no other model needs it
        except ImportError as error:
            raise RuntimeError(
                "handlers of images need Pillow; install it with: pip install 'trivet-backend-torch[torchserve]'"
            ) from error
        super().initialize(context)

    def preprocess(self, data: Any) -> torch.Tensor:
        """The rows' images in one tensor on the handler's device.

        A row has its image in ``data`` or ``body``: a file of any format that Pillow reads; the same in base64;
        or numbers, which are taken as they are. Raises :class:`PredictionException` with status 400 for what is no
        image, one of so many pixels that Pillow refuses it, and where tensors differ in shape.
        """
        return batch([self._tensor(row) for row in data]).to(self.device)

    def _tensor(self, row: Any) -> torch.Tensor:
        content = posted(row)
        if not isinstance(content, (bytes, bytearray, str)):
            return numbers(content, torch.float32)
        tensor: torch.Tensor = self.image_processing(_read(_file(content)))
        return tensor

    def get_insights(self, tensor_data: Any, _: Any, target: Any = 0) -> list[Any]:
        """How much each number of the tensor contributes to a class's score, by captum's integrated gradients.

        Raises :class:`PredictionException` with status 501 where captum is not installed.
        """
        try:
            captum = importlib.import_module("captum.attr")
        except ImportError as error:
            raise PredictionException("explanations need captum on the server: pip install captum", 501) from error
        gradients = captum.IntegratedGradients(self.model)
        answers: list[Any] = gradients.attribute(tensor_data, target=target, n_steps=15).tolist()
        return answers


def _file(content: bytes | bytearray | str) -> bytes | bytearray:
    """A file, out of base64 where it is in that: bytes too, since JSON has no other way to carry a file."""
    if isinstance(content, str):
        try:
            return base64.b64decode(content)
        except ValueError as error:
            raise PredictionException(f"text that is no image in base64: {error}", 400) from error
    try:
        # The letters of base64 alone are no image of any format.
        return base64.b64decode(content, validate=True)
    except ValueError:
        return content


def _read(content: bytes | bytearray) -> Any:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format == "EPS":
                # A program, which Pillow would have Ghostscript run for as long as it likes.
                raise ValueError("PostScript is not read")
            image.load()
            return image
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        begin = f" and begin with {bytes(content[:8])!r}" if content else ""
        raise PredictionException(f"{len(content)} bytes that are no image of a known format{begin}", 400) from error
    except Exception as error:  # Pillow's readers raise whatever they come across: AVIF's a RuntimeError
        raise PredictionException(f"{len(content)} bytes that are no image: {error}", 400) from error
