"""Deep residual networks, of blocks that are narrow in the middle; ResNeXt and wide ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from .entry import ZooEntry
from .resnet import PAPER, ResNet, projection

RESNEXT = "Xie et al., Aggregated residual transformations for deep neural networks"
WIDE = "Zagoruyko and Komodakis, Wide residual networks"


class Bottleneck(Module):
    """Convolutions 1×1, 3×3 and 1×1 beside a shortcut (figure 5, right).

    The stride is that of the 3×3 convolution, as in torchvision; the paper's is that of the first
    1×1 convolution.

    Arguments:
        inputs: channels of the input.
        width: channels of the 3×3 convolution.
        channels: of the output.
        stride: of the 3×3 convolution.
        groups: of the 3×3 convolution: the paths of ResNeXt (its figure 3c).
        downsample: takes the input to the output's shape; the input itself by default.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        channels: int,
        stride: int = 1,
        groups: int = 1,
        downsample: Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(inputs, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu1 = ReLU()
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.relu2 = ReLU()
        self.conv3 = Conv2d(width, channels, 1, bias=False)
        self.bn3 = BatchNorm2d(channels)
        self.downsample = downsample
        self.relu3 = ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        result: Tensor = self.relu3(self.bn3(self.conv3(y)) + shortcut)
        return result


class BottleneckResNet(ResNet):
    """image (N, 3, 224, 224) -> logits (N, num_classes).

    Arguments:
        blocks: in each of the four stages (table 1).
        groups: of the 3×3 convolutions.
        group_width: channels of each group in the first stage; they double from stage to stage.
        num_classes: number of logits.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        groups: int = 1,
        group_width: int = 64,
        num_classes: int = 1000,
    ) -> None:
        stage = partial(stage_of_bottlenecks, groups=groups, group_width=group_width)
        super().__init__(blocks, num_classes, stage, 2048)


def stage_of_bottlenecks(number: int, blocks: int, groups: int, group_width: int) -> Sequential:
    """256 channels in the first stage, twice as many in each of the next, on half the pixels."""
    channels, width = 128 << number, groups * group_width << number - 1
    inputs, stride = (64, 1) if number == 1 else (channels // 2, 2)
    downsample = projection(inputs, channels, stride)
    first = Bottleneck(inputs, width, channels, stride, groups, downsample)
    others = (Bottleneck(channels, width, channels, 1, groups) for _ in range(blocks - 1))
    return Sequential(first, *others)


_INPUT = TensorType((1, 3, 224, 224))
_34, _50, _101, _152 = (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_deep = BottleneckResNet

ENTRIES = (
    ZooEntry("resnet34", 2015, PAPER, _INPUT, partial(ResNet, _34), 21_797_672, 7_345_546_472),
    ZooEntry("resnet50", 2015, PAPER, _INPUT, partial(_deep, _50), 25_557_032, 8_228_854_504),
    ZooEntry("resnet101", 2015, PAPER, _INPUT, partial(_deep, _101), 44_549_160, 15_677_285_096),
    ZooEntry("resnet152", 2015, PAPER, _INPUT, partial(_deep, _152), 60_192_808, 23_131_323_112),
    ZooEntry(
        "resnext50_32x4d",
        2016,
        RESNEXT,
        _INPUT,
        partial(_deep, _50, 32, 4),
        25_028_904,
        8_524_622_056,
    ),
    ZooEntry(
        "resnext101_32x8d",
        2016,
        RESNEXT,
        _INPUT,
        partial(_deep, _101, 32, 8),
        88_791_336,
        32_962_610_408,
    ),
    ZooEntry(
        "wide_resnet50_2",
        2016,
        WIDE,
        _INPUT,
        partial(_deep, _50, 1, 128),
        68_883_240,
        22_859_704_552,
    ),
)
