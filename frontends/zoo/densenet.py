"""Densely connected networks: each layer reads the maps of all layers before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.functional.shape import cat
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from ..nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Huang et al., Densely connected convolutional networks"


class DenseLayer(Module):
    """(N, inputs, H, W) -> (N, inputs + growth, H, W): the input, then `growth` new maps.

    The new maps come from a 1×1 convolution to 4 * growth channels and a 3×3 convolution, each
    behind batch normalisation and rectifier (section 3, "Bottleneck layers").
    """

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = BatchNorm2d(inputs)
        self.relu1 = ReLU()
        self.conv1 = Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = BatchNorm2d(4 * growth)
        self.relu2 = ReLU()
        self.conv2 = Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.norm1(x)))
        y = self.conv2(self.relu2(self.norm2(y)))
        return cat([x, y], 1)


def dense_block(layers: int, inputs: int, growth: int) -> Sequential:
    """Layers in a row (figure 1)."""
    return Sequential(
        {f"denselayer{i + 1}": DenseLayer(inputs + i * growth, growth) for i in range(layers)}
    )


def transition(inputs: int) -> Sequential:
    """Half the channels, half the rows and columns."""
    return Sequential(
        {
            "norm": BatchNorm2d(inputs),
            "relu": ReLU(),
            "conv": Conv2d(inputs, inputs // 2, 1, bias=False),
            "pool": AvgPool2d(2, stride=2),
        }
    )


class DenseNet(Module):
    """DenseNet-BC (table 1): image (N, 3, 224, 224) -> logits (N, num_classes).

    Keys of the state dict are torchvision's.

    Arguments:
        blocks: layers of each dense block.
        growth: maps that each layer adds.
        num_classes: number of logits.
    """

    def __init__(self, blocks: Sequence[int], growth: int = 32, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 2 * growth
        features: dict[str, Module] = {
            "conv0": Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            "norm0": BatchNorm2d(channels),
            "relu0": ReLU(),
            "pool0": MaxPool2d(3, stride=2, padding=1),
        }
        for i, layers in enumerate(blocks, 1):
            features[f"denseblock{i}"] = dense_block(layers, channels, growth)
            channels += layers * growth
            if i < len(blocks):
                features[f"transition{i}"] = transition(channels)
                channels //= 2
        features["norm5"] = BatchNorm2d(channels)
        self.features = Sequential(features)
        self.relu = ReLU()
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.flatten = Flatten()
        self.classifier = Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight)
        if self.classifier.bias is not None:
            init.zeros_(self.classifier.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = self.avgpool(self.relu(self.features(image)))
        logits: Tensor = self.classifier(self.flatten(x))
        return logits


_INPUT = TensorType((1, 3, 224, 224))
_121, _161, _169, _201 = (6, 12, 24, 16), (6, 12, 36, 24), (6, 12, 32, 32), (6, 12, 48, 32)

ENTRIES = (
    ZooEntry("densenet121", 2016, PAPER, _INPUT, partial(DenseNet, _121), 7_978_856, 5_733_897_064),
    ZooEntry(
        "densenet161", 2016, PAPER, _INPUT, partial(DenseNet, _161, 48), 28_681_000, 15_578_119_048
    ),
    ZooEntry(
        "densenet169", 2016, PAPER, _INPUT, partial(DenseNet, _169), 14_149_480, 6_798_895_336
    ),
    ZooEntry(
        "densenet201", 2016, PAPER, _INPUT, partial(DenseNet, _201), 20_013_928, 8_684_887_016
    ),
)
