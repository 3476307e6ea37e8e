"""One trunk, other heads: where the object is, and where a body's joints are."""

from __future__ import annotations

from ...compiler.tensor import Tensor
from ...compiler.types import TensorType
from ..nn.activation import ReLU
from ..nn.container import Sequential
from ..nn.dropout import Dropout
from ..nn.linear import Linear
from ..nn.module import Module
from .alexnet import AlexNet
from .entry import ZooEntry

LOCALIZATION = "Sermanet et al., OverFeat: Integrated recognition, localization and detection"
POSE = "Toshev and Szegedy, DeepPose: Human pose estimation via deep neural networks"


class Trunk(Module):
    """image (N, 3, 224, 224) -> features (N, 9216): the convolutions of AlexNet, with its keys."""

    def __init__(self) -> None:
        super().__init__()
        whole = AlexNet()
        self.features, self.avgpool, self.flatten = whole.features, whole.avgpool, whole.flatten

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.flatten(self.avgpool(self.features(image)))
        return features


def head(outputs: int, dropout: float) -> Sequential:
    """Features (N, 9216) to (N, outputs), as AlexNet's own classifier."""
    return Sequential(
        Dropout(dropout),
        Linear(256 * 6 * 6, 4096),
        ReLU(),
        Dropout(dropout),
        Linear(4096, 4096),
        ReLU(),
        Linear(4096, outputs),
    )


class ClassifyAndLocalize(Module):
    """image (N, 3, 224, 224) -> `logits` (N, num_classes) and `box` (N, 4).

    Both heads stand on one trunk. A box is (left, top, right, bottom) as shares of the image.

    Arguments:
        num_classes: number of logits.
        dropout: in front of the first two linear layers of each head.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.classifier = head(num_classes, dropout)
        self.box = head(4, dropout)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.trunk(image)
        return {"logits": self.classifier(features), "box": self.box(features)}


class DeepPose(Module):
    """image (N, 3, 224, 224) -> joints (N, joints, 2), (x, y) as shares of the image.

    The first stage of the cascade: AlexNet that ends in a regression (section 3.1).

    Arguments:
        joints: 14 are those of Leeds Sports Pose.
        dropout: in front of the first two linear layers.
    """

    def __init__(self, joints: int = 14, dropout: float = 0.5) -> None:
        super().__init__()
        self.joints = joints
        self.trunk = Trunk()
        self.regression = head(2 * joints, dropout)

    def forward(self, image: Tensor) -> Tensor:
        places: Tensor = self.regression(self.trunk(image))
        return places.reshape((image.shape[0], self.joints, 2))


_INPUT = TensorType((1, 3, 224, 224))

ENTRIES = (
    ZooEntry(
        "alexnet_localization",
        2013,
        LOCALIZATION,
        _INPUT,
        ClassifyAndLocalize,
        115_651_372,
        1_539_278_700,
    ),
    ZooEntry("deeppose", 2014, POSE, _INPUT, DeepPose, 57_118_556, 1_422_214_044),
)
