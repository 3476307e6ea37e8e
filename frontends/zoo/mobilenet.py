"""MobileNet v2: depthwise convolutions in wide layers between narrow, linear ones."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU6
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from ..nn.pooling import AdaptiveAvgPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Sandler et al., MobileNetV2: Inverted residuals and linear bottlenecks"

# Table 2: t, c, n, s — expansion, channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_norm(
    inputs: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> Sequential:
    """Convolution without bias, batch normalisation, min(max(x, 0), 6)."""
    convolution = Conv2d(
        inputs, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    return Sequential(convolution, BatchNorm2d(channels), ReLU6())


class InvertedResidual(Module):
    """Expands, filters each channel by itself, and projects back (table 1, figure 4d).

    The input is added where it has the shape of the output.
    """

    def __init__(self, inputs: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = [conv_norm(inputs, wide, 1)] if expansion != 1 else []
        self.conv = Sequential(
            *expand,
            conv_norm(wide, wide, 3, stride, groups=wide),
            Conv2d(wide, channels, 1, bias=False),
            BatchNorm2d(channels),
        )
        self.adds_input = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds_input else y


class MobileNetV2(Module):
    """image (N, 3, 224, 224) -> logits (N, num_classes).

    Keys of the state dict are torchvision's.

    Arguments:
        num_classes: number of logits.
        dropout: in front of the last layer.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[Module] = [conv_norm(3, 32, 3, stride=2)]
        inputs = 32
        for expansion, channels, blocks, stride in STAGES:
            for i in range(blocks):
                step = stride if i == 0 else 1
                layers.append(InvertedResidual(inputs, channels, step, expansion))
                inputs = channels
        layers.append(conv_norm(inputs, 1280, 1))
        self.features = Sequential(*layers)
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.flatten = Flatten()
        self.classifier = Sequential(Dropout(dropout), Linear(1280, num_classes))
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, Linear):
                init.normal_(module.weight, 0.0, 0.01)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = self.avgpool(self.features(image))
        logits: Tensor = self.classifier(self.flatten(x))
        return logits


ENTRIES = (
    ZooEntry(
        "mobilenet_v2",
        2018,
        PAPER,
        TensorType((1, 3, 224, 224)),
        MobileNetV2,
        3_504_872,
        634_144_072,
    ),
)
