"""C3D: 3×3×3 convolutions over image and time."""

from __future__ import annotations

from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv3d
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.pooling import MaxPool3d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Tran et al., Learning spatiotemporal features with 3D convolutional networks"


def c3d(num_classes: int = 487, dropout: float = 0.5) -> Sequential:
    """The network of figure 3: clip (N, 3, 16, 112, 112) -> logits (N, num_classes).

    Layers have the paper's names; 487 classes are those of Sports-1M. The first pooling leaves time
    alone, the last one rounds 7×7 up to 4×4.
    """
    layers: dict[str, Module] = {}

    def convolution(name: str, inputs: int, channels: int) -> None:
        layers[f"conv{name}"] = Conv3d(inputs, channels, 3, padding=1)
        layers[f"relu{name}"] = ReLU()

    convolution("1a", 3, 64)
    layers["pool1"] = MaxPool3d((1, 2, 2))
    convolution("2a", 64, 128)
    layers["pool2"] = MaxPool3d(2)
    convolution("3a", 128, 256)
    convolution("3b", 256, 256)
    layers["pool3"] = MaxPool3d(2)
    convolution("4a", 256, 512)
    convolution("4b", 512, 512)
    layers["pool4"] = MaxPool3d(2)
    convolution("5a", 512, 512)
    convolution("5b", 512, 512)
    layers["pool5"] = MaxPool3d(2, padding=(0, 1, 1))
    layers["flatten"] = Flatten()
    layers["fc6"] = Linear(512 * 1 * 4 * 4, 4096)
    layers["relu6"] = ReLU()
    layers["drop6"] = Dropout(dropout)
    layers["fc7"] = Linear(4096, 4096)
    layers["relu7"] = ReLU()
    layers["drop7"] = Dropout(dropout)
    layers["fc8"] = Linear(4096, num_classes)
    return Sequential(layers)


ENTRIES = (
    ZooEntry("c3d", 2014, PAPER, TensorType((1, 3, 16, 112, 112)), c3d, 79_991_015, 77_166_039_527),
)
