"""A detector of body joints: convolutions over several resolutions give a heatmap a joint."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import ModuleList, Sequential
from ..nn.convolution import Conv2d
from ..nn.functional.shape import interpolate
from ..nn.module import Module
from ..nn.normalization import LocalContrastNorm
from ..nn.pooling import AvgPool2d, MaxPool2d
from .entry import ZooEntry

PAPER = (
    "Tompson et al., Joint training of a convolutional network and a graphical model for human "
    "pose estimation"
)


class Bank(Sequential):
    """(N, 3, H, W) -> (N, 512, H / 4, W / 4): the features of one resolution.

    The last convolution stands for the fully connected layer that slides over the map: 9×9, behind
    it two of 1×1 that all resolutions share.
    """

    def __init__(self) -> None:
        super().__init__(
            Conv2d(3, 128, 5, padding=2),
            ReLU(),
            MaxPool2d(2),
            Conv2d(128, 128, 5, padding=2),
            ReLU(),
            MaxPool2d(2),
            Conv2d(128, 128, 5, padding=2),
            ReLU(),
            Conv2d(128, 512, 9, padding=4),
        )


class HeatmapDetector(Module):
    """image (N, 3, H, W) -> heatmaps (N, joints, H / 4, W / 4) (figures 3 and 4).

    Each level of a pyramid of images, normalised by local contrast, goes through a bank of its own.
    Their maps are brought to the size of the first one's and added; a wide window at low resolution
    then tells where a joint is likely to be, a narrow one at high resolution where exactly.

    Arguments:
        joints: number of heatmaps.
        levels: of the pyramid, each half as large as the one before it.
    """

    def __init__(self, joints: int = 14, levels: int = 2) -> None:
        super().__init__()
        self.norm = LocalContrastNorm(9)
        self.smaller = AvgPool2d(2)
        self.banks = ModuleList(Bank() for _ in range(levels))
        self.head = Sequential(
            ReLU(), Conv2d(512, 256, 1), ReLU(), Conv2d(256, 256, 1), ReLU(), Conv2d(256, joints, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for bank in self.banks:
            maps.append(bank(self.norm(image)))
            image = self.smaller(image)
        first, *others = maps
        extents = first.shape[2:]
        total = sum((interpolate(m, extents, mode="bilinear") for m in others), first)
        heatmaps: Tensor = self.head(total)
        return heatmaps


ENTRIES = (
    ZooEntry(
        "heatmap_detector",
        2014,
        PAPER,
        TensorType((1, 3, 240, 320)),
        HeatmapDetector,
        12_476_942,
        92_208_792_002,
    ),
)
