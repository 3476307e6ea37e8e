"""Fully convolutional networks: VGG-16 that gives a class for every pixel."""

from __future__ import annotations

from functools import partial

import numpy as np

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d, ConvTranspose2d
from ..nn.dropout import Dropout2d
from ..nn.module import Module
from ..nn.pooling import MaxPool2d
from .entry import ZooEntry
from .vgg import CHANNELS, CONVOLUTIONS

PAPER = "Long et al., Fully convolutional networks for semantic segmentation"


def stage(number: int, inputs: int, border: int = 100) -> Sequential:
    """Convolutions and pooling of one of VGG's five stages.

    Arguments:
        number: 1 to 5.
        inputs: channels.
        border: padding of the first convolution of all; 100 is so much that the smallest image
            still covers fc6.
    """
    channels = CHANNELS[number - 1]
    layers: dict[str, Module] = {}
    for i in range(1, CONVOLUTIONS[16][number - 1] + 1):
        padding = border if number == i == 1 else 1
        layers[f"conv{number}_{i}"] = Conv2d(inputs, channels, 3, padding=padding)
        layers[f"relu{number}_{i}"] = ReLU()
        inputs = channels
    layers[f"pool{number}"] = MaxPool2d(2, ceil_mode=True)
    return Sequential(layers)


class Upsample(ConvTranspose2d):
    """Transposed convolution that starts as bilinear interpolation (section 3.3)."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(channels, channels, 2 * factor, stride=factor, bias=False)

    def reset_parameters(self) -> None:
        """Weights of bilinear interpolation, each channel by itself."""
        extent = self.kernel_size[0]
        distance = np.abs(np.arange(extent) - (extent - 1) / 2)
        slope = 1 - distance / (extent / 2)
        init.zeros_(self.weight)
        each = np.arange(self.in_channels)
        self.weight.data[each, each] = np.outer(slope, slope)


class FCN(Module):
    """image (N, 3, H, W) -> scores (N, num_classes, H, W) (figure 3).

    Layers are called as in the authors' Caffe model; VGG's stand in five stages.

    Arguments:
        stride: 32 upsamples the last map at once; 16 adds the scores of pool4 on the way; 8 also
            those of pool3.
        num_classes: number of scores; 21 are those of PASCAL VOC.
        dropout: behind fc6 and fc7.
    """

    def __init__(self, stride: int, num_classes: int = 21, dropout: float = 0.5) -> None:
        super().__init__()
        inputs = (3, *CHANNELS)
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = (
            stage(i, inputs[i - 1]) for i in range(1, 6)
        )
        self.fc6 = Conv2d(512, 4096, 7)
        self.relu6 = ReLU()
        self.drop6 = Dropout2d(dropout)
        self.fc7 = Conv2d(4096, 4096, 1)
        self.relu7 = ReLU()
        self.drop7 = Dropout2d(dropout)
        self.score_fr = Conv2d(4096, num_classes, 1)
        self.score_pool4 = Conv2d(512, num_classes, 1) if stride <= 16 else None
        self.upscore2 = Upsample(num_classes, 2) if stride <= 16 else None
        self.score_pool3 = Conv2d(256, num_classes, 1) if stride <= 8 else None
        self.upscore_pool4 = Upsample(num_classes, 2) if stride <= 8 else None
        self.upscore = Upsample(num_classes, stride)
        self.offset = {32: 19, 16: 27, 8: 31}[stride]
        for layer in (self.score_fr, self.score_pool4, self.score_pool3):
            if layer is not None and layer.bias is not None:
                init.zeros_(layer.weight)
                init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        pool3 = self.stage3(self.stage2(self.stage1(image)))
        pool4 = self.stage4(pool3)
        x = self.drop6(self.relu6(self.fc6(self.stage5(pool4))))
        x = self.score_fr(self.drop7(self.relu7(self.fc7(x))))
        if self.score_pool4 is not None and self.upscore2 is not None:
            x = fuse(self.upscore2(x), self.score_pool4(pool4), offset=5)
        if self.score_pool3 is not None and self.upscore_pool4 is not None:
            x = fuse(self.upscore_pool4(x), self.score_pool3(pool3), offset=9)
        return crop(self.upscore(x), image, self.offset)


def fuse(x: Tensor, skipped: Tensor, offset: int) -> Tensor:
    """Adds the part of the skipped map that x covers."""
    return x + crop(skipped, x, offset)


def crop(x: Tensor, like: Tensor, offset: int) -> Tensor:
    """The part of x, in rows and columns from `offset`, that is as large as `like`."""
    height, width = like.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


_INPUT = TensorType((1, 3, 500, 500))

ENTRIES = (
    ZooEntry("fcn32s", 2014, PAPER, _INPUT, partial(FCN, 32), 136_152_917, 363_059_520_000),
    ZooEntry("fcn16s", 2014, PAPER, _INPUT, partial(FCN, 16), 134_815_994, 363_224_047_524),
    ZooEntry("fcn8s", 2014, PAPER, _INPUT, partial(FCN, 8), 134_489_759, 363_386_208_600),
)
