"""Two-stream networks: what is seen in an image, and how it moves, judged apart and averaged."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.convolution import Conv2d
from ..nn.dropout import Dropout
from ..nn.functional.activation import softmax
from ..nn.linear import Linear
from ..nn.module import Module
from ..nn.normalization import LocalResponseNorm
from ..nn.pooling import MaxPool2d
from ..nn.shape import Flatten
from .entry import ZooEntry

PAPER = "Simonyan and Zisserman, Two-stream convolutional networks for action recognition in videos"

# Frames whose flow is stacked; each has a horizontal and a vertical component.
FRAMES = 10


def stream(channels: int, num_classes: int, dropout: float, second_norm: bool) -> Sequential:
    """One stream of figure 1: (N, channels, 224, 224) -> logits (N, num_classes).

    Arguments:
        channels: of the input.
        num_classes: number of logits.
        dropout: behind full6 and full7.
        second_norm: whether the second convolution is normalised; the temporal one is not.
    """
    layers: dict[str, Module] = {
        "conv1": Conv2d(channels, 96, 7, stride=2),
        "relu1": ReLU(),
        "norm1": LocalResponseNorm(5, alpha=5e-4, k=2.0),
        "pool1": MaxPool2d(2),
        "conv2": Conv2d(96, 256, 5, stride=2),
        "relu2": ReLU(),
    }
    if second_norm:
        layers["norm2"] = LocalResponseNorm(5, alpha=5e-4, k=2.0)
    layers["pool2"] = MaxPool2d(2)
    inputs = 256
    for i in (3, 4, 5):
        layers[f"conv{i}"] = Conv2d(inputs, 512, 3, padding=1)
        layers[f"relu{i}"] = ReLU()
        inputs = 512
    layers |= {
        "pool5": MaxPool2d(2),
        "flatten": Flatten(),
        "full6": Linear(512 * 6 * 6, 4096),
        "relu6": ReLU(),
        "drop6": Dropout(dropout),
        "full7": Linear(4096, 2048),
        "relu7": ReLU(),
        "drop7": Dropout(dropout),
        "full8": Linear(2048, num_classes),
    }
    return Sequential(layers)


class TwoStream(Module):
    """Image and flow (N, 3 + 2 * FRAMES, 224, 224) -> probabilities (N, num_classes).

    The first three channels are an image, the others the stacked optical flow around it. The two
    streams meet only in the average of their softmax scores (late fusion).

    Arguments:
        num_classes: 101 are those of UCF-101.
        dropout: behind the first two linear layers of each stream.
    """

    def __init__(self, num_classes: int = 101, dropout: float = 0.5) -> None:
        super().__init__()
        self.spatial = stream(3, num_classes, dropout, second_norm=True)
        self.temporal = stream(2 * FRAMES, num_classes, dropout, second_norm=False)

    def forward(self, clip: Tensor) -> Tensor:
        image, flow = clip[:, :3], clip[:, 3:]
        return (softmax(self.spatial(image), 1) + softmax(self.temporal(flow), 1)) * 0.5


ENTRIES = (
    ZooEntry(
        "two_stream",
        2014,
        PAPER,
        TensorType((1, 3 + 2 * FRAMES, 224, 224)),
        TwoStream,
        181_335_594,
        7_871_381_512,
    ),
)
