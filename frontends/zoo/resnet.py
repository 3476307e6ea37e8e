"""Residual networks: blocks that learn what to add to their input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.functional.shape import pad
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from ..nn.pooling import AdaptiveAvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "He et al., Deep residual learning for image recognition"


class BasicBlock(Module):
    """Two 3×3 convolutions beside a shortcut (figure 5, left).

    Arguments:
        inputs: channels of the input.
        channels: of the output.
        stride: of the first convolution.
        downsample: takes the input to the output's shape; the input itself by default.
    """

    def __init__(
        self, inputs: int, channels: int, stride: int = 1, downsample: Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.relu1 = ReLU()
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = downsample
        self.relu2 = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        result: Tensor = self.relu2(self.bn2(self.conv2(y)) + shortcut)
        return result


def stage_of_basic_blocks(number: int, blocks: int) -> Sequential:
    """64 channels in the first stage, twice as many in each of the next, on half the pixels."""
    channels = 32 << number
    inputs, stride = (channels, 1) if number == 1 else (channels // 2, 2)
    downsample = projection(inputs, channels, stride) if number > 1 else None
    first = BasicBlock(inputs, channels, stride, downsample)
    return Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


def projection(inputs: int, channels: int, stride: int) -> Sequential:
    """A 1×1 convolution as the shortcut of a block that changes the shape (option B)."""
    convolution = Conv2d(inputs, channels, 1, stride=stride, bias=False)
    return Sequential(convolution, BatchNorm2d(channels))


class ResNet(Module):
    """image (N, 3, 224, 224) -> logits (N, num_classes).

    Keys of the state dict are torchvision's.

    Arguments:
        blocks: in each of the four stages (table 1).
        num_classes: number of logits.
        stage: makes a stage, from its number and how many blocks it has.
        features: channels of the last stage.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 1000,
        stage: Callable[[int, int], Sequential] = stage_of_basic_blocks,
        features: int = 512,
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(1, blocks[0])
        self.layer2 = stage(2, blocks[1])
        self.layer3 = stage(3, blocks[2])
        self.layer4 = stage(4, blocks[3])
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.fc = Linear(features, num_classes)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


class Subsample(Module):
    """Every second pixel, and channels of zeros: a shortcut without parameters (option A)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.more = channels - inputs

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))


class CifarResNet(Module):
    """The residual networks for small images (section 4.2): (N, 3, 32, 32) -> (N, num_classes).

    Arguments:
        blocks: in each of the three stages; the network has 6 * blocks + 2 layers with weights.
        num_classes: number of logits.
    """

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(16)
        self.relu = ReLU()
        self.layer1 = self._stage(blocks, 16, 16)
        self.layer2 = self._stage(blocks, 16, 32)
        self.layer3 = self._stage(blocks, 32, 64)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.fc = Linear(64, num_classes)
        initialize(self)

    def _stage(self, blocks: int, inputs: int, channels: int) -> Sequential:
        shrinks = inputs != channels
        shortcut = Subsample(inputs, channels) if shrinks else None
        first = BasicBlock(inputs, channels, 2 if shrinks else 1, shortcut)
        return Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def initialize(network: Module) -> None:
    """Weights of convolutions as in He et al., Delving deep into rectifiers, 2015."""
    for module in network.modules():
        if isinstance(module, Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


_IMAGENET, _CIFAR = TensorType((1, 3, 224, 224)), TensorType((1, 3, 32, 32))

ENTRIES = (
    ZooEntry(
        "resnet18", 2015, PAPER, _IMAGENET, partial(ResNet, (2, 2, 2, 2)), 11_689_512, 3_640_510_696
    ),
    ZooEntry("resnet20_cifar", 2015, PAPER, _CIFAR, partial(CifarResNet, 3), 269_722, 81_948_682),
)
