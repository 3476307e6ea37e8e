"""Operations that move elements, against NumPy and central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import run, run_gradients
from hypothesis import given
from hypothesis import strategies as st
from op_cases import cases, spread, value_of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.ops import movement as mv
from quern.compiler.ops.base import Op, apply
from quern.compiler.types import Array

X = spread((2, 3, 4))
WHOLE = np.arange(6).reshape(2, 3)
TRUTH = WHOLE > 2


def unslice(x: Array) -> Array:
    y = np.zeros((5, 4))
    y[4:0:-2, 1:3] = x
    return y


CASES = [
    cases(mv.Reshape((4, 6)), lambda x: x.reshape(4, 6), X),
    cases(mv.Reshape(()), lambda x: x.reshape(()), X[:1, :1, :1]),
    cases(mv.Reshape((3, 0, 2)), lambda x: x.reshape(3, 0, 2), X[:, :0]),
    cases(mv.Transpose((2, 0, 1)), lambda x: np.moveaxis(x, 2, 0), X),
    cases(mv.Transpose((1, 0)), lambda x: x.T, TRUTH, rounds=0),
    cases(mv.Broadcast((2, 3, 4)), lambda x: x + np.zeros((2, 3, 4)), X[:1, :, :1]),
    cases(mv.Broadcast((5, 3)), lambda x: np.stack([x] * 5), X[0, :, 0]),
    cases(mv.Broadcast((0, 3)), lambda x: np.zeros((0, 3)), X[0, :, 0]),
    cases(mv.Slice((0, 2, 1), (2, 2, 2), (1, -2, 2)), lambda x: x[:, ::-2, 1::2], X),
    cases(mv.Slice((0, 1, 0), (2, 0, 4), (1, 1, 1)), lambda x: x[:, 1:1], X),
    cases(mv.Slice((1, 2), (1, 3), (1, -1)), lambda x: x[1:, ::-1], TRUTH, rounds=0),
    cases(mv.Unslice((5, 4), (4, 1), (-2, 1)), unslice, X[0, :2, :2]),
    cases(
        mv.Pad(((1, 2), (0, 0), (0, 3)), value=2.5),
        lambda x: np.pad(x, ((1, 2), (0, 0), (0, 3)), constant_values=2.5), X,
    ),
    cases(
        mv.Pad(((3, 1), (0, 0), (2, 5)), mv.PadMode.EDGE),
        lambda x: np.pad(x, ((3, 1), (0, 0), (2, 5)), "edge"), X,
    ),
    cases(
        mv.Pad(((1, 0), (2, 2), (3, 1)), mv.PadMode.REFLECT),
        lambda x: np.pad(x, ((1, 0), (2, 2), (3, 1)), "reflect"), X,
    ),
    cases(
        mv.Pad(((2, 1), (0, 3), (4, 4)), mv.PadMode.WRAP),
        lambda x: np.pad(x, ((2, 1), (0, 3), (4, 4)), "wrap"), X,
    ),
    cases(mv.Pad(((0, 1), (1, 0))), lambda x: np.pad(x, ((0, 1), (1, 0))), WHOLE, rounds=0),
    cases(mv.Concat(1), lambda *xs: np.hstack(xs), X, X[:, :1], X[:, 1:]),
    cases(mv.Concat(0), lambda x: x, X),
    cases(mv.Concat(1), lambda *xs: np.hstack(xs), WHOLE, WHOLE[:, :0], rounds=0),
]  # fmt: skip


@given(
    axes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4)), min_size=1,
                  max_size=2),
    mode=st.sampled_from(mv.PadMode),
)  # fmt: skip
def test_padding_is_numpy_s_and_its_gradient_the_transpose(
    axes: list[tuple[int, int, int]], mode: mv.PadMode
) -> None:
    x = np.random.default_rng(0).standard_normal([n for n, _, _ in axes])
    pad = mv.Pad(tuple((a, b) for _, a, b in axes), mode)
    most = {mv.PadMode.REFLECT: -1, mv.PadMode.WRAP: 0}
    fits = all(
        max(a, b) == 0 or (mode is mv.PadMode.CONSTANT)
        or (n > 0 and max(a, b) <= n + most.get(mode, 99))
        for n, a, b in axes
    )  # fmt: skip
    if not fits:
        with pytest.raises(ShapeError, match="at most"):
            value_of(pad, x)
        return
    y = value_of(pad, x)
    numpys: Any = mode.value  # NumPy's names, of which its types know literals only
    np.testing.assert_array_equal(y, np.pad(x, pad.padding, numpys))
    signal = np.random.default_rng(1).standard_normal(y.shape)
    (dx,) = run_gradients(lambda t: apply(pad, t), signal, x)
    assert dx is not None
    # <Pad x, s> = <x, transpose(Pad) s>, for a linear function.
    np.testing.assert_allclose(np.sum(y * signal), np.sum(x * dx), atol=1e-12)


indices = st.one_of(
    st.integers(-3, 2),
    st.slices(3),
    st.none(),
)


@given(
    key=st.lists(indices, max_size=4).filter(lambda k: sum(i is not None for i in k) <= 3),
    at=st.integers(0, 4),
)
def test_indexing_is_numpy_s(key: list[Any], at: int) -> None:
    x = np.arange(27.0).reshape(3, 3, 3)
    with_dots = (*key[:at], Ellipsis, *key[at:])
    for k in (tuple(key), with_dots):
        (y,) = run(lambda t, k=k: t[k], x)
        np.testing.assert_array_equal(y, x[k])
        (dx,) = run_gradients(lambda t, k=k: t[k], np.ones(x[k].shape), x)
        taken = np.zeros_like(x)
        taken[k] = 1
        assert dx is not None
        np.testing.assert_array_equal(dx, taken)


def test_nan_infinity_and_negative_zero_are_only_moved() -> None:
    x = np.array([[np.nan, np.inf], [-np.inf, -0.0]])
    ops: list[Op] = [mv.Transpose((1, 0)), mv.Reshape((4,)), mv.Pad(((1, 1), (0, 0)))]
    for op in ops:
        y = value_of(op, x)
        assert np.isnan(y).sum() == 1
        assert np.isinf(y).sum() == 2
        assert np.signbit(y[~np.isnan(y)]).sum() == 2


WRONG: list[tuple[Op, tuple[Array, ...], str]] = [
    (mv.Reshape((5,)), (X,), "24 elements cannot be reshaped"),
    (mv.Reshape((-4, -6)), (X,), "cannot be reshaped"),
    (mv.Transpose((0, 0, 1)), (X,), "no permutation"),
    (mv.Broadcast((2, 3)), (X,), "broadcast"),
    (mv.Broadcast((2, 3, 8)), (X,), "broadcast"),
    (mv.Slice((0,), (4,), (1,)), (X[0, :, 0],), "leave axis 0"),
    (mv.Slice((2,), (2,), (-3,)), (X[0, :, 0],), "leave axis 0"),
    (mv.Slice((0,), (1,), (0,)), (X[0, :, 0],), "steps of 0"),
    (mv.Unslice((3,), (2,), (1,)), (X[0, :2, 0],), "leave axis 0"),
    (mv.Pad(((0, -1),)), (X[0, 0],), "does not fit"),
    (mv.Pad(((0, 4),), mv.PadMode.REFLECT), (X[0, 0],), "at most 3"),
    (mv.Concat(0), (X, X[0]), "do not fit"),
    (mv.Concat(0), (X, X[:, :1]), "do not fit"),
    (mv.Concat(3), (X,), "no axis 3"),
]


@pytest.mark.parametrize(("op", "inputs", "message"), WRONG, ids=str)
def test_what_does_not_fit_is_refused(op: Op, inputs: tuple[Array, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        value_of(op, *inputs)


def test_joined_values_have_one_dtype() -> None:
    with pytest.raises(DTypeError, match="one dtype"):
        value_of(mv.Concat(0), X, X.astype(np.float32))
