"""DeconvNet: VGG-16 and its mirror image, which unpools where VGG has pooled."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import ModuleList, Sequential
from ..nn.convolution import Conv2d, ConvTranspose2d
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from ..nn.pooling import MaxPool2d, MaxUnpool2d
from .entry import ZooEntry
from .vgg import CHANNELS, CONVOLUTIONS

PAPER = "Noh et al., Learning deconvolution network for semantic segmentation"


def down(inputs: int, channels: int, count: int) -> Sequential:
    """Convolutions of one resolution, each with batch norm and ReLU."""
    layers: list[Module] = []
    for _ in range(count):
        layers += [Conv2d(inputs, channels, 3, padding=1), BatchNorm2d(channels), ReLU()]
        inputs = channels
    return Sequential(*layers)


def up(inputs: int, channels: int, count: int) -> Sequential:
    """Transposed convolutions of one resolution; the last one changes the number of channels."""
    layers: list[Module] = []
    for i in range(count):
        outputs = channels if i == count - 1 else inputs
        layers += [ConvTranspose2d(inputs, outputs, 3, padding=1), BatchNorm2d(outputs), ReLU()]
    return Sequential(*layers)


class DeconvNet(Module):
    """image (N, 3, 224, 224) -> scores (N, num_classes, 224, 224) (figure 2, table 2).

    Each unpooling puts values back to where the pooling of the same size has found its maxima.

    Arguments:
        num_classes: number of scores; 21 are those of PASCAL VOC.
        hidden: channels of fc6 and fc7.
    """

    def __init__(self, num_classes: int = 21, hidden: int = 4096) -> None:
        super().__init__()
        stages = tuple(zip((3, *CHANNELS[:-1]), CHANNELS, CONVOLUTIONS[16], strict=True))
        self.encoder = ModuleList(down(*stage) for stage in stages)
        self.pool = MaxPool2d(2, return_indices=True)
        self.fc6 = Sequential(Conv2d(512, hidden, 7), BatchNorm2d(hidden), ReLU())
        self.fc7 = Sequential(Conv2d(hidden, hidden, 1), BatchNorm2d(hidden), ReLU())
        self.fc6_deconv = Sequential(ConvTranspose2d(hidden, 512, 7), BatchNorm2d(512), ReLU())
        self.unpool = MaxUnpool2d(2)
        self.decoder = ModuleList(
            up(channels, inputs if inputs > 3 else channels, count)
            for inputs, channels, count in reversed(stages)
        )
        self.score = Conv2d(CHANNELS[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, places = image, []
        for stage in self.encoder:
            x, place = self.pool(stage(x))
            places.append(place)
        x = self.fc6_deconv(self.fc7(self.fc6(x)))
        for stage, place in zip(self.decoder, reversed(places), strict=True):
            x = stage(self.unpool(x, place))
        scores: Tensor = self.score(x)
        return scores


ENTRIES = (
    ZooEntry(
        "deconvnet",
        2015,
        PAPER,
        TensorType((1, 3, 224, 224)),
        DeconvNet,
        251_805_653,
        65_644_653_668,
    ),
)
