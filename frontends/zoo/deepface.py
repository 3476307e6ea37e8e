"""DeepFace: locally connected layers, for faces that always stand in the same place."""

from __future__ import annotations

from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.locally_connected import LocallyConnected2d
from ..nn.module import Module
from ..nn.pooling import MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Taigman et al., DeepFace: Closing the gap to human-level performance in face verification"


def deepface(num_classes: int = 4030, dropout: float = 0.5) -> Sequential:
    """The network of figure 2: face (N, 3, 152, 152) -> logits (N, num_classes).

    Layers have the paper's names; 4030 are the people of its training set.
    """
    layers: dict[str, Module] = {
        "c1": Conv2d(3, 32, 11),
        "relu1": ReLU(),
        "m2": MaxPool2d(3, stride=2, ceil_mode=True),
        "c3": Conv2d(32, 16, 9),
        "relu3": ReLU(),
        "l4": LocallyConnected2d(16, 16, 63, 9),
        "relu4": ReLU(),
        "l5": LocallyConnected2d(16, 16, 55, 7, stride=2),
        "relu5": ReLU(),
        "l6": LocallyConnected2d(16, 16, 25, 5),
        "relu6": ReLU(),
        "flatten": Flatten(),
        "f7": Linear(16 * 21 * 21, 4096),
        "relu7": ReLU(),
        "drop7": Dropout(dropout),
        "f8": Linear(4096, num_classes),
    }
    return Sequential(layers)


ENTRIES = (
    ZooEntry(
        "deepface", 2014, PAPER, TensorType((1, 3, 152, 152)), deepface, 118_923_774, 1_038_261_342
    ),
)
