"""Networks of the literature: sizes as published, and how they are found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import quern as qn
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph
from quern.frontends.nn.init import skipped
from quern.frontends.zoo import ZooEntry, entries, find

# torchvision's counts; LeNet-5 with every map of C3 connected; He et al. give 0.27 M for ResNet-20.
PUBLISHED = {
    "alexnet": 61_100_840,
    "lenet5": 61_706,
    "resnet18": 11_689_512,
    "resnet20_cifar": 269_722,
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
}

KEYS = {
    "alexnet": [
        "features.0.weight",
        "features.10.bias",
        "classifier.1.weight",
        "classifier.6.bias",
    ],
    "vgg16": ["features.0.weight", "features.28.bias", "classifier.0.weight", "classifier.6.bias"],
    "resnet18": [
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.num_batches_tracked",
        "layer4.1.bn2.bias",
        "fc.weight",
    ],
}


@pytest.mark.parametrize("entry", entries().values(), ids=lambda e: e.name)
def test_sizes_are_as_published(entry: ZooEntry) -> None:
    with skipped():
        network = entry.build()
    count = sum(p.data.size for p in network.parameters())
    assert count == entry.parameters
    assert count == PUBLISHED.get(entry.name, count)
    assert KEYS.get(entry.name, []) == [
        k for k in KEYS.get(entry.name, []) if k in network.state_dict()
    ]
    graph = qn.trace(network, entry.input, training=False)
    assert graph_flops(graph) == entry.flops
    assert graph.outputs.keys() in ({"output"}, {"logits", "box"})
    assert {graph.type_of(v).shape[0] for v in graph.outputs.values()} == {entry.input.shape[0]}


def test_every_published_network_is_there() -> None:
    assert PUBLISHED.keys() <= entries().keys()


@pytest.mark.parametrize("name", ["resnet18", "resnet20_cifar"])
def test_an_odd_number_of_pixels_is_halved_like_a_stride_does(name: str) -> None:
    network = entries()[name].build()
    graph = qn.trace(network, qn.spec(1, 3, 37, 35), training=False)
    assert isinstance(graph, Graph)
    assert graph.type_of(graph.outputs["output"]).shape[0] == 1


def test_names_are_found_however_they_are_written() -> None:
    assert find("ResNet20-CIFAR") is entries()["resnet20_cifar"]
    assert find("resnet") is None


def test_entries_are_frozen_and_in_order() -> None:
    assert list(entries()) == sorted(entries())
    entry = entries()["lenet"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.name = "other"  # type: ignore[misc]  # which is refused


def test_every_build_is_a_network_of_its_own() -> None:
    qn.manual_seed(3)
    first, second = (entries()["lenet"].build() for _ in range(2))
    assert not np.array_equal(first.state_dict()["fc1.weight"], second.state_dict()["fc1.weight"])
    qn.manual_seed(3)
    again = entries()["lenet"].build()
    assert np.array_equal(first.state_dict()["fc1.weight"], again.state_dict()["fc1.weight"])
