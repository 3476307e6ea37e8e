"""VGG with batch normalisation behind each convolution, and the plain depths besides 11 and 16."""

from __future__ import annotations

from functools import partial

from ...compiler.types import TensorType
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from .entry import ZooEntry
from .vgg import PAPER, VGG


class NormalizedVGG(VGG):
    """VGG whose convolutions are followed by batch normalisation; see VGG for arguments.

    Keys of the state dict are torchvision's.
    """

    def __init__(self, layers: int, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__(layers, num_classes, dropout)
        normalized: list[Module] = []
        for module in self.features:
            normalized.append(module)
            if isinstance(module, Conv2d):
                normalized.append(BatchNorm2d(module.out_channels))
        self.features = Sequential(*normalized)


_INPUT = TensorType((1, 3, 224, 224))

ENTRIES = (
    ZooEntry("vgg13", 2014, PAPER, _INPUT, partial(VGG, 13), 133_047_848, 22_647_607_272),
    ZooEntry("vgg19", 2014, PAPER, _INPUT, partial(VGG, 19), 143_667_240, 39_300_018_152),
    ZooEntry(
        "vgg11_bn", 2014, PAPER, _INPUT, partial(NormalizedVGG, 11), 132_868_840, 15_261_510_376
    ),
    ZooEntry(
        "vgg13_bn", 2014, PAPER, _INPUT, partial(NormalizedVGG, 13), 133_053_736, 22_684_347_880
    ),
    ZooEntry(
        "vgg16_bn", 2014, PAPER, _INPUT, partial(NormalizedVGG, 16), 138_365_992, 31_014_472_168
    ),
    ZooEntry(
        "vgg19_bn", 2014, PAPER, _INPUT, partial(NormalizedVGG, 19), 143_678_248, 39_344_596_456
    ),
)
