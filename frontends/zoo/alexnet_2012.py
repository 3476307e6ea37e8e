"""AlexNet as it was in 2012: two towers, local response normalisation, overlapping pooling."""

from __future__ import annotations

from ...compiler.types import TensorType
from ..nn import init
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import LocalResponseNorm
from ..nn.pooling import MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Krizhevsky et al., ImageNet classification with deep convolutional neural networks"


def normalization() -> LocalResponseNorm:
    """Section 3.3: k = 2, n = 5, α = 10⁻⁴, β = 0.75; the layer divides its alpha by n."""
    return LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def classifier(num_classes: int, dropout: float) -> dict[str, Module]:
    """The last three layers: maps (N, 256, 6, 6) -> logits (N, num_classes)."""
    return {
        "flatten": Flatten(),
        "fc6": Linear(256 * 6 * 6, 4096),
        "relu6": ReLU(),
        "drop6": Dropout(dropout),
        "fc7": Linear(4096, 4096),
        "relu7": ReLU(),
        "drop7": Dropout(dropout),
        "fc8": Linear(4096, num_classes),
    }


def alexnet_2012(num_classes: int = 1000, dropout: float = 0.5) -> Sequential:
    """The network of figure 2: image (N, 3, 224, 224) -> logits (N, num_classes).

    A tower is a group of the convolutions that read their own tower only. Layers have the names
    that Caffe gave them.
    """
    layers: dict[str, Module] = {
        "conv1": Conv2d(3, 96, 11, stride=4, padding=2),
        "relu1": ReLU(),
        "norm1": normalization(),
        "pool1": MaxPool2d(3, stride=2),
        "conv2": Conv2d(96, 256, 5, padding=2, groups=2),
        "relu2": ReLU(),
        "norm2": normalization(),
        "pool2": MaxPool2d(3, stride=2),
        "conv3": Conv2d(256, 384, 3, padding=1),  # reads both towers
        "relu3": ReLU(),
        "conv4": Conv2d(384, 384, 3, padding=1, groups=2),
        "relu4": ReLU(),
        "conv5": Conv2d(384, 256, 3, padding=1, groups=2),
        "relu5": ReLU(),
        "pool5": MaxPool2d(3, stride=2),
        **classifier(num_classes, dropout),
    }
    for name, layer in layers.items():
        if isinstance(layer, Conv2d | Linear) and layer.bias is not None:  # section 5
            init.normal_(layer.weight, 0.0, 0.01)
            ones = name in ("conv2", "conv4", "conv5", "fc6", "fc7")
            init.constant_(layer.bias, 1.0 if ones else 0.0)
    return Sequential(layers)


ENTRIES = (
    ZooEntry(
        "alexnet_2012",
        2012,
        PAPER,
        TensorType((1, 3, 224, 224)),
        alexnet_2012,
        60_965_224,
        1_455_526_568,
    ),
)
