"""LeNet: convolutions, pooling, and linear layers, for handwritten digits."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU, Tanh
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.pooling import AvgPool2d, MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "LeCun et al., Gradient-based learning applied to document recognition"


class LeNet(Module):
    """Two convolutions with pooling and two linear layers, for images of 8×8 pixels.

    image (N, 1, 8, 8) -> logits (N, 10). As LeNet-5, with what came later: padding, rectifiers,
    maximum pooling and dropout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv2d(1, 32, 3, padding=1)
        self.relu1 = ReLU()
        self.pool1 = MaxPool2d(2)
        self.conv2 = Conv2d(32, 64, 3, padding=1)
        self.relu2 = ReLU()
        self.pool2 = MaxPool2d(2)
        self.flatten = Flatten()
        self.fc1 = Linear(256, 128)
        self.relu3 = ReLU()
        self.dropout = Dropout(0.5)
        self.fc2 = Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(image)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


def lenet5() -> Sequential:
    """LeNet-5 (figure 2 of the paper): image (N, 1, 32, 32) -> scores (N, 10).

    The layers have the paper's names. Subsampling is a plain mean, every map of C3 reads all of
    S2's, and the output is linear, as in most later descriptions.
    """
    layers = {
        "c1": Conv2d(1, 6, 5),
        "tanh1": Tanh(),
        "s2": AvgPool2d(2),
        "c3": Conv2d(6, 16, 5),
        "tanh3": Tanh(),
        "s4": AvgPool2d(2),
        "c5": Conv2d(16, 120, 5),
        "tanh5": Tanh(),
        "flatten": Flatten(),
        "f6": Linear(120, 84),
        "tanh6": Tanh(),
        "output": Linear(84, 10),
    }
    return Sequential(layers)


ENTRIES = (
    ZooEntry("lenet", 1998, PAPER, TensorType((1, 1, 8, 8)), LeNet, 53_002, 704_266),
    ZooEntry("lenet5", 1998, PAPER, TensorType((1, 1, 32, 32)), lenet5, 61_706, 853_946),
)
