"""Networks with layers taken out or in another order, and trunks of other networks."""

from __future__ import annotations

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ShapeError, UsageError
from quern.compiler.graph import Graph
from quern.compiler.ops.leaf import Parameter
from quern.frontends.nn.init import skipped
from quern.frontends.surgery import freeze, remove, reorder, transplant
from quern.frontends.zoo.alexnet import AlexNet
from quern.frontends.zoo.heads import DeepPose
from quern.frontends.zoo.resnet import ResNet


def count(graph: Graph) -> int:
    return sum(n.types[0].size for n in graph.leaves(Parameter))


@pytest.fixture(scope="module")
def alexnet() -> Graph:
    with skipped():
        return qn.trace(AlexNet().eval(), qn.spec(1, 3, 224, 224))


# The ablations of Zeiler and Fergus, table 3, on the single-tower network.
ABLATIONS = [
    (("classifier.4", "classifier.5"), -(4096 * 4096 + 4096)),
    (
        ("classifier.1", "classifier.2", "classifier.4", "classifier.5"),
        -(9216 * 4096 + 4096) - (4096 * 4096 + 4096) + 1000 * (9216 - 4096),
    ),
    (
        ("features.6", "features.7", "features.8", "features.9"),
        -(384 * 192 * 9 + 384) - (256 * 384 * 9 + 256) - 256 * (256 - 192) * 9,
    ),
]


@pytest.mark.parametrize(("names", "change"), ABLATIONS, ids=["fc7", "fc6 and fc7", "conv3, 4"])
def test_ablations_of_alexnet(alexnet: Graph, names: tuple[str, ...], change: int) -> None:
    smaller = remove(alexnet, *names).verify()
    assert count(smaller) - count(alexnet) == change
    assert smaller.type_of(smaller.outputs["output"]) == qn.spec(1, 1000)
    assert not any(name in smaller for name in names)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 16, 5),
    )  # fmt: skip


def test_what_is_left_runs_with_its_weights_and_new_ones_where_they_have_to_be() -> None:
    network = small().eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
    graph = remove(qn.trace(network, x), "2")
    state = network.state_dict()
    np.testing.assert_array_equal(graph.data["0.weight"], state["0.weight"])
    assert graph.data["3.weight"].shape == (4,)
    assert graph.data["6.weight"].shape == (5, 4 * 36)
    y = qn.compile(graph)(x)
    np.testing.assert_allclose(y, qn.interpret(graph, x), rtol=1e-4, atol=1e-5)
    assert np.ptp(y) > 1e-3


def test_a_residual_block_goes_as_a_whole() -> None:
    network = ResNet((1, 2, 1, 1), num_classes=4).eval()
    x = np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)
    graph = remove(qn.trace(network, x), "layer2.1").verify()
    assert not any(n.name.startswith("layer2.1") for n in graph.nodes())
    shorter = ResNet((1, 1, 1, 1), num_classes=4).eval()
    assert transplant(shorter, network.state_dict())
    np.testing.assert_array_equal(qn.interpret(graph, x), qn.interpret(qn.trace(shorter, x), x))


def test_blocks_run_in_another_order() -> None:
    network = ResNet((1, 3, 1, 1), num_classes=4).eval()
    x = np.random.default_rng(2).standard_normal((1, 3, 32, 32), np.float32)
    graph = qn.trace(network, x)
    swapped = reorder(graph, ["layer2.2", "layer2.1"]).verify()
    state = network.state_dict()
    renamed = {
        key.replace("layer2.1.", "layer2.x.")
        .replace("layer2.2.", "layer2.1.")
        .replace("x.", "2."): a
        for key, a in state.items()
        if "max." not in key
    }
    other = ResNet((1, 3, 1, 1), num_classes=4).eval()
    other.load_state_dict(renamed)
    expected = qn.interpret(qn.trace(other, x), x)
    np.testing.assert_array_equal(qn.interpret(swapped, x), expected)
    assert np.abs(expected - qn.interpret(graph, x)).max() > 0
    assert set(swapped.data) == set(graph.data)


def test_a_trunk_is_taken_over_and_frozen() -> None:
    with skipped():
        source, target = AlexNet(), DeepPose()
    rng = np.random.default_rng(3)
    for array in source.state_dict().values():
        array[...] = rng.random(1)
    renamed = {f"trunk.{key}": array for key, array in source.state_dict().items()}
    taken = transplant(target, renamed, prefix="trunk.features.")
    assert len(taken) == 10
    np.testing.assert_array_equal(
        target.trunk.features[0].weight.data, source.features[0].weight.data
    )
    freeze(target, "trunk")
    assert [p.requires_grad for p in target.trunk.parameters()] == [False] * 10
    assert all(p.requires_grad for p in target.regression.parameters())


def test_a_network_is_tuned_on_the_trunk_of_another() -> None:
    source, target = small(), small()
    taken = transplant(target, source.state_dict(), prefix="0.") + transplant(
        target, source.state_dict(), prefix="2."
    )
    assert sorted(taken) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    freeze(target, "0")
    before = {name: p.data.copy() for name, p in target.named_parameters()}
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((8, 3, 8, 8), np.float32), rng.integers(0, 5, 8)
    trainer = qn.Trainer(target, loss="cross_entropy", optimizer=qn.optim.SGD(0.05))
    losses = [trainer.step(x, labels)["loss"] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    moved = {n for n, p in target.named_parameters() if not np.array_equal(p.data, before[n])}
    assert {"2.weight", "3.weight", "6.weight", "6.bias"} <= moved
    assert not moved & {"0.weight", "0.bias"}
    np.testing.assert_array_equal(target[0].weight.data, source[0].weight.data)


def test_mistakes_are_told() -> None:
    graph = qn.trace(ResNet((1, 1, 1, 1), num_classes=4).eval(), qn.spec(1, 3, 32, 32))
    with pytest.raises(UsageError, match="has no layer 'layer5'"):
        remove(graph, "layer5")
    with pytest.raises(UsageError, match=r"layer2\.0\.add reads 2 values"):
        remove(graph, "layer2.0.add")
    with pytest.raises(ShapeError, match=r"layer2\.0\.add"):
        remove(graph, "layer2.0.conv1")
    with pytest.raises(UsageError, match="cannot stand in the place"):
        reorder(graph, ["layer3.0", "layer2.0"])
    with pytest.raises(UsageError, match="no state called head"):
        transplant(small(), {}, prefix="head.")
