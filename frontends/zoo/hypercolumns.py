"""Hypercolumns: every pixel is classified by what all layers have computed above it."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import ModuleList
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout2d
from ..nn.functional.shape import cat, interpolate
from ..nn.module import Module
from .entry import ZooEntry
from .fcn import stage
from .vgg import CHANNELS

PAPER = "Hariharan et al., Hypercolumns for object segmentation and fine-grained localization"


class _Features(Module):
    """image (N, 3, H, W) -> what VGG-16 computes at pool2, pool4 and fc7, as maps."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        inputs = (3, *CHANNELS)
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = (
            stage(i, inputs[i - 1], border=1) for i in range(1, 6)
        )
        self.fc6 = Conv2d(512, hidden, 7, padding=3)
        self.relu6 = ReLU()
        self.drop6 = Dropout2d(dropout)
        self.fc7 = Conv2d(hidden, hidden, 1)
        self.relu7 = ReLU()
        self.drop7 = Dropout2d(dropout)
        self.channels = (CHANNELS[1], CHANNELS[3], hidden)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pool2 = self.stage2(self.stage1(image))
        pool4 = self.stage4(self.stage3(pool2))
        x = self.drop6(self.relu6(self.fc6(self.stage5(pool4))))
        return pool2, pool4, self.drop7(self.relu7(self.fc7(x)))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """The map `x` in the extents of `like`, linear between its elements."""
    return interpolate(x, like.shape[2:], mode="bilinear")


class Hypercolumns(Module):
    """image (N, 3, H, W) -> scores (N, num_classes, H, W), from resized features.

    The maps are made as large as the image and concatenated; each pixel's column is classified by a
    1×1 convolution. This is what the paper says (section 3); `ResizedPredictions` gives the same
    numbers for less, and the pass `ClassifyBeforeResize` turns the one into the other.

    Arguments:
        num_classes: number of scores.
        hidden: channels of fc6 and fc7.
        dropout: behind fc6 and fc7.
    """

    def __init__(self, num_classes: int = 21, hidden: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = _Features(hidden, dropout)
        self.score = Conv2d(sum(self.features.channels), num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        columns = cat([resized(x, image) for x in self.features(image)], 1)
        scores: Tensor = self.score(columns)
        return scores


class ResizedPredictions(Module):
    """image (N, 3, H, W) -> scores (N, num_classes, H, W), from resized scores (section 4).

    Arguments:
        num_classes: number of scores.
        hidden: channels of fc6 and fc7.
        dropout: behind fc6 and fc7.
    """

    def __init__(self, num_classes: int = 21, hidden: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = _Features(hidden, dropout)
        first, *others = self.features.channels
        self.score = ModuleList([Conv2d(first, num_classes, 1)])
        self.score.extend(Conv2d(n, num_classes, 1, bias=False) for n in others)

    def forward(self, image: Tensor) -> Tensor:
        parts = [
            resized(score(x), image)
            for score, x in zip(self.score, self.features(image), strict=True)
        ]
        return sum(parts[1:], parts[0])


_INPUT = TensorType((1, 3, 224, 224))

ENTRIES = (
    ZooEntry("hypercolumns", 2014, PAPER, _INPUT, Hypercolumns, 134_360_021, 53_165_435_904),
    ZooEntry(
        "hypercolumns_resized",
        2014,
        PAPER,
        _INPUT,
        ResizedPredictions,
        134_360_021,
        42_484_218_336,
    ),
)
