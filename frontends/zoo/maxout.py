"""Maxout network: each unit is the largest of several linear pieces."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.functional.shape import unflatten
from ..nn.linear import Linear
from ..nn.module import Layer
from ..nn.pooling import MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Goodfellow et al., Maxout networks"


class Maxout(Layer):
    """Maximum over `pieces` neighbouring channels: (N, C * pieces, *) -> (N, C, *)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return unflatten(x, 1, (-1, self.pieces)).amax(2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


def maxout_cifar(num_classes: int = 10) -> Sequential:
    """The network for CIFAR-10 (section 5.2): image (N, 3, 32, 32) -> logits (N, num_classes).

    Three convolutional maxout layers and a dense one, with dropout in front of each; extents are
    those of the authors' program.
    """
    layers = {
        "drop0": Dropout(0.2),
        "conv1": Conv2d(3, 96 * 2, 8, padding=4),
        "maxout1": Maxout(2),
        "pool1": MaxPool2d(4, stride=2, ceil_mode=True),
        "drop1": Dropout(0.5),
        "conv2": Conv2d(96, 192 * 2, 8, padding=3),
        "maxout2": Maxout(2),
        "pool2": MaxPool2d(4, stride=2, ceil_mode=True),
        "drop2": Dropout(0.5),
        "conv3": Conv2d(192, 192 * 2, 5, padding=3),
        "maxout3": Maxout(2),
        "pool3": MaxPool2d(2, ceil_mode=True),
        "drop3": Dropout(0.5),
        "flatten": Flatten(),
        "fc4": Linear(192 * 5 * 5, 500 * 5),
        "maxout4": Maxout(5),
        "drop4": Dropout(0.5),
        "fc5": Linear(500, num_classes),
    }
    return Sequential(layers)


ENTRIES = (
    ZooEntry(
        "maxout_cifar",
        2013,
        PAPER,
        TensorType((1, 3, 32, 32)),
        maxout_cifar,
        16_247_830,
        1_465_802_530,
    ),
)
