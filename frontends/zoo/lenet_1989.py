"""The first convolutional network that read handwriting: strides in place of pooling."""

from __future__ import annotations

import math

import numpy as np

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn import init
from ..nn.container import ModuleList
from ..nn.convolution import Conv2d
from ..nn.functional.activation import tanh
from ..nn.functional.shape import cat, pad
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.shape import Flatten
from ..nn.state import Parameter
from .entry import ZooEntry

PAPER = "LeCun et al., Backpropagation applied to handwritten zip code recognition"

BACKGROUND = -1.0


class LeNet1989(Module):
    """image (N, 1, 16, 16) of -1 (background) to 1 -> scores (N, 10) of about -1 to 1 (figure 3).

    Every unit of a map has a bias of its own, and every map of H2 reads 8 of the 12 maps of H1. The
    paper does not say which: here each third of H2 leaves out another third of H1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.h1 = Conv2d(1, 12, 5, stride=2, bias=False)
        self.h1_bias = Parameter(np.zeros((12, 8, 8), np.float32))
        self.h2 = ModuleList(Conv2d(8, 4, 5, stride=2, bias=False) for _ in range(3))
        self.h2_bias = Parameter(np.zeros((12, 4, 4), np.float32))
        self.flatten = Flatten()
        self.h3 = Linear(12 * 4 * 4, 30)
        self.output = Linear(30, 10)
        for module in self.modules():
            if isinstance(module, Conv2d | Linear):  # ±2.4 / fan in, as in the paper
                fan_in, _ = init.fans(module.weight)
                init.uniform_(module.weight, -2.4 / fan_in, 2.4 / fan_in)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        h1 = squash(self.h1(bordered(image)) + self.h1_bias)
        a, b, c = (bordered(h1)[:, i : i + 4] for i in (0, 4, 8))
        pairs = zip(self.h2, ((a, b), (b, c), (a, c)), strict=True)
        maps = [convolution(cat(pair, 1)) for convolution, pair in pairs]
        h2 = squash(cat(maps, 1) + self.h2_bias)
        h3 = squash(self.h3(self.flatten(h2)))
        return squash(self.output(h3))


def bordered(x: Tensor) -> Tensor:
    """Two rows and columns of background around (N, C, H, W)."""
    return pad(x, (2, 2, 2, 2), value=BACKGROUND)


def squash(x: Tensor) -> Tensor:
    """1.7159 tanh(2x / 3), which is 1 at 1."""
    return tanh(x * (2 / 3)) * (1 / math.tanh(2 / 3))


ENTRIES = (
    ZooEntry("lenet_1989", 1989, PAPER, TensorType((1, 1, 16, 16)), LeNet1989, 9_760, 131_320),
)
