"""SqueezeNet: AlexNet's accuracy with a fiftieth of its parameters, from modules called Fire."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.functional.shape import cat
from ..nn.module import Module
from ..nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters"


class Fire(Module):
    """A 1×1 convolution to few channels, then 1×1 and 3×3 convolutions side by side (figure 1).

    Arguments:
        inputs: channels of the input.
        squeeze: of the first convolution.
        expand: of each of the other two; the output has twice as many.
    """

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = Conv2d(inputs, squeeze, 1)
        self.squeeze_activation = ReLU()
        self.expand1x1 = Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = ReLU()
        self.expand3x3 = Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        one = self.expand1x1_activation(self.expand1x1(x))
        three = self.expand3x3_activation(self.expand3x3(x))
        return cat([one, three], 1)


class SqueezeNet(Module):
    """image (N, 3, 224, 224) -> logits (N, num_classes).

    Keys of the state dict are torchvision's.

    Arguments:
        features: what comes before the classifier; gives 512 channels.
        num_classes: number of logits.
        dropout: in front of the last convolution.
    """

    def __init__(self, features: Sequential, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = features
        last = Conv2d(512, num_classes, 1)
        self.classifier = Sequential(Dropout(dropout), last, ReLU(), AdaptiveAvgPool2d((1, 1)))
        self.flatten = Flatten()
        for module in self.modules():
            if isinstance(module, Conv2d):
                if module is last:
                    init.normal_(module.weight, 0.0, 0.01)
                else:
                    init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.flatten(self.classifier(self.features(image)))
        return logits


def squeezenet1_0(num_classes: int = 1000) -> SqueezeNet:
    """The network of the paper (table 1)."""
    features = Sequential(
        Conv2d(3, 96, 7, stride=2),
        ReLU(),
        MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(96, 16, 64),
        Fire(128, 16, 64),
        Fire(128, 32, 128),
        MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(256, 32, 128),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(512, 64, 256),
    )
    return SqueezeNet(features, num_classes)


def squeezenet1_1(num_classes: int = 1000) -> SqueezeNet:
    """The authors' later version, with less than half the work: it shrinks the maps earlier."""
    features = Sequential(
        Conv2d(3, 64, 3, stride=2),
        ReLU(),
        MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )
    return SqueezeNet(features, num_classes)


_INPUT = TensorType((1, 3, 224, 224))

ENTRIES = (
    ZooEntry("squeezenet1_0", 2016, PAPER, _INPUT, squeezenet1_0, 1_248_424, 1_651_689_440),
    ZooEntry("squeezenet1_1", 2016, PAPER, _INPUT, squeezenet1_1, 1_235_496, 706_624_160),
)
