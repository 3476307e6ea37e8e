"""Networks of the zoo give the same bits for any number of threads, inferring and training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quern as qn
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array
from quern.frontends.zoo import find
from quern.frontends.zoo.entry import ZooEntry
from quern.nn import functional as F

pytestmark = pytest.mark.slow

NETWORKS = (
    "alexnet",
    "densenet121",
    "googlenet",
    "lenet",
    "mobilenet_v2",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "squeezenet1_1",
    "vgg16",
)
THREADS = (1, 2, 4)


def entry(name: str) -> ZooEntry:
    found = find(name)
    assert found is not None
    return found


def images(network: ZooEntry, batch: int) -> Array:
    shape = (batch, *network.input.shape[1:])
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def flat(outputs: Any) -> list[Array]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@pytest.mark.parametrize("name", NETWORKS)
def test_inference(name: str) -> None:
    network = entry(name)
    module, x = network.build().eval(), images(network, 2)
    first, *others = (flat(qn.compile(module, qn.spec(x), threads=t)(x)) for t in THREADS)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def loss(outputs: Any, target: Tensor) -> Tensor:
    """Of the first output; GoogLeNet has three in training."""
    return F.cross_entropy(outputs[0] if isinstance(outputs, tuple) else outputs, target)


def after_two_steps(network: ZooEntry, threads: int) -> dict[str, Array]:
    qn.manual_seed(0)
    optimizer = qn.optim.SGD(0.01, momentum=0.9)
    trainer = qn.Trainer(
        network.build(), loss=loss, optimizer=optimizer, metrics={}, threads=threads
    )
    x = images(network, 2)
    trainer.fit((x, np.arange(2)), epochs=2, batch_size=2)
    return trainer.model.state_dict()


@pytest.mark.parametrize("name", NETWORKS)
def test_training(name: str) -> None:
    network = entry(name)
    first, *others = (after_two_steps(network, threads) for threads in THREADS)
    for other in others:
        for key, array in first.items():
            np.testing.assert_array_equal(other[key], array, err_msg=key)
