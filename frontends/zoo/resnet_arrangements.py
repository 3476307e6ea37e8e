"""Residual units whose norms and rectifiers stand in other places, for small images."""

from __future__ import annotations

from functools import partial

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import BatchNorm2d
from ..nn.pooling import AdaptiveAvgPool2d
from ..nn.shape import Flatten, Identity
from .entry import ZooEntry
from .resnet import PAPER as ORIGINAL
from .resnet import CifarResNet, Subsample, initialize

PAPER = "He et al., Identity mappings in deep residual networks"

# Figure 4: what stands on the branch, and what after the addition.
ARRANGEMENTS = {
    "original": ("conv norm relu conv norm", "relu"),
    "norm_after_addition": ("conv norm relu conv", "norm relu"),
    "relu_before_addition": ("conv norm relu conv norm relu", ""),
    "relu_only_preactivation": ("relu conv norm relu conv norm", ""),
    "full_preactivation": ("norm relu conv norm relu conv", ""),
}


def layers(words: str, inputs: int, channels: int, stride: int = 1) -> Sequential:
    """3×3 convolutions (the first one with the stride), norms and rectifiers in a row."""
    result: dict[str, Module] = {}
    for word in words.split():
        name = f"{word}{sum(key.startswith(word) for key in result) + 1}"
        if word == "conv":
            result[name] = Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
            inputs, stride = channels, 1
        else:
            result[name] = BatchNorm2d(inputs) if word == "norm" else ReLU()
    return Sequential(result)


class ResidualUnit(Module):
    """(N, inputs, H, W) -> (N, channels, H / stride, W / stride).

    Arguments:
        branch, after: the layers on the branch and after the addition.
        inputs, channels: channels of input and output.
        stride: of the first convolution.
    """

    def __init__(
        self, branch: str, after: str, inputs: int, channels: int, stride: int = 1
    ) -> None:
        super().__init__()
        changes = inputs != channels
        self.shortcut = Subsample(inputs, channels) if changes else Identity()
        self.branch = layers(branch, inputs, channels, stride)
        self.after = layers(after, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self.shortcut(x) + self.branch(x))
        return result


class ArrangedResNet(Module):
    """(N, 3, 32, 32) -> (N, num_classes), with residual units of any arrangement.

    What a branch starts with in front of its first convolution is its pre-activation. The first
    unit has none, as the input of both its paths is activated; it stands behind the last unit
    instead (appendix of the paper).

    Arguments:
        units: in each of the three stages; the network has 6 * units + 2 layers with weights.
        arrangement: one of ARRANGEMENTS.
        num_classes: number of logits.
    """

    def __init__(self, units: int, arrangement: str, num_classes: int = 10) -> None:
        super().__init__()
        branch, after = ARRANGEMENTS[arrangement]
        preactivation, _, _ = branch.partition("conv")
        self.stem = layers("conv norm relu", 3, 16)
        stages: list[list[Module]] = []
        inputs = 16
        for channels in (16, 32, 64):
            stages.append([])
            for _ in range(units):
                first = len(stages) == 1 and not stages[0]
                words = branch.removeprefix(preactivation) if first else branch
                stride = 1 if inputs == channels else 2
                stages[-1].append(ResidualUnit(words, after, inputs, channels, stride))
                inputs = channels
        self.layer1, self.layer2, self.layer3 = (Sequential(*stage) for stage in stages)
        self.activation = layers(preactivation, 64, 64)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.fc = Linear(64, num_classes)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(image))))
        logits: Tensor = self.fc(self.flatten(self.avgpool(self.activation(x))))
        return logits


# Parameters and operations by depth; the arrangement changes neither.
_SIZES = {
    20: (269_722, 81_948_682),
    56: (853_018, 253_371_658),
    110: (1_727_962, 510_506_122),
}


def _entry(depth: int, arrangement: str) -> ZooEntry:
    units = (depth - 2) // 6
    original = arrangement == "original"
    return ZooEntry(
        f"resnet{depth}_cifar" + ("" if original else f"_{arrangement}"),
        2015 if original else 2016,
        ORIGINAL if original else PAPER,
        TensorType((1, 3, 32, 32)),
        partial(CifarResNet, units) if original else partial(ArrangedResNet, units, arrangement),
        *_SIZES[depth],
    )


# The original with 20 layers is in resnet.py.
ENTRIES = tuple(
    _entry(depth, name)
    for depth in _SIZES
    for name in ARRANGEMENTS
    if (depth, name) != (20, "original")
)
