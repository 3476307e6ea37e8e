"""Inception v3: large convolutions in factors, and grids that shrink without a bottleneck."""

from __future__ import annotations

from typing import NamedTuple

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.functional.shape import cat
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry
from .googlenet import ConvNorm

PAPER = "Szegedy et al., Rethinking the Inception architecture for computer vision"


def square(inputs: int, channels: int, extent: int = 1) -> ConvNorm:
    """Convolution of an odd extent that keeps the grid."""
    return ConvNorm(inputs, channels, kernel_size=extent, padding=extent // 2)


def row(inputs: int, channels: int, extent: int) -> ConvNorm:
    """1×n convolution that keeps the grid."""
    return ConvNorm(inputs, channels, kernel_size=(1, extent), padding=(0, extent // 2))


def column(inputs: int, channels: int, extent: int) -> ConvNorm:
    """n×1 convolution that keeps the grid."""
    return ConvNorm(inputs, channels, kernel_size=(extent, 1), padding=(extent // 2, 0))


class InceptionA(Module):
    """5×5 as two 3×3 (figure 5)."""

    def __init__(self, inputs: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = square(inputs, 64)
        self.branch5x5_1 = square(inputs, 48)
        self.branch5x5_2 = square(48, 64, 5)
        self.branch3x3dbl_1 = square(inputs, 64)
        self.branch3x3dbl_2 = square(64, 96, 3)
        self.branch3x3dbl_3 = square(96, 96, 3)
        self.avgpool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = square(inputs, pool_features)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(self.avgpool(x)),
        ]
        return cat(branches, 1)


class InceptionB(Module):
    """From 35×35 to 17×17 (figure 10)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = square(inputs, 64)
        self.branch3x3dbl_2 = square(64, 96, 3)
        self.branch3x3dbl_3 = ConvNorm(96, 96, kernel_size=3, stride=2)
        self.maxpool = MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.maxpool(x),
        ]
        return cat(branches, 1)


class InceptionC(Module):
    """7×7 as 1×7 and 7×1, on the grid of 17×17 (figure 6)."""

    def __init__(self, inputs: int, channels_7x7: int) -> None:
        super().__init__()
        c7 = channels_7x7
        self.branch1x1 = square(inputs, 192)
        self.branch7x7_1 = square(inputs, c7)
        self.branch7x7_2 = row(c7, c7, 7)
        self.branch7x7_3 = column(c7, 192, 7)
        self.branch7x7dbl_1 = square(inputs, c7)
        self.branch7x7dbl_2 = column(c7, c7, 7)
        self.branch7x7dbl_3 = row(c7, c7, 7)
        self.branch7x7dbl_4 = column(c7, c7, 7)
        self.branch7x7dbl_5 = row(c7, 192, 7)
        self.avgpool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = square(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(self.avgpool(x)),
        ]
        return cat(branches, 1)


class InceptionD(Module):
    """From 17×17 to 8×8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = square(inputs, 192)
        self.branch3x3_2 = ConvNorm(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = square(inputs, 192)
        self.branch7x7x3_2 = row(192, 192, 7)
        self.branch7x7x3_3 = column(192, 192, 7)
        self.branch7x7x3_4 = ConvNorm(192, 192, kernel_size=3, stride=2)
        self.maxpool = MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branches = [
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(seven),
            self.maxpool(x),
        ]
        return cat(branches, 1)


class InceptionE(Module):
    """Rows and columns side by side, on the grid of 8×8 (figure 7)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = square(inputs, 320)
        self.branch3x3_1 = square(inputs, 384)
        self.branch3x3_2a = row(384, 384, 3)
        self.branch3x3_2b = column(384, 384, 3)
        self.branch3x3dbl_1 = square(inputs, 448)
        self.branch3x3dbl_2 = square(448, 384, 3)
        self.branch3x3dbl_3a = row(384, 384, 3)
        self.branch3x3dbl_3b = column(384, 384, 3)
        self.avgpool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = square(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.avgpool(x)),
        ]
        return cat(branches, 1)


class AuxiliaryClassifier(Module):
    """A small classifier on (N, inputs, 17, 17) (figure 8)."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.pool = AvgPool2d(5, stride=3)
        self.conv0 = ConvNorm(inputs, 128, kernel_size=1)
        self.conv1 = ConvNorm(128, 768, kernel_size=5)
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.flatten = Flatten()
        self.fc = Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(self.pool(x)))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


class InceptionOutputs(NamedTuple):
    """What InceptionV3 gives in training: logits (N, num_classes) of both classifiers.

    The paper does not say what the auxiliary one counts; 0.4 is usual.
    """

    logits: Tensor
    aux_logits: Tensor | None

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """What the loss of each counts in training."""
        return (1.0, 0.4)


class InceptionV3(Module):
    """image (N, 3, 299, 299) -> logits (N, num_classes); in training InceptionOutputs.

    Keys of the state dict are torchvision's.

    Arguments:
        num_classes: number of logits.
        aux_logits: whether there is an auxiliary classifier.
        dropout: in front of the last layer.
    """

    def __init__(
        self, num_classes: int = 1000, aux_logits: bool = True, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = square(32, 64, 3)
        self.maxpool1 = MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = square(64, 80)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, kernel_size=3)
        self.maxpool2 = MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.AuxLogits = AuxiliaryClassifier(768, num_classes) if aux_logits else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.dropout = Dropout(dropout)
        self.flatten = Flatten()
        self.fc = Linear(2048, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        """Normal of std 0.1, and weaker in the auxiliary classifier."""
        weaker = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for name, module in self.named_modules():
            if isinstance(module, Conv2d | Linear):
                init.trunc_normal_(module.weight, 0.0, weaker.get(name, 0.1), -2.0, 2.0)

    def forward(self, image: Tensor) -> Tensor | InceptionOutputs:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(image)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        grid = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(grid)))
        logits: Tensor = self.fc(self.flatten(self.dropout(self.avgpool(x))))
        if not self.training or self.AuxLogits is None:
            return logits
        return InceptionOutputs(logits, self.AuxLogits(grid))


ENTRIES = (
    ZooEntry(
        "inception_v3",
        2015,
        PAPER,
        TensorType((1, 3, 299, 299)),
        InceptionV3,
        27_161_264,
        11_488_906_888,
    ),
)
