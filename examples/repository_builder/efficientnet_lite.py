"""EfficientNet-Lite0 as a torch module, written so that it loads the published weights and exports cleanly.

The architecture is MobileNet's inverted residual with TensorFlow's asymmetric "SAME" padding: EfficientNet-B0 without
squeeze-and-excitation, with ReLU6 in place of swish.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 224
CLASSES = 1000
# Kernel, stride, expansion, channels out, repeats: one row per stage.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class SamePadConv2d(nn.Conv2d):
    """A convolution without bias that gives ``ceil(input / stride)`` pixels, odd ones padded below and right."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
        # Every convolution of stride 2 in this network gets an even-sized input, so the padding is a constant.
        total = kernel - stride
        self.same_padding = (total // 2, total - total // 2) * 2

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, self.same_padding))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class InvertedResidual(nn.Module):
    """Widen, filter each channel on its own, narrow; plus the input where shapes allow. Names are the checkpoint's."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expands = expansion > 1
        self.residual = stride == 1 and channels_in == channels_out
        if self.expands:
            self._expand_conv = SamePadConv2d(channels_in, wide, 1)
            self._bn0 = batch_norm(wide)
        self._depthwise_conv = SamePadConv2d(wide, wide, kernel, stride, groups=wide)
        self._bn1 = batch_norm(wide)
        self._project_conv = SamePadConv2d(wide, channels_out, 1)
        self._bn2 = batch_norm(channels_out)

    def forward(self, input: Tensor) -> Tensor:
        hidden = input
        if self.expands:
            hidden = functional.relu6(self._bn0(self._expand_conv(hidden)))
        hidden = functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return input + hidden if self.residual else hidden


class EfficientNetLite0(nn.Module):
    """FP32 images [B, 3, 224, 224], RGB scaled to -1…1, to probabilities [B, 1000] over ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePadConv2d(3, 32, 3, stride=2)
        self._bn0 = batch_norm(32)
        blocks: list[nn.Module] = []
        channels = 32
        for kernel, stride, expansion, channels_out, repeats in STAGES:
            for index in range(repeats):
                blocks.append(InvertedResidual(channels, channels_out, kernel, stride if index == 0 else 1, expansion))
                channels = channels_out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SamePadConv2d(channels, 1280, 1)
        self._bn1 = batch_norm(1280)
        self._fc = nn.Linear(1280, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        hidden = functional.relu6(self._bn0(self._conv_stem(image)))
        hidden = functional.relu6(self._bn1(self._conv_head(self._blocks(hidden))))
        return torch.softmax(self._fc(hidden.mean(dim=(2, 3))), dim=1)


def export(weights: Path, model_file: Path) -> None:
    """Write the ONNX model (input ``image``, output ``probabilities``, free batch) for the checkpoint ``weights``."""
    model = EfficientNetLite0().eval()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    with warnings.catch_warnings():
        # The exporter leaves the arithmetic on the padding constants in the graph; ONNX Runtime folds it on load.
        warnings.filterwarnings("ignore", message="Constant folding")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE),),
            model_file,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_axes={"image": {0: "batch"}, "probabilities": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
