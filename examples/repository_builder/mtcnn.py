"""The three networks of MTCNN, a face detector, written so that they load the published weights.

Source: Zhang et al., "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks" (2016), and
the names of layers in facenet-pytorch's checkpoints. Pixels are RGB, ``(value - 127.5) / 128``.
"""

from __future__ import annotations

from torch import Tensor, nn


class Features(nn.Module):
    """Convolutions, each with a PReLU, and with a maximum over a window where ``pools`` gives its size."""

    def __init__(self, *channels: int, kernels: tuple[int, ...], pools: tuple[int, ...]) -> None:
        super().__init__()
        self.pooled = tuple(bool(size) for size in pools)
        for index, (kernel, size) in enumerate(zip(kernels, pools, strict=True), start=1):
            setattr(self, f"conv{index}", nn.Conv2d(channels[index - 1], channels[index], kernel))
            setattr(self, f"prelu{index}", nn.PReLU(channels[index]))
            if size:
                setattr(self, f"pool{index}", nn.MaxPool2d(size, 2, ceil_mode=True))

    def features(self, image: Tensor) -> Tensor:
        hidden = image
        for index, pooled in enumerate(self.pooled, start=1):
            hidden = self.get_submodule(f"prelu{index}")(self.get_submodule(f"conv{index}")(hidden))
            if pooled:
                hidden = self.get_submodule(f"pool{index}")(hidden)
        return hidden


class ProposalNet(Features):
    """FP32 image [B, 3, H, W] to boxes' corrections [B, 4, h, w] and probabilities of no face, a face [B, 2, h, w].

    Each of the h x w results is about a window of 12 x 12 pixels, two pixels from the next.
    """

    def __init__(self) -> None:
        super().__init__(3, 10, 16, 32, kernels=(3, 3, 3), pools=(2, 0, 0))
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.features(image)
        return self.conv4_2(hidden), self.conv4_1(hidden).softmax(dim=1)


class Dense(Features):
    def dense(self, image: Tensor, layer: nn.Module, activation: nn.Module) -> Tensor:
        """The first dense layer. The checkpoints count a map's elements by columns, as the Caffe original did."""
        return activation(layer(self.features(image).permute(0, 3, 2, 1).flatten(1)))


class RefinementNet(Dense):
    """FP32 crops [B, 3, 24, 24] to boxes' corrections [B, 4] and probabilities of no face, a face [B, 2]."""

    def __init__(self) -> None:
        super().__init__(3, 28, 48, 64, kernels=(3, 3, 2), pools=(3, 3, 0))
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.dense(image, self.dense4, self.prelu4)
        return self.dense5_2(hidden), self.dense5_1(hidden).softmax(dim=1)


class OutputNet(Dense):
    """FP32 crops [B, 3, 48, 48] to boxes' corrections [B, 4], landmarks [B, 10] and probabilities [B, 2].

    Landmarks are the x of left eye, right eye, nose, left and right corner of the mouth, as seen, and then their y; all
    as parts of the box.
    """

    def __init__(self) -> None:
        super().__init__(3, 32, 64, 64, 128, kernels=(3, 3, 3, 2), pools=(3, 3, 2, 0))
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.dense(image, self.dense5, self.prelu5)
        return self.dense6_2(hidden), self.dense6_3(hidden), self.dense6_1(hidden).softmax(dim=1)
