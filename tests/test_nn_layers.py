"""Every layer against PyTorch's of the same name: keys, printing, outputs in both modes."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import ShapeError, UsageError

torch = pytest.importorskip("torch")

IMAGE = (2, 6, 9, 8)
SIGNAL = (2, 6, 11)
VOLUME = (2, 6, 5, 6, 7)
ROWS = (3, 6)

# Each is a layer as both libraries spell it, and the shape of its input.
LAYERS: list[tuple[str, tuple[int, ...]]] = [
    ("Linear(6, 4)", ROWS),
    ("Linear(6, 4, bias=False)", (2, 3, 6)),
    ("Conv1d(6, 4, 3)", SIGNAL),
    ("Conv1d(6, 4, 3, padding='same', dilation=2)", SIGNAL),
    ("Conv2d(6, 4, 3)", IMAGE),
    ("Conv2d(6, 4, 3)", (6, 9, 8)),
    ("Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False)", IMAGE),
    ("Conv2d(6, 6, 4, padding='same', groups=3)", IMAGE),
    ("Conv2d(6, 4, 3, padding='valid', dilation=(2, 1))", IMAGE),
    ("Conv2d(6, 4, 3, padding=1, padding_mode='reflect')", IMAGE),
    ("Conv2d(6, 4, 3, padding=(2, 1), padding_mode='replicate')", IMAGE),
    ("Conv2d(6, 4, 4, padding='same', padding_mode='circular')", IMAGE),
    ("Conv3d(6, 4, 3, stride=2, padding=1)", VOLUME),
    ("ConvTranspose1d(6, 4, 3, stride=2)", SIGNAL),
    ("ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2)", IMAGE),
    ("ConvTranspose2d(6, 4, (2, 3), dilation=2, bias=False)", IMAGE),
    ("ConvTranspose3d(6, 4, 2, stride=2)", VOLUME),
    ("MaxPool1d(3)", SIGNAL),
    ("MaxPool2d(3, 2, 1)", IMAGE),
    ("MaxPool2d(2, ceil_mode=True)", IMAGE),
    ("MaxPool2d((3, 2), stride=1, dilation=(2, 1))", (6, 9, 8)),
    ("MaxPool3d(2)", VOLUME),
    ("AvgPool1d(3, 2, 1)", SIGNAL),
    ("AvgPool2d(3, 2, 1, count_include_pad=False)", IMAGE),
    ("AvgPool2d(2, ceil_mode=True, divisor_override=3)", IMAGE),
    ("AvgPool3d(2)", VOLUME),
    ("AdaptiveAvgPool1d(3)", SIGNAL),
    ("AdaptiveAvgPool2d((1, 1))", IMAGE),
    ("AdaptiveAvgPool2d((None, 3))", IMAGE),
    ("AdaptiveAvgPool3d(2)", VOLUME),
    ("AdaptiveMaxPool1d(4)", SIGNAL),
    ("AdaptiveMaxPool2d((3, 5))", IMAGE),
    ("AdaptiveMaxPool3d((2, None, 3))", VOLUME),
    ("BatchNorm1d(6)", ROWS),
    ("BatchNorm1d(6, momentum=None)", SIGNAL),
    ("BatchNorm2d(6, eps=1e-3, momentum=0.3)", IMAGE),
    ("BatchNorm2d(6, affine=False)", IMAGE),
    ("BatchNorm2d(6, track_running_stats=False)", IMAGE),
    ("BatchNorm3d(6)", VOLUME),
    ("InstanceNorm1d(6)", SIGNAL),
    ("InstanceNorm2d(6, affine=True)", IMAGE),
    ("InstanceNorm2d(6, affine=True)", (6, 9, 8)),
    ("InstanceNorm2d(6, track_running_stats=True)", IMAGE),
    ("InstanceNorm3d(6, momentum=None, track_running_stats=True)", VOLUME),
    ("LayerNorm(6)", ROWS),
    ("LayerNorm((9, 8), eps=1e-3)", IMAGE),
    ("LayerNorm(8, bias=False)", IMAGE),
    ("LayerNorm(8, elementwise_affine=False)", IMAGE),
    ("RMSNorm(6)", ROWS),
    ("RMSNorm((9, 8), eps=1e-3)", IMAGE),
    ("GroupNorm(3, 6)", IMAGE),
    ("GroupNorm(2, 6, affine=False)", SIGNAL),
    ("GroupNorm(2, 6, bias=False)", SIGNAL),
    ("BatchNorm2d(6, bias=False)", IMAGE),
    ("InstanceNorm2d(6, affine=True, bias=False)", IMAGE),
    ("LocalResponseNorm(3)", IMAGE),
    ("LocalResponseNorm(4, alpha=0.5, beta=0.5, k=2.0)", IMAGE),
    ("Threshold(0.3, 20)", ROWS),
    ("Hardshrink(0.7)", ROWS),
    ("Softshrink()", ROWS),
    ("Tanhshrink()", ROWS),
    ("CELU(0.5)", ROWS),
    ("GLU()", ROWS),
    ("GLU(1)", IMAGE),
    ("Unfold((2, 3), dilation=2, padding=1, stride=(2, 1))", IMAGE),
    ("Fold((5, 6), 2, stride=2, padding=(1, 0))", (2, 8, 9)),
    ("ReLU()", ROWS),
    ("ReLU(inplace=True)", ROWS),
    ("ReLU6()", ROWS),
    ("LeakyReLU(0.2)", ROWS),
    ("LeakyReLU(0.2, inplace=True)", ROWS),
    ("PReLU()", ROWS),
    ("PReLU(6)", IMAGE),
    ("ELU(0.5)", ROWS),
    ("SELU()", ROWS),
    ("GELU()", ROWS),
    ("GELU('tanh')", ROWS),
    ("SiLU()", ROWS),
    ("Mish()", ROWS),
    ("Softplus(2, 3)", ROWS),
    ("Softsign()", ROWS),
    ("Sigmoid()", ROWS),
    ("LogSigmoid()", ROWS),
    ("Tanh()", ROWS),
    ("Hardtanh(-0.5, 0.25)", ROWS),
    ("Hardsigmoid()", ROWS),
    ("Hardswish()", ROWS),
    ("Softmax(dim=1)", IMAGE),
    ("Softmin(dim=-1)", IMAGE),
    ("Softmax2d()", IMAGE),
    ("LogSoftmax(dim=0)", ROWS),
    ("Flatten()", IMAGE),
    ("Flatten(2, 3)", IMAGE),
    ("Unflatten(1, (2, 3))", IMAGE),
    ("Identity()", ROWS),
    ("PixelShuffle(2)", (2, 8, 3, 4)),
    ("PixelUnshuffle(2)", (2, 3, 4, 6)),
    ("ChannelShuffle(3)", IMAGE),
    ("UpsamplingNearest2d(scale_factor=2)", IMAGE),
    ("Upsample(scale_factor=(2, 1.5))", IMAGE),
    ("UpsamplingBilinear2d(scale_factor=2)", IMAGE),
    ("Upsample(7)", SIGNAL),
    ("Upsample(7, mode='linear')", SIGNAL),
    ("Upsample(scale_factor=2, mode='trilinear', align_corners=True)", VOLUME),
    ("Upsample((5, 12, 3))", VOLUME),
    ("ZeroPad1d(2)", SIGNAL),
    ("ZeroPad2d((1, 2, 0, 3))", IMAGE),
    ("ZeroPad2d((-1, 2, 0, -3))", IMAGE),
    ("ZeroPad3d(1)", VOLUME),
    ("ConstantPad2d((1, 0, 2, 1), 3.5)", IMAGE),
    ("ReflectionPad1d(3)", SIGNAL),
    ("ReflectionPad2d((1, 2, 0, 3))", IMAGE),
    ("ReplicationPad2d((1, 2, 0, 3))", IMAGE),
    ("ReplicationPad3d(2)", VOLUME),
    ("CircularPad2d((1, 2, 0, 3))", IMAGE),
    ("Dropout(0.0)", ROWS),
    ("AlphaDropout(0.0)", ROWS),
    ("FeatureAlphaDropout(0.0)", IMAGE),
    ("RReLU(0.2, 0.2)", ROWS),
    ("LPPool1d(3.0, 3)", SIGNAL),
    ("LPPool2d(2, (3, 2), stride=(2, 1), ceil_mode=True)", IMAGE),
    ("LPPool3d(1, 2)", VOLUME),
]


def pair(source: str) -> tuple[nn.Module, Any]:
    """The layer in both libraries, with the same random state."""
    own = eval(f"nn.{source}", {"nn": nn})
    other = eval(f"nn.{source}", {"nn": torch.nn})
    rng = np.random.default_rng(1)
    state = {}
    for key, value in other.state_dict().items():
        state[key] = value
        if value.is_floating_point():
            state[key] = torch.from_numpy(rng.uniform(0.5, 1.5, value.shape).astype(np.float32))
    other.load_state_dict(state)
    own.load_state_dict(state)
    return own, other


def run(other: Any, *arrays: np.ndarray[Any, Any]) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's hints on its own speed
        return other(*(torch.from_numpy(a.copy()) for a in arrays))


@pytest.mark.parametrize(("source", "shape"), LAYERS)
def test_a_layer_computes_keeps_and_prints_what_pytorchs_does(
    source: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    own, other = pair(source)
    assert list(own.state_dict()) == list(other.state_dict())
    assert repr(own) == repr(other)
    for training in (True, True, False):  # twice, for what statistics remember
        x = rng.standard_normal(shape, np.float32)
        own.train(training)
        other.train(training)
        assert_close(own(x), run(other, x).numpy())
        for key, value in other.state_dict().items():
            assert_close(own.state_dict()[key], value.numpy())


def assert_close(actual: Any, expected: Any) -> None:
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)


LOSSES: list[tuple[str, str]] = [
    ("CrossEntropyLoss()", "classes"),
    ("CrossEntropyLoss(label_smoothing=0.1, ignore_index=2)", "classes"),
    ("CrossEntropyLoss(reduction='sum')", "shares"),
    ("NLLLoss(reduction='none')", "classes"),
    ("MSELoss()", "floats"),
    ("MSELoss(reduction='sum')", "floats"),
    ("L1Loss(reduction='none')", "floats"),
    ("SmoothL1Loss(beta=0.5)", "floats"),
    ("HuberLoss(delta=0.3)", "floats"),
    ("BCELoss()", "bits"),
    ("BCEWithLogitsLoss()", "bits"),
    ("KLDivLoss(reduction='batchmean')", "shares"),
    ("KLDivLoss(log_target=True, reduction='sum')", "floats"),
    ("MultiMarginLoss(p=2, margin=0.5)", "classes"),
    ("MultiLabelSoftMarginLoss()", "bits"),
    ("MultiLabelMarginLoss()", "several"),
    ("MultiLabelMarginLoss(reduction='none')", "several"),
    ("MultiLabelSoftMarginLoss(reduction='none')", "bits"),
    ("HingeEmbeddingLoss(0.5)", "signs"),
    ("SoftMarginLoss(reduction='sum')", "signs"),
    ("PoissonNLLLoss()", "bits"),
    ("PoissonNLLLoss(log_input=False, full=True)", "counts"),
]


@pytest.mark.parametrize(("source", "kind"), LOSSES)
def test_a_loss_is_pytorchs(source: str, kind: str, rng: np.random.Generator) -> None:
    own, other = pair(source)
    assert repr(own) == repr(other)
    x = rng.uniform(0.05, 0.95, (7, 5)).astype(np.float32)
    targets = {
        "classes": rng.integers(0, 5, 7),
        "shares": rng.dirichlet(np.ones(5), 7).astype(np.float32),
        "floats": rng.standard_normal((7, 5), np.float32),
        "bits": rng.integers(0, 2, (7, 5)).astype(np.float32),
        "signs": rng.choice([-1, 1], (7, 5)).astype(np.float32),
        "counts": rng.integers(0, 9, (7, 5)).astype(np.float32),
        "several": np.stack([rng.permutation(np.arange(-2, 3)).clip(-1) for _ in range(7)]),
    }
    assert_close(own(x, targets[kind]), run(other, x, targets[kind]).numpy())


@pytest.mark.parametrize(
    "source", ["CrossEntropyLoss({})", "NLLLoss({})", "MultiMarginLoss(weight={})"]
)
def test_weights_of_classes_are_kept_in_the_state(source: str, rng: np.random.Generator) -> None:
    weight = rng.uniform(0.5, 2, 5).astype(np.float32)
    own = eval(f"nn.{source.format('w')}", {"nn": nn, "w": weight})
    other = eval(f"nn.{source.format('w')}", {"nn": torch.nn, "w": torch.from_numpy(weight)})
    x, target = rng.standard_normal((7, 5), np.float32), rng.integers(0, 5, 7)
    assert list(own.state_dict()) == list(other.state_dict()) == ["weight"]
    assert_close(own(x, target), run(other, x, target).numpy())


def test_binary_losses_take_weights(rng: np.random.Generator) -> None:
    x, target = rng.standard_normal((7, 5), np.float32), np.ones((7, 5), np.float32)
    weight, positive = (rng.uniform(0.5, 2, 5).astype(np.float32) for _ in range(2))
    tensors = [torch.from_numpy(a) for a in (weight, positive)]
    own = nn.BCEWithLogitsLoss(weight, pos_weight=positive)
    other = torch.nn.BCEWithLogitsLoss(tensors[0], pos_weight=tensors[1])
    assert_close(own(x, target), run(other, x, target).numpy())
    chance = 1 / (1 + np.exp(-x))
    assert_close(
        nn.BCELoss(weight)(chance, target),
        run(torch.nn.BCELoss(tensors[0]), chance, target).numpy(),
    )


def test_layers_of_two_inputs(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((4, 3), np.float32), rng.standard_normal((4, 5), np.float32)
    own, other = pair("Bilinear(3, 5, 2)")
    assert_close(own(a, b), run(other, a, b).numpy())
    c, sign = a[::-1].copy(), np.array([1, -1, 1, -1], np.float32)
    own, other = pair("CosineSimilarity(dim=1)")
    assert_close(own(a, c), run(other, a, c).numpy())
    own, other = pair("PairwiseDistance(3, keepdim=True)")
    assert_close(own(a, c), run(other, a, c).numpy())
    own, other = pair("MarginRankingLoss(0.4)")
    assert_close(own(a[:, 0], c[:, 0], sign), run(other, a[:, 0], c[:, 0], sign).numpy())
    own, other = pair("TripletMarginLoss(2, p=1, swap=True)")
    assert_close(own(a, c, a * c), run(other, a, c, a * c).numpy())
    own, other = pair("GaussianNLLLoss(full=True)")
    assert_close(own(a, c, a * a), run(other, a, c, a * a).numpy())
    own, other = pair("CosineEmbeddingLoss(margin=0.2)")
    assert_close(own(a, c, sign), run(other, a, c, sign).numpy())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling_puts_maxima_back(rank: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, *(6, 8, 4)[:rank]), np.float32)
    own, other = pair(f"MaxPool{rank}d(2, return_indices=True)")
    (y, indices), expected = own(x), run(other, x)
    assert_close(y, expected[0].numpy())
    assert_close(indices, expected[1].numpy())
    unpool, reference = pair(f"MaxUnpool{rank}d(2)")
    assert repr(unpool) == repr(reference)
    assert_close(unpool(y, indices), run(reference, y, indices).numpy())


def test_transposed_convolution_takes_the_size_it_is_to_give(rng: np.random.Generator) -> None:
    own, other = pair("ConvTranspose2d(3, 2, 3, stride=2, padding=1)")
    x = rng.standard_normal((1, 3, 4, 5), np.float32)
    with torch.no_grad():
        expected = other(torch.from_numpy(x), output_size=(8, 9)).numpy()
    assert_close(own(x, output_size=(8, 9)), expected)


def test_one_process_has_the_whole_batch() -> None:
    """What is converted computes what it did, from the same parameters, and says what it is."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sequential(nn.BatchNorm2d(6, momentum=0.2)))
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 6), np.float32)
    plain, weight = deepcopy(network), network[1][0].weight
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert converted is network
    assert repr(network[1][0]) == repr(plain[1][0]).replace("BatchNorm2d", "SyncBatchNorm")
    assert network[1][0].weight is weight
    np.testing.assert_array_equal(network(x), plain(x))
    for a, b in zip(network.state_dict().values(), plain.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(2)), nn.SyncBatchNorm)


def test_embedding_looks_rows_up(rng: np.random.Generator) -> None:
    own, other = pair("Embedding(9, 4, padding_idx=-2)")
    assert repr(own) == repr(other)
    indices = rng.integers(0, 9, (2, 5))
    assert_close(own(indices), run(other, indices).numpy())


@pytest.mark.parametrize("freeze", [False, True])
def test_embedding_of_given_rows(freeze: bool, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((5, 3), np.float32)
    made = nn.Embedding.from_pretrained(rows, freeze=freeze, padding_idx=1)
    np.testing.assert_array_equal(made(np.array([4, 1])), rows[[4, 1]])
    assert made.weight.requires_grad != freeze
    assert not np.shares_memory(made.weight.data, rows)
    with pytest.raises(ShapeError, match=r"rows of a matrix, got \(3,\)"):
        nn.Embedding.from_pretrained(rows[0])


def test_local_contrast_is_removed() -> None:
    flat = nn.LocalContrastNorm(kernel_size=5)(np.full((1, 2, 7, 7), 3.0, np.float32))
    np.testing.assert_allclose(flat, 0, atol=1e-2)


def test_half_squared_error_is_half_a_distance_squared() -> None:
    x, target = np.array([[1, 2], [0, 0]], np.float32), np.array([[0, 0], [3, 4]], np.float32)
    assert nn.HalfSquaredErrorLoss()(x, target) == (2.5 + 12.5) / 2
    assert nn.HingeLoss()(np.array([2, 0.5], np.float32), np.array([1, -1], np.float32)) == 0.75


def test_what_is_no_tensor_is_refused() -> None:
    network = nn.Sequential(nn.LSTM(4, 3), nn.Linear(3, 2))
    with pytest.raises(UsageError, match="Linear takes a tensor, got a tuple; take one"):
        qn.trace(network, qn.spec(2, 5, 4))


@pytest.mark.parametrize("size", ["x", None, (1.5, 2)])
def test_sizes_are_whole_numbers(size: Any) -> None:
    with pytest.raises(UsageError, match="kernel_size is a whole number or several, not"):
        nn.Conv2d(1, 2, size)
