"""Classifiers that slide: the map of scores is what the network gives for each crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ShapeError, UsageError
from quern.frontends.nn.init import skipped
from quern.frontends.zoo import convolutionalize, find
from quern.frontends.zoo.resnet import ResNet
from quern.frontends.zoo.vgg import VGG


def lenet5() -> nn.Module:
    entry = find("lenet5")
    assert entry is not None
    return entry.build()


def overlapping() -> nn.Module:
    """Unpadded, with batch norm over features, two linear layers and a softmax."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, (2, 3)), nn.ELU(), nn.Flatten(),
        nn.Linear(5 * 3 * 4, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(),
        nn.Linear(7, 3), nn.Softmax(dim=1),
    )  # fmt: skip


def globally_pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


def coarsely_pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.AdaptiveMaxPool2d((4, 2)), nn.Flatten(), nn.Linear(32, 3)
    )


CASES = [
    pytest.param(lenet5, (1, 32, 32), (44, 36), (4, 4), id="lenet5"),
    pytest.param(overlapping, (2, 10, 14), (16, 18), (2, 2), id="batch norm"),
    pytest.param(globally_pooled, (2, 9, 9), (13, 11), (2, 2), id="global pooling"),
    pytest.param(coarsely_pooled, (2, 10, 10), (16, 14), (2, 4), id="adaptive pooling"),
]


@pytest.mark.parametrize(("build", "crop", "extents", "step"), CASES)
def test_map_is_the_network_on_each_crop(
    build: Callable[[], nn.Module],
    crop: tuple[int, ...],
    extents: tuple[int, int],
    step: tuple[int, int],
) -> None:
    rng = np.random.default_rng(0)
    network = build().eval()
    for key, array in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    graph = qn.trace(network, qn.spec(2, *crop))
    image = rng.standard_normal((2, crop[0], *extents)).astype(np.float32)
    larger = convolutionalize(graph, qn.spec(*image.shape)).verify()
    scores = qn.interpret(larger, image)
    rows, columns = ((n - m) // s + 1 for n, m, s in zip(extents, crop[1:], step, strict=True))
    assert scores.shape[2:] == (rows, columns)
    assert rows * columns > 1
    for i, j in np.ndindex(rows, columns):
        top, left = i * step[0], j * step[1]
        part = image[:, :, top : top + crop[1], left : left + crop[2]]
        np.testing.assert_allclose(
            scores[:, :, i, j], qn.interpret(graph, part), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(qn.compile(larger)(image), scores, rtol=1e-4, atol=1e-5)


def test_at_its_own_size_a_padded_network_is_itself() -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 64, 64)).astype(np.float32)
    graph = qn.trace(ResNet((1, 1, 1, 1), num_classes=4).eval(), x)
    scores = qn.interpret(convolutionalize(graph, qn.spec(*x.shape)), x)
    np.testing.assert_allclose(scores[:, :, 0, 0], qn.interpret(graph, x), rtol=1e-4, atol=1e-5)


def test_vgg_gives_a_map() -> None:
    with skipped():
        graph = qn.trace(VGG(11).eval(), qn.spec(1, 3, 224, 224))
    larger = convolutionalize(graph, qn.spec(1, 3, 320, 256))
    assert larger.type_of(larger.outputs["output"]) == qn.spec(1, 1000, 4, 2)
    assert larger.data.keys() == graph.data.keys()


def test_what_cannot_slide_is_told() -> None:
    graph = qn.trace(lenet5().eval(), qn.spec(1, 1, 32, 32))
    with pytest.raises(ShapeError, match="cannot slide over"):
        convolutionalize(graph, qn.spec(1, 1, 30, 40))
    uneven = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9, 2)).eval()
    with pytest.raises(UsageError, match="several sizes"):
        convolutionalize(qn.trace(uneven, qn.spec(1, 1, 7, 7)), qn.spec(1, 1, 9, 9))
