"""EfficientNet-Lite0 as a SavedModel, out of the same checkpoint as the ONNX and the PyTorch models.

The network was trained in TensorFlow, so that what is asymmetric padding in PyTorch is "SAME" here. Each batch
normalization is folded into the convolution before it, and channels come last, as TensorFlow's CPU kernels want them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
import torch

from repository_builder.efficientnet_lite import IMAGE_SIZE, EfficientNetLite0, InvertedResidual


class Convolution(tf.Module):  # type: ignore[misc]
    """A convolution of PyTorch, of all channels or of each by itself, with the batch normalization that follows it."""

    def __init__(self, convolution: torch.nn.Conv2d, norm: Any) -> None:
        super().__init__()
        self.stride = convolution.stride[0]
        self.depthwise = convolution.groups > 1
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = convolution.weight * scale[:, None, None, None]
        # Height, width, channels in, channels out (or one for each).
        self.weight = tf.Variable(weight.permute((2, 3, 0, 1) if self.depthwise else (2, 3, 1, 0)).numpy())
        self.bias = tf.Variable((norm.bias - norm.running_mean * scale).numpy())

    def __call__(self, images: Any) -> Any:
        convolve = tf.nn.depthwise_conv2d if self.depthwise else tf.nn.conv2d
        return convolve(images, self.weight, [1, self.stride, self.stride, 1], "SAME") + self.bias


class Block(tf.Module):  # type: ignore[misc]
    """Widen, filter each channel on its own, narrow; plus the input where shapes allow."""

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        self.residual = block.residual
        self.widen = Convolution(block._expand_conv, block._bn0) if block.expands else None
        self.filter = Convolution(block._depthwise_conv, block._bn1)
        self.narrow = Convolution(block._project_conv, block._bn2)

    def __call__(self, images: Any) -> Any:
        hidden = images if self.widen is None else tf.nn.relu6(self.widen(images))
        hidden = self.narrow(tf.nn.relu6(self.filter(hidden)))
        return images + hidden if self.residual else hidden


class Classifier(tf.Module):  # type: ignore[misc]
    """FP32 ``image`` [B, 3, 224, 224], RGB scaled to -1…1, to ``probabilities`` [B, 1000] over ImageNet's classes."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.stem = Convolution(network._conv_stem, network._bn0)
        self.blocks = [Block(block) for block in network._blocks if isinstance(block, InvertedResidual)]
        self.head = Convolution(network._conv_head, network._bn1)
        self.weight = tf.Variable(network._fc.weight.T.numpy())
        self.bias = tf.Variable(network._fc.bias.numpy())

    @tf.function(input_signature=[tf.TensorSpec([None, 3, IMAGE_SIZE, IMAGE_SIZE], tf.float32, "image")])  # type: ignore[untyped-decorator]
    def serve(self, image: Any) -> dict[str, Any]:
        hidden = tf.nn.relu6(self.stem(tf.transpose(image, [0, 2, 3, 1])))
        for block in self.blocks:
            hidden = block(hidden)
        features = tf.reduce_mean(tf.nn.relu6(self.head(hidden)), axis=[1, 2])
        return {"probabilities": tf.nn.softmax(features @ self.weight + self.bias)}


def export(weights: Path, folder: Path) -> None:
    """Write the SavedModel, with one signature ``serving_default``, for the checkpoint ``weights`` into ``folder``."""
    network = EfficientNetLite0().eval().requires_grad_(requires_grad=False)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    classifier = Classifier(network)
    tf.saved_model.save(classifier, str(folder), signatures={"serving_default": classifier.serve})
