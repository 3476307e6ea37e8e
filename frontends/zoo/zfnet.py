"""ZFNet: AlexNet with smaller filters and strides in front."""

from __future__ import annotations

from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.module import Module
from ..nn.pooling import MaxPool2d
from .alexnet_2012 import classifier, normalization
from .entry import ZooEntry

PAPER = "Zeiler and Fergus, Visualizing and understanding convolutional networks"


def zfnet(num_classes: int = 1000, dropout: float = 0.5) -> Sequential:
    """The network of figure 3: image (N, 3, 224, 224) -> logits (N, num_classes).

    Contrast is normalised across maps as in AlexNet; the paper does not give its numbers.
    """
    layers: dict[str, Module] = {
        "conv1": Conv2d(3, 96, 7, stride=2, padding=1),
        "relu1": ReLU(),
        "pool1": MaxPool2d(3, stride=2, ceil_mode=True),
        "norm1": normalization(),
        "conv2": Conv2d(96, 256, 5, stride=2),
        "relu2": ReLU(),
        "pool2": MaxPool2d(3, stride=2, ceil_mode=True),
        "norm2": normalization(),
        "conv3": Conv2d(256, 384, 3, padding=1),
        "relu3": ReLU(),
        "conv4": Conv2d(384, 384, 3, padding=1),
        "relu4": ReLU(),
        "conv5": Conv2d(384, 256, 3, padding=1),
        "relu5": ReLU(),
        "pool5": MaxPool2d(3, stride=2),
        **classifier(num_classes, dropout),
    }
    return Sequential(layers)


ENTRIES = (
    ZooEntry("zfnet", 2013, PAPER, TensorType((1, 3, 224, 224)), zfnet, 62_357_608, 2_345_187_496),
)
