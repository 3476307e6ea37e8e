"""Networks of the zoo: published sizes, keys of torchvision, and the same numbers as NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from zoo_cases import lively

import quern as qn
from quern.frontends.nn import init
from quern.frontends.zoo import entries
from quern.frontends.zoo.densenet import DenseNet
from quern.frontends.zoo.dilation import BASIC, LARGE, context_module
from quern.frontends.zoo.fcn import FCN, Upsample
from quern.frontends.zoo.googlenet import GoogLeNet
from quern.frontends.zoo.heatmap import HeatmapDetector
from quern.frontends.zoo.hypercolumns import Hypercolumns
from quern.frontends.zoo.inception_v3 import InceptionV3
from quern.frontends.zoo.lenet_1989 import LeNet1989
from quern.frontends.zoo.resnet import CifarResNet
from quern.frontends.zoo.resnet_arrangements import BOTTLENECK, ArrangedResNet
from quern.frontends.zoo.resnet_bottleneck import BottleneckResNet
from quern.nn import Module

# As published with torchvision's weights: parameters, and multiply-adds in 10⁹.
PUBLISHED = {
    "alexnet": (61_100_840, 0.71),
    "densenet121": (7_978_856, 2.83),
    "densenet161": (28_681_000, 7.73),
    "densenet169": (14_149_480, 3.36),
    "densenet201": (20_013_928, 4.29),
    "googlenet": (13_004_888, 1.50),
    "inception_v3": (27_161_264, 5.71),
    "mobilenet_v2": (3_504_872, 0.30),
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
    "resnext50_32x4d": (25_028_904, 4.23),
    "resnext101_32x8d": (88_791_336, 16.41),
    "squeezenet1_0": (1_248_424, 0.82),
    "squeezenet1_1": (1_235_496, 0.35),
    "vgg11": (132_863_336, 7.61),
    "vgg13": (133_047_848, 11.31),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.63),
    "vgg11_bn": (132_868_840, 7.61),
    "vgg13_bn": (133_053_736, 11.31),
    "vgg16_bn": (138_365_992, 15.47),
    "vgg19_bn": (143_678_248, 19.63),
    "wide_resnet50_2": (68_883_240, 11.40),
}

# Parameters as the papers, or the weights that their authors published, have them.
PUBLISHED_PARAMETERS = {
    "alexnet_2012": 60_965_224,
    "context_basic": 7 * (9 * 21 * 21 + 21) + 21 * 21 + 21,
    "lenet_1989": 9_760,
    "resnet164_cifar_full_preactivation": 1_703_258,
    "zfnet": 62_357_608,
}

# A few keys of torchvision's state dicts, with shapes.
KEYS: dict[str, dict[str, tuple[int, ...]]] = {
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.denseblock1.denselayer1.norm1.running_mean": (64,),
        "features.denseblock3.denselayer24.conv2.weight": (32, 128, 3, 3),
        "features.transition2.conv.weight": (256, 512, 1, 1),
        "features.norm5.bias": (1024,),
        "classifier.weight": (1000, 1024),
    },
    "googlenet": {
        "conv1.conv.weight": (64, 3, 7, 7),
        "conv3.bn.num_batches_tracked": (),
        "inception3a.branch1.conv.weight": (64, 192, 1, 1),
        "inception4e.branch2.1.conv.weight": (320, 160, 3, 3),
        "inception5b.branch3.0.bn.weight": (48,),
        "inception5b.branch4.1.conv.weight": (128, 832, 1, 1),
        "aux1.conv.conv.weight": (128, 512, 1, 1),
        "aux2.fc1.weight": (1024, 2048),
        "fc.bias": (1000,),
    },
    "inception_v3": {
        "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6b.branch7x7dbl_4.conv.weight": (128, 128, 7, 1),
        "Mixed_6e.branch7x7_2.bn.running_var": (192,),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "AuxLogits.conv1.conv.weight": (768, 128, 5, 5),
        "AuxLogits.fc.weight": (1000, 768),
        "fc.weight": (1000, 2048),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.17.conv.1.0.weight": (960, 1, 3, 3),
        "features.17.conv.3.running_mean": (320,),
        "features.18.1.bias": (1280,),
        "classifier.1.weight": (1000, 1280),
    },
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_var": (256,),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.weight": (2048,),
        "fc.weight": (1000, 2048),
    },
    "resnext50_32x4d": {
        "layer1.0.conv2.weight": (128, 4, 3, 3),
        "layer4.2.conv2.weight": (1024, 32, 3, 3),
    },
    "squeezenet1_1": {
        "features.3.squeeze.weight": (16, 64, 1, 1),
        "features.12.expand3x3.bias": (256,),
        "classifier.1.weight": (1000, 512, 1, 1),
    },
    "vgg19_bn": {
        "features.49.weight": (512, 512, 3, 3),
        "features.50.running_mean": (512,),
        "classifier.6.bias": (1000,),
    },
    "wide_resnet50_2": {"layer4.0.conv2.weight": (1024, 1024, 3, 3)},
}


@pytest.fixture
def without_contents() -> Iterator[None]:
    """Contents are not drawn: a hundred million random numbers take seconds."""
    with init.skipped():
        yield


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_size_is_the_published_one(name: str) -> None:
    parameters, multiply_adds = PUBLISHED[name]
    entry = entries()[name]
    assert entry.parameters == parameters
    # Published counts leave norms, poolings and rectifiers out.
    assert entry.flops == pytest.approx(2e9 * multiply_adds, rel=0.06)


@pytest.mark.parametrize("name", list(PUBLISHED_PARAMETERS))
def test_size_is_that_of_the_paper(name: str) -> None:
    assert entries()[name].parameters == PUBLISHED_PARAMETERS[name]


@pytest.mark.usefixtures("without_contents")
@pytest.mark.parametrize("name", list(KEYS))
def test_state_dict_has_keys_of_torchvision(name: str) -> None:
    state = entries()[name].build().state_dict()
    assert {key: state[key].shape for key in KEYS[name]} == KEYS[name]


@pytest.mark.usefixtures("without_contents")
def test_auxiliary_classifiers_are_outputs_of_training() -> None:
    x = qn.spec(2, 3, 96, 96)
    graph = qn.trace(GoogLeNet(10), x, training=True)
    assert list(graph.outputs) == ["logits", "aux_logits2", "aux_logits1"]
    assert {graph.type_of(v) for v in graph.outputs.values()} == {qn.spec(2, 10)}
    without = GoogLeNet(10, aux_logits=False)
    assert not any(key.startswith("aux") for key in without.state_dict())

    graph = qn.trace(InceptionV3(10), qn.spec(2, 3, 299, 299), training=True)
    assert {k: graph.type_of(v) for k, v in graph.outputs.items()} == {
        "logits": qn.spec(2, 10),
        "aux_logits": qn.spec(2, 10),
    }


# -- the same numbers as NumPy --------------------------------------------------------------------


def arranged(name: str) -> Any:
    return pytest.param(lambda: ArrangedResNet(1, name), (2, 3, 16, 16), id=name)


SMALL = [
    pytest.param(
        lambda: BottleneckResNet((1, 1, 1, 1), 4, 4, num_classes=10), (2, 3, 40, 40), id="resnext"
    ),
    pytest.param(lambda: DenseNet((2, 2), 4, num_classes=10), (2, 3, 32, 32), id="densenet"),
    pytest.param(LeNet1989, (2, 1, 16, 16), id="lenet_1989"),
    arranged("relu_only_preactivation"),
    arranged("full_preactivation"),
    pytest.param(
        lambda: ArrangedResNet(1, "full_preactivation", convolutions=BOTTLENECK),
        (2, 3, 16, 16),
        id="resnet164",
    ),
    pytest.param(lambda: Hypercolumns(3, 16), (1, 3, 32, 32), id="hypercolumns"),
    pytest.param(lambda: HeatmapDetector(3), (1, 3, 32, 40), id="heatmap_detector"),
    pytest.param(lambda: context_module(BASIC, 4), (1, 4, 12, 12), id="context_basic"),
]


@pytest.mark.parametrize(("build", "shape"), SMALL)
def test_compiled_network_agrees_with_numpy(
    build: Callable[[], Module], shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    network = lively(build(), rng).eval()
    graph = qn.trace(network, qn.spec(*shape))
    x = rng.standard_normal(shape, np.float32)
    expected = qn.interpret(graph, x)
    assert expected.std() > 1e-2
    compiled = qn.compile(graph)
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-4, atol=1e-4 * expected.std())
    assert np.abs(compiled(x[..., ::-1]) - expected).max() > 1e-3 * expected.std()


# -- what papers say of their networks ------------------------------------------------------------


def test_original_arrangement_is_the_residual_network(rng: np.random.Generator) -> None:
    network, plain = ArrangedResNet(2, "original").eval(), CifarResNet(2).eval()
    lively(network, rng)
    # Both hold their states in the order of the figure.
    pairs = zip(plain.state_dict(), network.state_dict().values(), strict=True)
    plain.load_state_dict(dict(pairs))
    x = rng.standard_normal((1, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(
        qn.interpret(qn.trace(network, x), x), qn.interpret(qn.trace(plain, x), x)
    )


def test_preactivation_leaves_the_shortcut_alone() -> None:
    """Without branches, a network of pre-activated units only activates once, at its end."""
    network = ArrangedResNet(2, "full_preactivation").eval()
    for name, parameter in network.named_parameters():
        if "branch" in name:
            init.zeros_(parameter)
    stem = network.stem
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    last = qn.interpret(qn.trace(lambda v: network.layer1(stem(v)), x, training=False), x)
    first = qn.interpret(qn.trace(stem, x), x)
    np.testing.assert_array_equal(last, first)


def test_context_module_starts_as_the_identity(rng: np.random.Generator) -> None:
    scores = rng.random((1, 2, 9, 9), np.float32)
    for widths in (BASIC, LARGE):
        module = context_module(widths, 2, noise=0.0)
        got = qn.interpret(qn.trace(module, scores), scores)
        np.testing.assert_allclose(got, scores, rtol=1e-5)


def test_upsampling_starts_as_bilinear_interpolation() -> None:
    ramp = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6).repeat(3, axis=2)
    up = qn.interpret(qn.trace(Upsample(1, 4), ramp), ramp)
    # Away from the border, which reads zeros, pixel centres are 1/4 apart.
    expected = (np.arange(28) + 0.5) / 4 - 1
    np.testing.assert_allclose(up[0, 0, 8, 4:-4], expected[4:-4], atol=1e-6)


@pytest.mark.usefixtures("without_contents")
def test_fully_convolutional_network_gives_a_score_for_every_pixel() -> None:
    graph = qn.trace(FCN(8, 5), qn.spec(1, 3, 33, 70), training=False)
    assert graph.type_of(graph.outputs["output"]) == qn.spec(1, 5, 33, 70)
