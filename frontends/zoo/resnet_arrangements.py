"""Residual units whose norms and rectifiers stand in other places, for small images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
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

# Figure 4: what is repeated on the branch, how it ends there, and what stands after the addition.
ARRANGEMENTS = {
    "original": ("conv norm relu", "conv norm", "relu"),
    "norm_after_addition": ("conv norm relu", "conv", "norm relu"),
    "relu_before_addition": ("conv norm relu", "conv norm relu", ""),
    "relu_only_preactivation": ("relu conv norm", "relu conv norm", ""),
    "full_preactivation": ("norm relu conv", "norm relu conv", ""),
}


@dataclass(frozen=True)
class Convolutions:
    """The convolutions of a branch.

    Arguments:
        kernels: their extents.
        narrow: by how much all but the last one have fewer channels than the unit.
        strided: which of them has the stride.
    """

    kernels: tuple[int, ...]
    narrow: int
    strided: int


PLAIN = Convolutions((3, 3), narrow=1, strided=0)
BOTTLENECK = Convolutions((1, 3, 1), narrow=4, strided=1)


def layers(words: str, inputs: int, convolutions: Iterable[tuple[int, int, int]]) -> Sequential:
    """Convolutions, norms and rectifiers in a row.

    Arguments:
        words: conv, norm or relu, one a layer.
        inputs: channels.
        convolutions: kernel, channels and stride of each convolution.
    """
    result: dict[str, Module] = {}
    following = iter(convolutions)
    for word in words.split():
        name = f"{word}{sum(key.startswith(word) for key in result) + 1}"
        if word == "conv":
            kernel, channels, stride = next(following)
            result[name] = Conv2d(inputs, channels, kernel, stride, padding=kernel // 2, bias=False)
            inputs = channels
        else:
            result[name] = BatchNorm2d(inputs) if word == "norm" else ReLU()
    return Sequential(result)


class Projection(Module):
    """A 1×1 convolution with the stride: a shortcut for other extents (option B)."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class ResidualUnit(Module):
    """(N, inputs, H, W) -> (N, channels, H / stride, W / stride).

    Arguments:
        branch, after: the layers on the branch and after the addition.
        convolutions: of the branch.
        inputs, channels: channels of input and output.
        stride: of one of the convolutions.
    """

    def __init__(
        self,
        branch: str,
        after: str,
        convolutions: Convolutions,
        inputs: int,
        channels: int,
        stride: int,
    ) -> None:
        super().__init__()
        if inputs == channels:
            self.shortcut: Module = Identity()
        elif convolutions is PLAIN:
            self.shortcut = Subsample(inputs, channels)
        else:
            self.shortcut = Projection(inputs, channels, stride)
        last = len(convolutions.kernels) - 1
        self.branch = layers(
            branch,
            inputs,
            (
                (
                    kernel,
                    channels if i == last else channels // convolutions.narrow,
                    stride if i == convolutions.strided else 1,
                )
                for i, kernel in enumerate(convolutions.kernels)
            ),
        )
        self.after = layers(after, channels, ())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self.shortcut(x) + self.branch(x))
        return result


class ArrangedResNet(Module):
    """(N, 3, 32, 32) -> (N, num_classes), with residual units of any arrangement.

    What a branch starts with in front of its first convolution is its pre-activation. The first
    unit has none, as the input of both its paths is activated; it stands behind the last unit
    instead (appendix of the paper).

    Arguments:
        units: in each of the three stages.
        arrangement: one of ARRANGEMENTS.
        num_classes: number of logits.
        convolutions: of a unit; PLAIN makes 6 * units + 2 layers with weights, BOTTLENECK 9 * units
            + 2.
    """

    def __init__(
        self,
        units: int,
        arrangement: str,
        num_classes: int = 10,
        convolutions: Convolutions = PLAIN,
    ) -> None:
        super().__init__()
        repeated, end, after = ARRANGEMENTS[arrangement]
        branch = " ".join([repeated] * (len(convolutions.kernels) - 1) + [end])
        preactivation, _, _ = branch.partition("conv")
        self.stem = layers("conv norm relu", 3, [(3, 16, 1)])
        stages: list[list[Module]] = []
        inputs = 16
        for number, width in enumerate((16, 32, 64)):
            channels = width * convolutions.narrow
            stages.append([])
            for unit in range(units):
                words = branch if number or unit else branch.removeprefix(preactivation)
                stride = 2 if number and not unit else 1
                stages[-1].append(
                    ResidualUnit(words, after, convolutions, inputs, channels, stride)
                )
                inputs = channels
        self.layer1, self.layer2, self.layer3 = (Sequential(*stage) for stage in stages)
        self.activation = layers(preactivation, inputs, ())
        self.avgpool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.fc = Linear(inputs, num_classes)
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
    164: (1_703_258, 510_022_218),
}
_BOTTLENECKS = {164}


def _entry(depth: int, arrangement: str) -> ZooEntry:
    deep, original = depth in _BOTTLENECKS, arrangement == "original"
    build: Callable[[], Module]
    if deep:
        build = partial(ArrangedResNet, (depth - 2) // 9, arrangement, convolutions=BOTTLENECK)
    elif original:
        build = partial(CifarResNet, (depth - 2) // 6)
    else:
        build = partial(ArrangedResNet, (depth - 2) // 6, arrangement)
    return ZooEntry(
        f"resnet{depth}_cifar" + ("" if original else f"_{arrangement}"),
        2015 if original and not deep else 2016,
        ORIGINAL if original and not deep else PAPER,
        TensorType((1, 3, 32, 32)),
        build,
        *_SIZES[depth],
    )


# The original with 20 layers is in resnet.py.
ENTRIES = tuple(
    _entry(depth, name)
    for depth in _SIZES
    for name in ARRANGEMENTS
    if (depth, name) != (20, "original")
)
