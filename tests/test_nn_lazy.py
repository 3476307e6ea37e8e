"""Lazy layers: after their first input they are the layers that were told how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import quern as qn
from quern import nn, optim
from quern.compiler.errors import ShapeError
from quern.compiler.ops.leaf import State

# Channels or features, other arguments, and the shape of an input.
LAYERS: dict[str, tuple[int, tuple[int, ...], dict[str, Any], tuple[int, ...]]] = {
    "Linear": (5, (7,), {"bias": False}, (2, 3, 5)),
    "Conv1d": (3, (4, 3), {"stride": 2}, (2, 3, 9)),
    "Conv2d": (3, (4, 3), {"padding": 1}, (2, 3, 6, 6)),
    "Conv3d": (2, (4, 3), {}, (1, 2, 4, 4, 4)),
    "ConvTranspose1d": (3, (4, 3), {}, (2, 3, 5)),
    "ConvTranspose2d": (3, (4, 3), {"stride": 2}, (2, 3, 5, 5)),
    "ConvTranspose3d": (3, (2, 2), {}, (1, 3, 3, 3, 3)),
    "BatchNorm1d": (3, (), {"eps": 1e-3}, (4, 3)),
    "BatchNorm2d": (3, (), {}, (2, 3, 4, 4)),
    "BatchNorm3d": (3, (), {"affine": False}, (2, 3, 2, 2, 2)),
    "InstanceNorm1d": (3, (), {"affine": True}, (3, 5)),
    "InstanceNorm2d": (3, (), {}, (2, 3, 4, 4)),
    "InstanceNorm3d": (3, (), {}, (2, 3, 2, 2, 2)),
}


def image(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_it_becomes_the_layer(name: str) -> None:
    channels, arguments, options, shape = LAYERS[name]
    qn.manual_seed(3)
    told = getattr(nn, name)(channels, *arguments, **options)
    qn.manual_seed(3)
    lazy = getattr(nn, f"Lazy{name}")(*arguments, **options)
    assert not list(lazy.parameters())
    x = image(*shape)
    assert_array_equal(lazy(x), told(x))
    assert type(lazy) is type(told)
    assert repr(lazy) == repr(told)
    assert lazy.state_dict().keys() == told.state_dict().keys()


def net() -> nn.Module:
    return nn.Sequential(
        nn.LazyConv2d(8, 3),
        nn.LazyBatchNorm2d(),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(16),
        nn.ReLU(),
        nn.LazyLinear(10),
    )


def test_a_network_of_them_is_traced_with_the_keys_of_its_state_dict() -> None:
    own = net()
    assert repr(own[4]) == "LazyLinear(16)"
    graph = qn.trace(own, qn.spec(2, 1, 8, 8))
    keys = set(own.state_dict())
    assert {"0.weight", "0.bias", "1.running_mean", "4.weight", "6.bias"} < keys
    assert {node.name for node in graph.leaves(State)} <= keys
    assert own[4].in_features == 8 * 36


def test_modes_stay_as_they_are() -> None:
    own = net().eval()
    qn.trace(own, qn.spec(2, 1, 8, 8), training=True)
    assert not any(part.training for part in own.modules())


def test_a_network_of_them_is_trained() -> None:
    rng = np.random.default_rng(0)
    x, y = image(32, 1, 8, 8), rng.integers(0, 10, 32)
    qn.manual_seed(1)
    trainer = qn.Trainer(net(), loss="cross_entropy", optimizer=optim.Adam(1e-2))
    losses = [trainer.step(x, y)["loss"] for _ in range(20)]
    assert losses[-1] < 0.3 * losses[0]


def test_arguments_are_looked_at_when_it_is_made() -> None:
    with pytest.raises(TypeError, match="kernel_size"):
        nn.LazyConv2d(8)


def test_an_input_without_channels_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"no axis -3"):
        nn.LazyConv2d(8, 3)(image(4, 4))
