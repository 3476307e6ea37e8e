"""Networks of the zoo on inputs that are small enough for NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quern.frontends.nn.init import skipped
from quern.frontends.zoo import entries
from quern.frontends.zoo.deconvnet import DeconvNet
from quern.nn import Module

# A quarter of a minute together: these are run every time.
QUICK = {
    "context_basic": (1, 21, 12, 12),
    "lenet": (2, 1, 8, 8),
    "lenet5": (2, 1, 32, 32),
    "lenet_1989": (2, 1, 16, 16),
    "resnet20_cifar": (2, 3, 16, 16),
    "resnet20_cifar_full_preactivation": (2, 3, 16, 16),
    "squeezenet1_1": (2, 3, 48, 48),
}

# Others take up to a minute each. Norms of batches need several elements a channel: four images,
# and 2×2 pixels in the last layer.
SLOW = {
    "alexnet": (2, 3, 67, 67),
    "alexnet_localization": (2, 3, 67, 67),
    "context_large": (1, 21, 12, 12),
    "dag_vgg16": (2, 3, 32, 32),
    "deconvnet": (3, 3, 224, 224),
    "deeppose": (2, 3, 67, 67),
    "densenet121": (4, 3, 64, 64),
    "densenet161": (4, 3, 64, 64),
    "densenet169": (4, 3, 64, 64),
    "densenet201": (4, 3, 64, 64),
    "fcn8s": (1, 3, 32, 40),
    "fcn16s": (1, 3, 32, 40),
    "fcn32s": (1, 3, 32, 40),
    "googlenet": (4, 3, 64, 64),
    "heatmap_detector": (1, 3, 32, 40),
    "hypercolumns": (1, 3, 32, 40),
    "hypercolumns_resized": (1, 3, 32, 40),
    # The auxiliary classifier takes maps of 17×17, which it convolves to one element.
    "inception_v3": (4, 3, 299, 299),
    "mobilenet_v2": (4, 3, 64, 64),
    "resnet18": (4, 3, 64, 64),
    "resnet34": (4, 3, 64, 64),
    "resnet50": (4, 3, 64, 64),
    "resnet101": (4, 3, 64, 64),
    "resnet152": (4, 3, 64, 64),
    "resnext50_32x4d": (4, 3, 64, 64),
    "resnext101_32x8d": (4, 3, 64, 64),
    "squeezenet1_0": (2, 3, 48, 48),
    "vgg11": (2, 3, 32, 32),
    "vgg13": (2, 3, 32, 32),
    "vgg16": (2, 3, 32, 32),
    "vgg19": (2, 3, 32, 32),
    "vgg11_bn": (4, 3, 32, 32),
    "vgg13_bn": (4, 3, 32, 32),
    "vgg16_bn": (4, 3, 32, 32),
    "vgg19_bn": (4, 3, 32, 32),
    "wide_resnet50_2": (4, 3, 64, 64),
}

# Unpooling puts values where max-pooling found them. Of two that are almost equal, rounding
# chooses: a small difference may become a large one.
SWITCHED = {"deconvnet"}

# Networks that are tested with fewer channels, where their own take gigabytes.
REDUCED: dict[str, Callable[[], Module]] = {"deconvnet": lambda: DeconvNet(hidden=64)}


def network_of(name: str, rng: np.random.Generator) -> Module:
    """A network of the zoo with lively contents."""
    with skipped():
        return lively(REDUCED.get(name, entries()[name].build)(), rng)


def small_input(name: str) -> tuple[int, ...]:
    """The shape that a network of the zoo is tested with: by default, that of its paper."""
    shape = QUICK.get(name) or SLOW.get(name) or entries()[name].input.shape
    return (2, 3, 16, 16) if "_cifar" in name and name.startswith("resnet") else shape


def lively(network: Module, rng: np.random.Generator) -> Module:
    """Contents under which every layer hands on about as much as it gets, none of them trivial."""
    for key, array in network.state_dict().items():
        if array.ndim > 1:
            fan_in = array[0].size
            array[...] = rng.standard_normal(array.shape, np.float32) * np.sqrt(2 / fan_in)
        elif key.endswith(("running_var", "weight")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        elif array.dtype == np.float32:
            array[...] = rng.standard_normal(array.shape, np.float32) * 0.1
    return network
