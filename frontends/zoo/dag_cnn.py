"""Multi-scale DAG-CNN: layers of every depth vote on the class."""

from __future__ import annotations

from functools import partial

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.container import ModuleList
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.pooling import MaxPool2d
from .entry import ZooEntry
from .vgg import CHANNELS, VGG

PAPER = "Yang and Ramanan, Multi-scale recognition with DAG-CNNs"


class ScaleScores(Module):
    """Scores from one layer: maps are averaged, brought to unit length, and weighed.

    (N, channels, H, W) -> (N, num_classes)
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        length = ((pooled * pooled).sum(1, keepdims=True) + 1e-12).sqrt()
        scores: Tensor = self.fc(pooled / length)
        return scores


class DagVGG(Module):
    """VGG with scores from the last rectifier of each stage, added to those at its end.

    image (N, 3, 224, 224) -> logits (N, num_classes). `trunk` has torchvision's keys for VGG.

    Arguments:
        layers: of the trunk; see VGG.
        num_classes: number of logits.
    """

    def __init__(self, layers: int, num_classes: int = 1000) -> None:
        super().__init__()
        self.trunk = VGG(layers, num_classes)
        self.scales = ModuleList(ScaleScores(channels, num_classes) for channels in CHANNELS)

    def forward(self, image: Tensor) -> Tensor:
        trunk, scales = self.trunk, iter(self.scales)
        x, scores = image, []
        for layer in trunk.features:
            if isinstance(layer, MaxPool2d):  # what it reads is the end of a stage
                scores.append(next(scales)(x))
            x = layer(x)
        logits: Tensor = trunk.classifier(trunk.flatten(trunk.avgpool(x)))
        for score in scores:
            logits = logits + score
        return logits


ENTRIES = (
    ZooEntry(
        "dag_vgg16",
        2015,
        PAPER,
        TensorType((1, 3, 224, 224)),
        partial(DagVGG, 16),
        139_834_544,
        30_982_894_082,
    ),
)
