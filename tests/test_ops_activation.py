"""Activation functions: formulas, kinks, infinities and NaN, PyTorch where it is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck import run_gradients
from hypothesis import given
from hypothesis import strategies as st
from op_cases import Case, cases, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import activation as act
from quern.compiler.ops.base import Op, apply
from quern.compiler.types import Array

X = spread((2, 3, 2), high=7.3)
SLOPES = spread((3,), seed=1)


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[float])(x)


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


def softmax(x: Array, axis: int) -> Array:
    return np.exp(x) / np.exp(x).sum(axis, keepdims=True)


def gelu_by_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


CASES = [
    cases(act.LeakyRelu(), lambda x: np.where(x > 0, x, 0.01 * x), X),
    cases(act.LeakyRelu(0.3), lambda x: np.where(x > 0, x, 0.3 * x), X),
    cases(act.PRelu(), lambda x, w: np.where(x > 0, x, w[:, None] * x), X, SLOPES),
    cases(act.PRelu(), lambda x, w: np.where(x > 0, x, w * x), X, SLOPES[:1]),
    cases(act.PRelu(), lambda x, w: np.where(x > 0, x, w * x), X[0, 0], spread(())),
    cases(act.Clip(-1.0, 2.0), lambda x: np.clip(x, -1, 2), X),
    cases(act.Clip(low=0.5), lambda x: np.maximum(x, 0.5), X),
    cases(act.Clip(high=0.5), lambda x: np.minimum(x, 0.5), X),
    cases(act.Clip(), lambda x: x, X),
    cases(act.HardTanh(), lambda x: np.clip(x, -1, 1), X),
    cases(act.HardSigmoid(), lambda x: relu6(x + 3) / 6, X),
    cases(act.HardSwish(), lambda x: x * relu6(x + 3) / 6, X),
    cases(act.Elu(), lambda x: np.where(x > 0, x, np.exp(x) - 1), X),
    cases(act.Elu(0.3), lambda x: np.where(x > 0, x, 0.3 * (np.exp(x) - 1)), X),
    cases(
        act.Selu(),
        lambda x: 1.0507009873554804934193349852946
        * np.where(x > 0, x, 1.6732632423543772848170429916717 * (np.exp(x) - 1)), X,
    ),
    cases(act.Softplus(), softplus, X),
    cases(act.Softplus(2.0, 4.0), lambda x: np.where(2 * x > 4, x, softplus(2 * x) / 2), X),
    cases(act.Softplus(1.0, math.inf), softplus, X),
    cases(act.Gelu(), lambda x: x * (1 + erf(x / np.sqrt(2))) / 2, X),
    cases(act.Gelu(act.GeluForm.TANH), gelu_by_tanh, X),
    cases(act.Silu(), lambda x: x / (1 + np.exp(-x)), X),
    cases(act.Mish(), lambda x: x * np.tanh(softplus(x)), X),
    cases(act.Softsign(), lambda x: x / (1 + np.abs(x)), X),
    cases(act.LogSigmoid(), lambda x: -softplus(-x), X),
    cases(act.Softmax(1), lambda x: softmax(x, 1), X),
    cases(act.Softmax(0), lambda x: softmax(x, 0), X[0, 0]),
    cases(act.LogSoftmax(2), lambda x: np.log(softmax(x, 2)), X),
    cases(act.LogSoftmax(0), lambda x: np.log(softmax(x, 0)), X),
]  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if len(c.inputs) == 1], ids=str)
def test_empty_values_stay_empty(case: Case) -> None:
    assert value_of(case.op, np.zeros((2, 0, 3))).shape == (2, 0, 3)
    (dx,) = run_gradients(lambda t: apply(case.op, t), np.zeros((2, 0, 3)), np.zeros((2, 0, 3)))
    assert dx is not None
    assert dx.shape == (2, 0, 3)


def torch_functions() -> list[tuple[Op, Callable[[Any], Any]]]:
    f = pytest.importorskip("torch").nn.functional
    return [
        (act.LeakyRelu(), f.leaky_relu),
        (act.LeakyRelu(0.0), lambda x: f.leaky_relu(x, 0.0)),
        (act.Clip(-3.0, 3.0), lambda x: x.clamp(-3, 3)),
        (act.Clip(low=3.0), lambda x: x.clamp(min=3)),
        (act.HardTanh(), f.hardtanh),
        (act.HardTanh(0.0, 6.0), f.relu6),
        (act.HardSigmoid(), f.hardsigmoid),
        (act.HardSwish(), f.hardswish),
        (act.Elu(0.5), lambda x: f.elu(x, 0.5)),
        (act.Selu(), f.selu),
        (act.Softplus(), f.softplus),
        (act.Softplus(2.0, 5.0), lambda x: f.softplus(x, 2.0, 5.0)),
        (act.Gelu(), f.gelu),
        (act.Gelu(act.GeluForm.TANH), lambda x: f.gelu(x, approximate="tanh")),
        (act.Silu(), f.silu),
        (act.Mish(), f.mish),
        (act.Softsign(), f.softsign),
        (act.LogSigmoid(), f.logsigmoid),
    ]


def test_values_and_gradients_are_pytorch_s_at_kinks_infinities_and_nan() -> None:
    torch = pytest.importorskip("torch")
    x = np.array(
        [math.nan, math.inf, -math.inf, 0, -0.0, 1, -1, 3, -3, 6, 20, -20, 100, -100, 1e30, -1e30]
    )
    for op, function in torch_functions():
        t = torch.tensor(x, requires_grad=True)
        y = function(t)
        y.sum().backward()
        (dx,) = run_gradients(lambda v, op=op: apply(op, v), np.ones(len(x)), x)
        assert dx is not None
        hint = f"{op} at {x}"
        tolerance = {"rtol": 1e-7, "atol": 1e-14, "err_msg": hint}
        np.testing.assert_allclose(value_of(op, x), y.detach().numpy(), **tolerance)
        # Where the value is NaN the derivative says nothing.
        number = ~np.isnan(value_of(op, x)) | np.isnan(x)
        np.testing.assert_allclose(dx[number], t.grad.numpy()[number], **tolerance)


def test_softmax_of_huge_and_infinite_numbers() -> None:
    x = np.array([
        [1e30, 1e30, 0.0], [-1e30, -1e30, -1e30], [-math.inf, 0.0, 0.0],
        [math.inf, 0.0, 0.0], [-math.inf] * 3, [math.nan, 0.0, 0.0],
    ])  # fmt: skip
    nothing = [math.nan] * 3
    expected = [[0.5, 0.5, 0], [1 / 3] * 3, [0, 0.5, 0.5], nothing, nothing, nothing]
    np.testing.assert_allclose(value_of(act.Softmax(1), x), expected)
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.array(expected)[2:])
    np.testing.assert_allclose(value_of(act.LogSoftmax(1), x)[2:], logarithms)
    np.testing.assert_allclose(
        value_of(act.LogSoftmax(1), x)[0], [-math.log(2), -math.log(2), -1e30]
    )


@given(shift=st.floats(-1e4, 1e4), seed=st.integers(0, 99), axis=st.integers(0, 1))
def test_softmax_sums_to_one_and_does_not_feel_a_shift(shift: float, seed: int, axis: int) -> None:
    x = np.random.default_rng(seed).standard_normal((3, 4))
    y = value_of(act.Softmax(axis), x)
    np.testing.assert_allclose(y.sum(axis), 1.0)
    np.testing.assert_allclose(value_of(act.Softmax(axis), x + shift), y, rtol=1e-9)
    np.testing.assert_allclose(np.exp(value_of(act.LogSoftmax(axis), x)), y)


def test_bounds_that_cross_give_the_upper_one() -> None:
    np.testing.assert_array_equal(value_of(act.Clip(2.0, 1.0), np.array([0.0, 1.5, 3.0])), 1.0)


def test_large_inputs_do_not_spoil_the_gradient_of_the_gradient() -> None:
    x = np.array([1000.0, -1000.0])
    for op in (act.Elu(), act.Selu(), act.Softplus(), act.LogSigmoid(), act.Gelu(), act.Silu()):
        (dx,) = run_gradients(lambda t, op=op: apply(op, apply(op, t)), np.ones(2), x)
        assert dx is not None
        assert np.all(np.isfinite(dx)), op


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DTypeError, match="Gelu takes floats, got int64"):
        value_of(act.Gelu(), np.ones(2, int))
    with pytest.raises(ShapeError, match="no axis 1"):
        value_of(act.Softmax(1), np.ones(2))
    with pytest.raises(ShapeError, match="one a channel"):
        value_of(act.PRelu(), np.ones((2, 3)), np.ones(2))
