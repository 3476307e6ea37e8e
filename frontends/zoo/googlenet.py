"""GoogLeNet: modules of four branches, and two auxiliary classifiers on the way (Inception v1)."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.functional.shape import cat
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from ..nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Szegedy et al., Going deeper with convolutions"


class ConvNorm(Module):
    """Convolution without bias, batch normalisation, rectifier.

    Arguments:
        inputs, channels: channels of input and output.
        arguments: of the convolution: kernel_size, stride, padding.
    """

    def __init__(self, inputs: int, channels: int, **arguments: Any) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, channels, bias=False, **arguments)
        self.bn = BatchNorm2d(channels, eps=0.001)
        self.relu = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.bn(self.conv(x)))
        return result


class Inception(Module):
    """Convolutions of several sizes and a pooling side by side (figure 2b).

    What the paper gives as 5×5 convolutions are 3×3 here, as in torchvision's network.

    Arguments:
        inputs: channels of the input.
        c1: channels of the 1×1 convolution.
        r3, c3: of the 1×1 convolution that reduces, and of the 3×3 convolution after it.
        r5, c5: the same for "5×5".
        pool: of the 1×1 convolution after the pooling.
    """

    def __init__(self, inputs: int, c1: int, r3: int, c3: int, r5: int, c5: int, pool: int) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, c1, kernel_size=1)
        self.branch2 = Sequential(
            ConvNorm(inputs, r3, kernel_size=1), ConvNorm(r3, c3, kernel_size=3, padding=1)
        )
        self.branch3 = Sequential(
            ConvNorm(inputs, r5, kernel_size=1), ConvNorm(r5, c5, kernel_size=3, padding=1)
        )
        self.branch4 = Sequential(
            MaxPool2d(3, stride=1, padding=1), ConvNorm(inputs, pool, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryClassifier(Module):
    """A small classifier on (N, inputs, 14, 14), so that the layers below get a stronger signal."""

    def __init__(self, inputs: int, num_classes: int, dropout: float = 0.7) -> None:
        super().__init__()
        self.pool = AdaptiveAvgPool2d((4, 4))
        self.conv = ConvNorm(inputs, 128, kernel_size=1)
        self.flatten = Flatten()
        self.fc1 = Linear(2048, 1024)
        self.relu = ReLU()
        self.dropout = Dropout(dropout)
        self.fc2 = Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.conv(self.pool(x)))
        logits: Tensor = self.fc2(self.dropout(self.relu(self.fc1(x))))
        return logits


class GoogLeNetOutputs(NamedTuple):
    """What GoogLeNet gives in training: logits (N, num_classes) of each classifier.

    The paper's loss is that of `logits` and 0.3 times those of the other two.
    """

    logits: Tensor
    aux_logits2: Tensor | None
    aux_logits1: Tensor | None

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """What the loss of each counts in training."""
        return (1.0, 0.3, 0.3)


class GoogLeNet(Module):
    """image (N, 3, 224, 224) -> logits (N, num_classes); in training GoogLeNetOutputs.

    With batch normalisation, as torchvision's, whose keys the state dict has.

    Arguments:
        num_classes: number of logits.
        aux_logits: whether there are auxiliary classifiers.
        dropout: in front of the last layer.
    """

    def __init__(
        self, num_classes: int = 1000, aux_logits: bool = True, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvNorm(64, 64, kernel_size=1)
        self.conv3 = ConvNorm(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)
        # Table 1:               inputs, #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = AuxiliaryClassifier(512, num_classes) if aux_logits else None
        self.aux2 = AuxiliaryClassifier(528, num_classes) if aux_logits else None
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.flatten = Flatten()
        self.dropout = Dropout(dropout)
        self.fc = Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d | Linear):
                init.trunc_normal_(module.weight, 0.0, 0.01, -2.0, 2.0)

    def forward(self, image: Tensor) -> Tensor | GoogLeNetOutputs:
        x = self.maxpool1(self.conv1(image))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        a = self.inception4a(x)
        d = self.inception4d(self.inception4c(self.inception4b(a)))
        x = self.maxpool4(self.inception4e(d))
        x = self.avgpool(self.inception5b(self.inception5a(x)))
        logits: Tensor = self.fc(self.dropout(self.flatten(x)))
        if not self.training or self.aux1 is None or self.aux2 is None:
            return logits
        return GoogLeNetOutputs(logits, self.aux2(d), self.aux1(a))


ENTRIES = (
    ZooEntry(
        "googlenet", 2014, PAPER, TensorType((1, 3, 224, 224)), GoogLeNet, 13_004_888, 3_022_291_752
    ),
)
