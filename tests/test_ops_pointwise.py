"""Operations that work element by element, against NumPy and central differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradcheck import run_gradients
from hypothesis import given
from hypothesis import strategies as st
from op_cases import Case, cases, positive, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import pointwise as pw
from quern.compiler.ops.base import apply
from quern.compiler.types import Array, DType, TensorType

X = spread((3, 4))
B = spread((4,), seed=1)
COLUMN = spread((3, 1), seed=2)
WHOLE = np.array([[-7, -6, -1], [0, 5, 7]])
DIVISOR = np.array([-3, 2, 4])
BITS = np.array([[0, 1, 6], [9, 12, 255]])
TRUTH = np.array([[True, False, True], [False, False, True]])

CASES = [
    cases(pw.Negate(), lambda x: -x, X),
    cases(pw.Negate(), lambda x: -x, WHOLE),
    cases(pw.Abs(), np.abs, X),
    cases(pw.Sign(), np.sign, X, rounds=0),
    cases(pw.Exp(), np.exp, X),
    cases(pw.Expm1(), np.expm1, X * 1e-3),
    cases(pw.Log(), np.log, positive((3, 4))),
    cases(pw.Log1p(), np.log1p, X * 1e-3),
    cases(pw.Sqrt(), np.sqrt, positive((3, 4))),
    cases(pw.Sin(), np.sin, X),
    cases(pw.Cos(), np.cos, X),
    cases(pw.Tanh(), np.tanh, X),
    cases(pw.Sigmoid(), lambda x: 1 / (1 + np.exp(-x)), X),
    cases(pw.Erf(), lambda x: np.array([[math.erf(v) for v in row] for row in x]), X),
    cases(pw.Relu(), lambda x: np.where(x > 0, x, 0), X),
    cases(pw.Relu(), lambda x: np.where(x > 0, x, 0), WHOLE),
    cases(pw.Floor(), np.floor, X, rounds=0),
    cases(pw.Ceil(), np.ceil, X, rounds=0),
    cases(pw.Round(), np.round, X, rounds=0),
    cases(pw.IsNaN(), np.isnan, np.array([1.0, np.nan, np.inf]), rounds=0),
    cases(pw.Not(), np.logical_not, TRUTH),
    cases(pw.Not(), lambda x: -x - 1, BITS),
    cases(pw.Cast(DType.FLOAT64), lambda x: x, X),
    cases(pw.Cast(DType.INT32), lambda x: np.trunc(x).astype(int), X, rounds=0),
    cases(pw.Cast(DType.BOOL), lambda x: x != 0, np.array([0.0, -0.0, 0.5, np.nan]), rounds=0),
    cases(pw.Cast(DType.FLOAT32), lambda x: x.astype(float), TRUTH),
    cases(pw.Add(), lambda a, b: a + b, X, B),
    cases(pw.Subtract(), lambda a, b: a - b, X, COLUMN),
    cases(pw.Multiply(), lambda a, b: a * b, X, spread(())),
    cases(pw.Multiply(), lambda a, b: a * b, COLUMN, B),
    cases(pw.Divide(), lambda a, b: a / b, X, B),
    cases(pw.FloorDivide(), lambda a, b: np.floor(a / b), X, B, rounds=0),
    cases(pw.FloorDivide(), lambda a, b: np.floor(a / b).astype(int), WHOLE, DIVISOR),
    cases(pw.Remainder(), lambda a, b: a - np.floor(a / b) * b, X, B),
    cases(pw.Remainder(), lambda a, b: a - np.floor(a / b).astype(int) * b, WHOLE, DIVISOR),
    cases(pw.Power(), lambda a, b: np.exp(b * np.log(a)), positive((3, 4)), B),
    cases(pw.Maximum(), lambda a, b: np.where(a > b, a, b), X, COLUMN),
    cases(pw.Minimum(), lambda a, b: np.where(a < b, a, b), X, B),
    cases(pw.Equal(), lambda a, b: a == b, WHOLE, WHOLE.T[:1, :1]),
    cases(pw.NotEqual(), lambda a, b: a != b, TRUTH, TRUTH[:1]),
    cases(pw.Less(), lambda a, b: a < b, X, B, rounds=0),
    cases(pw.LessEqual(), lambda a, b: a <= b, WHOLE, DIVISOR),
    cases(pw.Greater(), lambda a, b: a > b, X, B, rounds=0),
    cases(pw.GreaterEqual(), lambda a, b: a >= b, WHOLE, DIVISOR),
    cases(pw.And(), np.logical_and, TRUTH, TRUTH[:1]),
    cases(pw.And(), lambda a, b: a & b, BITS, BITS[1]),
    cases(pw.Or(), np.logical_or, TRUTH, TRUTH[:1]),
    cases(pw.Xor(), lambda a, b: (a | b) - (a & b), BITS, BITS[1]),
    cases(pw.Where(), lambda c, a, b: c * a + (1 - c) * b, X > B, X, COLUMN, constant=(0,)),
    cases(pw.Where(), lambda c, a, b: c * a + (1 - c) * b, B > 0, X, B[:1], constant=(0,)),
    cases(
        pw.Iota(TensorType((2, 3), DType.INT64), 1), lambda: np.array([[0, 1, 2], [0, 1, 2]])
    ),
    cases(pw.Iota(TensorType((2, 1), DType.FLOAT32), 0), lambda: np.array([[0.0], [1.0]])),
]  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if len(c.inputs) == 1], ids=str)
def test_empty_values_stay_empty(case: Case) -> None:
    x = np.zeros((2, 0, 3), case.inputs[0].dtype)
    assert value_of(case.op, x).shape == (2, 0, 3)


@given(
    first=st.lists(st.integers(0, 3), max_size=3),
    ones=st.lists(st.booleans(), min_size=3, max_size=3),
    drop=st.integers(0, 3),
)
def test_shapes_broadcast_as_in_numpy(first: list[int], ones: list[bool], drop: int) -> None:
    second = [1 if one else n for n, one in zip(first, ones, strict=False)][drop:]
    a, b = np.ones(first), np.ones(second)
    assert value_of(pw.Add(), a, b).shape == (a + b).shape
    assert value_of(pw.Less(), b, a).shape == (a + b).shape
    assert value_of(pw.Where(), a > b, b, a).shape == (a + b).shape
    (to_b,) = run_gradients(lambda t: t * t.graph.constant(a), np.ones((a + b).shape), b)
    assert to_b is not None
    # Each element of b is used as often as broadcasting repeats it.
    assert np.all(to_b == (0 if b.size == 0 else (a + b).size // b.size))


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0])
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (pw.Negate(), [NAN, -INF, INF, -0.0, 0.0, -1, 1]),
        (pw.Abs(), [NAN, INF, INF, 0.0, 0.0, 1, 1]),
        (pw.Relu(), [NAN, INF, 0, 0, 0, 1, 0]),
        (pw.Sigmoid(), [NAN, 1, 0, 0.5, 0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]),
        (pw.Tanh(), [NAN, 1, -1, 0.0, -0.0, math.tanh(1), -math.tanh(1)]),
        (pw.Erf(), [NAN, 1, -1, 0.0, -0.0, math.erf(1), -math.erf(1)]),
        (pw.Exp(), [NAN, INF, 0, 1, 1, math.e, 1 / math.e]),
        (pw.Log(), [NAN, INF, NAN, -INF, -INF, 0, NAN]),
        (pw.Log1p(), [NAN, INF, NAN, 0.0, -0.0, math.log(2), -INF]),
        (pw.Expm1(), [NAN, INF, -1, 0.0, -0.0, math.expm1(1), math.expm1(-1)]),
        (pw.Sqrt(), [NAN, INF, NAN, 0.0, -0.0, 1, NAN]),
        (pw.Sign(), [NAN, 1, -1, 0, 0, 1, -1]),
        (pw.Floor(), [NAN, INF, -INF, 0.0, -0.0, 1, -1]),
        (pw.Round(), [NAN, INF, -INF, 0.0, -0.0, 1, -1]),
        (pw.IsNaN(), [True] + [False] * 6),
    ],
    ids=str,
)
def test_nan_infinity_and_zeros(op: pw.Unary, expected: list[Any]) -> None:
    y = value_of(op, SPECIAL)
    np.testing.assert_allclose(y, expected, rtol=1e-15)
    if y.dtype == float and not isinstance(op, pw.Relu | pw.Sign):
        number = ~np.isnan(y)
        np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(np.array(expected)[number]))


def test_extremes_of_two_are_nan_when_either_is() -> None:
    a, b = SPECIAL[:, None], SPECIAL[None, :]
    for op, winner in ((pw.Maximum(), np.greater_equal), (pw.Minimum(), np.less_equal)):
        expected = np.where(np.isnan(a) | np.isnan(b), NAN, np.where(winner(a, b), a, b))
        np.testing.assert_array_equal(value_of(op, a, b), expected)


def test_comparisons_with_nan_are_false_and_inequality_true() -> None:
    nan = np.array([NAN])
    for op in (pw.Equal(), pw.Less(), pw.LessEqual(), pw.Greater(), pw.GreaterEqual()):
        assert not value_of(op, nan, nan)[0]
    assert value_of(pw.NotEqual(), nan, nan)[0]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_divided_by_zero_give_zero(dtype: type) -> None:
    a, zero = np.array([-3, 0, 3], dtype), np.zeros(1, dtype)
    np.testing.assert_array_equal(value_of(pw.FloorDivide(), a, zero), [0, 0, 0])
    np.testing.assert_array_equal(value_of(pw.Remainder(), a, zero), [0, 0, 0])
    least = np.array([np.iinfo(dtype).min], dtype)
    np.testing.assert_array_equal(value_of(pw.FloorDivide(), least, np.array([-1], dtype)), least)
    np.testing.assert_array_equal(value_of(pw.Remainder(), least, np.array([-1], dtype)), [0])


def test_float_remainder_has_the_sign_of_the_divisor() -> None:
    a, b = np.array([5.0, -5.0, 5.0, -5.0, 1.0, INF]), np.array([3.0, 3.0, -3.0, -3.0, 0.0, 1.0])
    np.testing.assert_array_equal(value_of(pw.Remainder(), a, b), [2, 1, -1, -2, NAN, NAN])


def test_integers_wrap() -> None:
    top = np.array([2**31 - 1], np.int32)
    np.testing.assert_array_equal(value_of(pw.Add(), top, np.ones(1, np.int32)), [-(2**31)])
    np.testing.assert_array_equal(value_of(pw.Abs(), -top - 1), [-(2**31)])
    byte = np.array([200], np.uint8)
    np.testing.assert_array_equal(value_of(pw.Add(), byte, byte), [144])


def gradient_at(op: pw.Pointwise, *inputs: float, signal: float = 1.0) -> list[float]:
    arrays = [np.array([x]) for x in inputs]
    found = run_gradients(lambda a, *rest: apply(op, a, *rest), np.array([signal]), *arrays)
    return [float(g[0]) for g in found if g is not None]


def test_derivatives_at_kinks() -> None:
    assert gradient_at(pw.Relu(), 0.0) == [0]
    assert gradient_at(pw.Abs(), 0.0) == [0]
    assert gradient_at(pw.Maximum(), 2.0, 2.0) == [0.5, 0.5]
    assert gradient_at(pw.Minimum(), 2.0, 2.0) == [0.5, 0.5]
    assert gradient_at(pw.Maximum(), 3.0, 2.0, signal=INF) == [INF, 0]


def test_derivatives_of_powers_at_zero() -> None:
    assert gradient_at(pw.Power(), 0.0, 0.0) == [0, 0]
    assert gradient_at(pw.Power(), 0.0, 1.0) == [1, 0]
    assert gradient_at(pw.Power(), 0.0, 2.0) == [0, 0]
    assert gradient_at(pw.Power(), 0.0, -1.0) == [-INF, -INF]
    base, exponent = gradient_at(pw.Power(), -2.0, 3.0)
    assert base == 12
    assert math.isnan(exponent)


def test_a_choice_hides_the_infinite_derivative_of_the_other_side() -> None:
    x = np.array([0.0, 4.0])
    (dx,) = run_gradients(lambda t: (t > 0.0).where(t.sqrt(), 0.0), np.ones(2), x)
    assert dx is not None
    assert dx[1] == 0.25


WRONG_TYPES: list[tuple[pw.Pointwise, tuple[Array, ...], str]] = [
    (pw.Add(), (np.ones(2), np.ones(2, np.float32)), "one dtype"),
    (pw.Exp(), (np.ones(2, int),), "Exp takes float32, float64, got int64"),
    (pw.Add(), (TRUTH, TRUTH), "bool"),
    (pw.Not(), (np.ones(2),), "float64"),
    (pw.Where(), (np.ones(2), np.ones(2), np.ones(2)), "bool"),
]


@pytest.mark.parametrize(("op", "inputs", "message"), WRONG_TYPES)
def test_wrong_types_are_refused(op: Any, inputs: tuple[Array, ...], message: str) -> None:
    with pytest.raises(DTypeError, match=message):
        value_of(op, *inputs)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        value_of(pw.Add(), np.ones(2), np.ones(3))
    with pytest.raises(ShapeError, match="takes 2 inputs, got 1"):
        value_of(pw.Add(), np.ones(2))
    with pytest.raises(ShapeError, match="no axis 2"):
        value_of(pw.Iota(TensorType((2, 2), DType.INT64), 2))
    with pytest.raises(DTypeError, match="uint8"):
        value_of(pw.Iota(TensorType((2, 2), DType.UINT8), 1))
