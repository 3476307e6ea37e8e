"""Random numbers: known answers, reproducibility, statistics; dropout and its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gradcheck import run, run_gradients
from hypothesis import given
from hypothesis import strategies as st
from op_cases import Case, cases, check_gradient, outputs_of, spread, value_of

from quern.compiler.autodiff import differentiate
from quern.compiler.errors import DTypeError, GradientError, ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops import random as rnd
from quern.compiler.ops.base import apply
from quern.compiler.types import Array, DType, TensorType

F32 = DType.FLOAT32
SEED, STEP = np.array(7), np.array(3)


def scalar(value: int) -> Array:
    return np.array(value, np.int64)


def philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds on Python's integers, after the figure in the paper."""
    a, b, c, d = counter
    for number in range(10):
        k = [
            (w + number * bump) % 2**32
            for w, bump in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)
        ]
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (
            right // 2**32 ^ b ^ k[0],
            right % 2**32,
            left // 2**32 ^ d ^ k[1],
            left % 2**32,
        )
    return [a, b, c, d]


# Of Random123, tests/kat_vectors, "philox4x32 10": counter, key, output.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(
    counter: list[int], key: list[int], answer: list[int]
) -> None:
    words = tuple(np.array([w], np.uint64) for w in counter)
    assert [int(w[0]) for w in rnd.philox(words, (key[0], key[1]))] == answer
    assert philox_by_hand(counter, key) == answer


@given(
    seed=st.integers(-(2**63), 2**63 - 1), step=st.integers(-(2**63), 2**63 - 1),
    stream=st.integers(0, 2**32 - 1), element=st.integers(0, 5),
)  # fmt: skip
def test_each_element_is_a_function_of_seed_step_stream_and_place(
    seed: int, step: int, stream: int, element: int
) -> None:
    op = rnd.Philox(TensorType((2, 3), F32), stream)
    y = value_of(op, scalar(seed), scalar(step)).ravel()
    key = [seed % 2**32, seed // 2**32 % 2**32]
    word = philox_by_hand([element, 0, step % 2**32, stream], key)[0]
    assert y[element] == (word // 2**8) / 2**24


def test_both_float_types_give_the_same_numbers() -> None:
    narrow, wide = (
        value_of(rnd.Philox(TensorType((1000,), d)), SEED, STEP)
        for d in (DType.FLOAT32, DType.FLOAT64)
    )
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(narrow.astype(float), wide)


def test_seeds_steps_and_streams_give_different_numbers() -> None:
    type = TensorType((100,), F32)
    draws = [
        value_of(rnd.Philox(type, stream), scalar(seed), scalar(step))
        for stream in (0, 1) for seed in (0, 1, 2**32) for step in (0, 1)
    ]  # fmt: skip
    assert len({d.tobytes() for d in draws}) == len(draws)


def test_uniform_numbers_are_uniform_and_independent() -> None:
    u = value_of(rnd.Philox(TensorType((1 << 16,), F32)), SEED, STEP).astype(float)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, 64, (0, 1))[0]
    # Chi-squared with 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert 20 < np.sum((counts - 1024) ** 2) / 1024 < 120
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(len(u))


def test_normal_numbers_are_normal() -> None:
    op = rnd.RandomNormal(TensorType((1 << 16,), DType.FLOAT64))
    z = value_of(op, SEED, STEP)
    assert np.all(np.isfinite(z))
    for power, moment, error in ((1, 0, 1), (2, 1, 1.5), (3, 0, 4), (4, 3, 10)):
        assert abs(np.mean(z**power) - moment) < 5 * error / math.sqrt(len(z))


X = spread((3, 4, 2))
CASES = [
    cases(rnd.Philox(TensorType((2,), F32)), lambda: None, rounds=0),
    cases(rnd.RandomNormal(TensorType((2,), F32)), lambda: None, rounds=0),
    cases(rnd.Dropout(0.4), lambda: None, X, SEED, STEP, constant=(1, 2)),
    cases(rnd.Dropout(0.0), lambda: None, X, SEED, STEP, constant=(1, 2)),
    cases(rnd.Dropout(1.0), lambda: None, X, SEED, STEP, constant=(1, 2)),
    cases(rnd.Dropout(0.4, 5, (2,)), lambda: None, X, SEED, STEP, constant=(1, 2)),
]


@pytest.mark.parametrize("case", [c for c in CASES if c.rounds], ids=str)
def test_gradient_is_the_central_difference(case: Case) -> None:
    check_gradient(case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_drops_the_elements_whose_number_is_below_p(dtype: type) -> None:
    x = np.ones((50, 40), dtype)
    u = value_of(rnd.Philox(TensorType((50, 40), F32), 9), SEED, STEP)
    y = value_of(rnd.Dropout(0.3, 9), x, SEED, STEP)
    np.testing.assert_allclose(y, np.where(u < 0.3, 0, 1 / 0.7), rtol=1e-6)
    assert y.dtype == dtype
    assert abs(np.mean(y == 0) - 0.3) < 0.05


def test_dropout_with_probability_zero_and_one() -> None:
    x = np.array([1.0, np.nan, np.inf])
    np.testing.assert_array_equal(value_of(rnd.Dropout(0.0), x, SEED, STEP), x)
    np.testing.assert_array_equal(value_of(rnd.Dropout(1.0), x, SEED, STEP), [0, 0, 0])


def test_the_gradient_passes_where_the_value_did() -> None:
    ones = np.ones((8, 8))
    op = rnd.Dropout(0.5, 2)
    y = value_of(op, ones, SEED, STEP)
    (dx,) = run_gradients(
        lambda t: apply(op, t, t.graph.constant(SEED), t.graph.constant(STEP)), ones, ones
    )
    np.testing.assert_array_equal(dx, y)


def test_whole_channels_share_their_fate() -> None:
    y = value_of(rnd.Dropout(0.5, 0, (2, 3)), np.ones((8, 16, 2, 3)), SEED, STEP)
    channels = y.reshape(128, 6)
    assert {tuple(c) for c in channels} == {(0.0,) * 6, (2.0,) * 6}
    assert 0.3 < np.mean(channels == 0) < 0.7


def test_random_numbers_have_no_gradient() -> None:
    graph = Graph()
    seed, step = graph.input(TensorType((), DType.INT64)), graph.input(TensorType((), DType.INT64))
    y = apply(rnd.Philox(TensorType((2,), F32)), seed, step)
    graph.outputs = {"y": y.value}
    with pytest.raises(GradientError, match="only floats have a gradient"):
        differentiate(graph, wrt=[seed.value.node])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"int64\[\], got int32"):
        value_of(rnd.Philox(TensorType((2,), F32)), SEED.astype(np.int32), STEP)
    with pytest.raises(DTypeError, match=r"int64\[\], got int64\[1\]"):
        value_of(rnd.Dropout(0.5), X, SEED[None], STEP)
    with pytest.raises(DTypeError, match="gives floats"):
        value_of(rnd.Philox(TensorType((2,), DType.INT32)), SEED, STEP)
    with pytest.raises(ShapeError, match="32-bit"):
        value_of(rnd.Philox(TensorType((2,), F32), 2**32), SEED, STEP)
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ShapeError, match="probability"):
            value_of(rnd.Dropout(p), X, SEED, STEP)
    with pytest.raises(ShapeError, match="no axes"):
        value_of(rnd.Dropout(0.5, 0, (3,)), X, SEED, STEP)


def test_an_empty_draw_is_empty() -> None:
    assert value_of(rnd.Philox(TensorType((0, 3), F32)), SEED, STEP).shape == (0, 3)
    (y,) = run(lambda t, s, n: apply(rnd.Dropout(0.5), t, s, n), np.zeros((0, 2)), SEED, STEP)
    assert y.shape == (0, 2)
    assert outputs_of(rnd.RandomNormal(TensorType((0,), F32)), SEED, STEP)[0].shape == (0,)
