"""VGG: stacks of 3×3 convolutions between poolings, then three linear layers."""

from __future__ import annotations

from functools import partial

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition"

# Convolutions of each of the five stages (table 1), by the number of layers with weights.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(Module):
    """image (N, 3, 224, 224) -> logits (N, num_classes).

    Keys of the state dict are torchvision's.

    Arguments:
        layers: with weights: 11, 13, 16 or 19, configurations A, B, D and E of the paper.
        num_classes: number of logits.
        dropout: in front of the last two linear layers.
    """

    def __init__(self, layers: int, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        stack: list[Module] = []
        inputs = 3
        for count, channels in zip(CONVOLUTIONS[layers], CHANNELS, strict=True):
            for _ in range(count):
                stack += [Conv2d(inputs, channels, 3, padding=1), ReLU()]
                inputs = channels
            stack.append(MaxPool2d(2))
        self.features = Sequential(*stack)
        self.avgpool = AdaptiveAvgPool2d((7, 7))
        self.flatten = Flatten()
        self.classifier = Sequential(
            Linear(512 * 7 * 7, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Linear):
                init.normal_(module.weight, 0.0, 0.01)
            if isinstance(module, Conv2d | Linear) and module.bias is not None:
                init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = self.avgpool(self.features(image))
        logits: Tensor = self.classifier(self.flatten(x))
        return logits


_INPUT = TensorType((1, 3, 224, 224))

ENTRIES = (
    ZooEntry("vgg11", 2014, PAPER, _INPUT, partial(VGG, 11), 132_863_336, 15_239_221_224),
    ZooEntry("vgg16", 2014, PAPER, _INPUT, partial(VGG, 16), 138_357_544, 30_973_812_712),
)
