"""What is done to modules and their parameters: vectors, parametrizations, pruning, fusion."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

import quern as qn
from quern import nn
from quern.compiler.errors import QuernError, ShapeError, UsageError
from quern.nn import utils
from quern.nn.utils import parametrizations, parametrize, prune

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)


def trained(layer: nn.Module, *data: Any, steps: int = 2) -> nn.Module:
    trainer = qn.Trainer(layer, loss=nn.MSELoss(), optimizer=qn.optim.SGD(0.1))
    trainer.fit(data, steps=steps, batch_size=len(data[0]), quiet=True)
    return layer


# -- vectors --------------------------------------------------------------------------------------


def test_parameters_are_a_vector_and_come_from_one() -> None:
    layer = nn.Linear(4, 3)
    vector = utils.parameters_to_vector(layer.parameters())
    expected = np.concatenate([layer.weight.data.reshape(-1), layer.bias.data])
    np.testing.assert_array_equal(vector, expected)
    utils.vector_to_parameters(np.arange(15), layer.parameters())
    np.testing.assert_array_equal(layer.bias, [12, 13, 14])
    with pytest.raises(ShapeError, match="15 elements, the vector has 3"):
        utils.vector_to_parameters(np.ones(3), layer.parameters())

    def penalty(x: Any) -> Any:
        return layer(x).sum() + utils.parameters_to_vector(layer.parameters()).square().sum()

    layer = nn.Linear(4, 3)
    total = (X @ layer.weight.data.T + layer.bias.data).sum() + (
        utils.parameters_to_vector(layer.parameters()) ** 2
    ).sum()
    np.testing.assert_allclose(qn.compile(penalty, qn.spec(X))(X), total, rtol=1e-4)


# -- parametrizations -----------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).transpose(-1, -2)


def test_a_weight_is_what_a_module_makes_of_it() -> None:
    layer = nn.Linear(4, 4, bias=False)
    before = layer.weight.data.copy()
    parametrize.register_parametrization(layer, "weight", Symmetric())
    symmetric = np.triu(before) + np.triu(before, 1).T
    np.testing.assert_array_equal(layer.weight, symmetric)
    np.testing.assert_allclose(layer(X), X @ symmetric, rtol=1e-4, atol=1e-6)
    assert list(layer.state_dict()) == ["parametrizations.weight.original"]
    trained(layer, X, X[:, ::-1].copy())
    weight = np.array(layer.weight)
    assert (weight != symmetric).any()
    np.testing.assert_array_equal(weight, weight.T)
    copied = deepcopy(layer)
    copied.parametrizations.weight.original.zero_()
    assert not np.any(copied.weight)
    assert np.any(layer.weight)
    parametrize.remove_parametrizations(layer, "weight")
    assert not parametrize.is_parametrized(layer)
    assert isinstance(layer.weight, nn.Parameter)
    np.testing.assert_array_equal(layer.weight, weight)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_is_length_and_direction(dim: int | None) -> None:
    layer = nn.Conv2d(3, 4, 3)
    plain = layer(IMAGE)
    weight = layer.weight.data
    assert utils.weight_norm(layer, dim=dim) is layer
    np.testing.assert_allclose(layer(IMAGE), plain, rtol=1e-4, atol=1e-5)
    g = layer.parametrizations.weight.original0
    axes = None if dim is None else tuple(d for d in range(4) if d != dim)
    np.testing.assert_allclose(np.squeeze(g.data), np.sqrt((weight**2).sum(axes)), rtol=1e-5)
    g.data *= 2
    np.testing.assert_allclose(layer.weight, 2 * weight, rtol=1e-4, atol=1e-6)


def test_spectral_norm_is_one() -> None:
    layer = parametrizations.spectral_norm(nn.Linear(4, 6))
    for _ in range(20):
        layer(X)
    assert abs(np.linalg.svd(layer.eval().weight, compute_uv=False)[0] - 1) < 1e-3
    u = layer.parametrizations.weight[0]._u.data.copy()
    layer(X)
    np.testing.assert_array_equal(layer.parametrizations.weight[0]._u, u)  # in inference
    trained(layer.train(), X, np.ones((5, 6), np.float32), steps=30)
    assert abs(np.linalg.svd(layer.eval().weight, compute_uv=False)[0] - 1) < 1e-2
    transposed = utils.spectral_norm(nn.ConvTranspose2d(3, 5, 2))
    assert transposed.parametrizations.weight[0]._u.shape == (5,)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_weights_are_parametrized_too(kind: str) -> None:
    layer = getattr(nn, kind)(4, 5)
    plain, _ = layer(X)
    utils.weight_norm(layer, "weight_hh_l0")
    np.testing.assert_allclose(layer(X)[0], plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_parametrizations_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn.utils.parametrizations, name)(torch.nn.Conv2d(3, 4, 3))
    ours = getattr(parametrizations, name)(nn.Conv2d(3, 4, 3))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.tensor(IMAGE, requires_grad=True)
    expected = theirs(x)
    (expected**2).sum().backward()

    def network(x: Any) -> Any:
        y = ours(x)
        wrt = [x, *ours.parameters()]
        return y, *qn.autograd.grad((y**2).sum(), wrt)

    y, by_x, *others = qn.interpret(qn.trace(network, IMAGE, training=True), IMAGE)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_x, x.grad.numpy(), rtol=1e-3, atol=1e-4)
    slopes = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    for (key, _), slope in zip(ours.named_parameters(), others, strict=True):
        np.testing.assert_allclose(slope, slopes[key], rtol=1e-3, atol=1e-3)


# -- pruning --------------------------------------------------------------------------------------


def test_the_smallest_elements_are_pruned_again_and_again() -> None:
    layer = nn.Linear(4, 5)
    before = layer.weight.data.copy()
    assert prune.l1_unstructured(layer, "weight", amount=0.5) is layer
    kept = np.abs(before) >= np.sort(np.abs(before).reshape(-1))[10]
    np.testing.assert_array_equal(layer.weight, before * kept)
    assert sorted(layer.state_dict()) == ["bias", "weight_mask", "weight_orig"]
    trained(layer, X, X @ np.ones((4, 5), np.float32))
    assert not np.any(np.array(layer.weight)[~kept])
    assert np.all(np.array(layer.weight)[kept])
    np.testing.assert_allclose(layer(X), X @ layer.weight.T + layer.bias.data, rtol=1e-4, atol=1e-6)
    prune.l1_unstructured(layer, "weight", amount=0.5)  # of what is left
    assert np.count_nonzero(layer.weight) == 5
    prune.random_unstructured(layer, "weight", amount=2)
    assert np.count_nonzero(layer.weight) == 3
    final = np.array(layer.weight)
    assert prune.is_pruned(nn.Sequential(layer))
    prune.remove(layer, "weight")
    assert not prune.is_pruned(layer)
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    np.testing.assert_array_equal(layer.weight, final)


def test_whole_channels_are_pruned() -> None:
    layer = nn.Conv2d(3, 6, 3)
    norms = np.abs(layer.weight.data).sum((1, 2, 3))
    prune.ln_structured(layer, "weight", amount=2, n=1, dim=0)
    np.testing.assert_array_equal(
        np.abs(layer.weight).sum((1, 2, 3)) == 0, norms < np.sort(norms)[2]
    )
    prune.random_structured(layer, "weight", amount=0.5, dim=1)
    assert (np.abs(layer.weight).sum((0, 2, 3)) == 0).sum() == 2


def test_several_parameters_are_pruned_together() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    net[1].weight.data += 100
    listed = [(net[0], "weight"), (net[1], "weight")]
    prune.global_unstructured(listed, pruning_method=prune.L1Unstructured, amount=0.5)
    assert np.count_nonzero(net[0].weight) == 5
    assert np.count_nonzero(net[1].weight) == 10
    prune.identity(net[0], "bias")
    np.testing.assert_array_equal(net[0].bias_mask, np.ones(5))
    with pytest.raises(UsageError, match="prunes no parameters together"):
        prune.global_unstructured(listed, prune.ln_structured, amount=0.5)


def test_a_mask_of_another_kind_is_no_pruning() -> None:
    layer = nn.Linear(4, 5)
    layer.register_buffer("attention_mask", np.ones(3))
    assert not prune.is_pruned(layer)


def test_pruning_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    there = pytest.importorskip("torch.nn.utils.prune")
    for name, options in (
        ("l1_unstructured", {"amount": 0.3}),
        ("ln_structured", {"amount": 0.5, "n": 2, "dim": 1}),
    ):
        theirs, ours = torch.nn.Linear(6, 5), nn.Linear(6, 5)
        ours.load_state_dict(theirs.state_dict())
        for _ in range(2):
            getattr(there, name)(theirs, "weight", **options)
            getattr(prune, name)(ours, "weight", **options)
            np.testing.assert_array_equal(ours.weight_mask, theirs.weight_mask.numpy())
        assert sorted(ours.state_dict()) == sorted(theirs.state_dict())


# -- fusion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_joins_the_layer_before_it(affine: bool) -> None:
    rng = np.random.default_rng(2)
    for layer, x, fuse in (
        (nn.Conv2d(3, 4, 3, bias=False), IMAGE, utils.fuse_conv_bn_eval),
        (nn.ConvTranspose2d(3, 4, 3), IMAGE, utils.fuse_conv_bn_eval),
        (nn.Linear(4, 4), X, utils.fuse_linear_bn_eval),
    ):
        norm = (nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d)(4, affine=affine)
        for state in norm.buffers():
            if state.dtype.is_float:
                state.copy_(rng.uniform(0.5, 2, 4))
        net = nn.Sequential(layer, norm).eval()
        fused = fuse(layer, norm)
        np.testing.assert_allclose(fused(x), net(x), rtol=1e-4, atol=1e-5)
        assert fused is not layer


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: utils.clip_grad_norm_([], 1.5), UsageError, "clip_grad_norm=1.5"),
        (lambda: utils.clip_grad_value_([], 0.5), UsageError, "clip_grad_value=0.5"),
        (
            lambda: utils.fuse_conv_bn_eval(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            UsageError,
            r"\.eval\(\)",
        ),
        (lambda: utils.weight_norm(nn.Linear(2, 2), "mass"), UsageError, "it has weight, bias"),
        (lambda: prune.l1_unstructured(nn.Linear(2, 2), "mass", 1), UsageError, "weight, bias"),
        (lambda: prune.l1_unstructured(nn.Linear(2, 2), "weight", 9), UsageError, "9 of 4"),
        (lambda: prune.remove(nn.Linear(2, 2), "weight"), UsageError, "is not pruned"),
        (lambda: nn.ReLU().register_full_backward_hook, AttributeError, "autograd"),
    ],
)
def test_what_is_wrong(action: Any, error: type[QuernError], message: str) -> None:
    with pytest.raises(error, match=message):
        action()
