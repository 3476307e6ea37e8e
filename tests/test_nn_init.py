"""Initial contents: their distributions, and that a seed gives them again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quern import nn
from quern.compiler.errors import UsageError
from quern.nn import init

Array = np.ndarray[Any, Any]


def filled(fill: Callable[[Array], object], *shape: int, dtype: Any = np.float32) -> Array:
    array = np.full(shape, np.nan, dtype)
    assert fill(array) is array
    return array


def is_uniform(array: Array, low: float, high: float) -> None:
    """Inside the bounds, near both of them, and with the mean and deviation of the distribution."""
    assert low <= array.min() < low + 0.01 * (high - low)
    assert high >= array.max() > high - 0.01 * (high - low)
    assert array.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert array.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.03)


def is_normal(array: Array, std: float, mean: float = 0.0) -> None:
    assert array.mean() == pytest.approx(mean, abs=0.05 * std)
    assert array.std() == pytest.approx(std, rel=0.03)
    share = np.mean(np.abs(array - mean) < std)
    assert share == pytest.approx(0.6827, abs=0.02)


# -- functions ------------------------------------------------------------------------------------


def test_constants_fill_arrays_and_parameters() -> None:
    assert filled(init.zeros_, 3).tolist() == [0, 0, 0]
    assert filled(init.ones_, 2).tolist() == [1, 1]
    parameter = nn.Parameter(np.zeros((2, 1), np.float32))
    assert init.constant_(parameter, 0.5) is parameter
    assert parameter.data.tolist() == [[0.5], [0.5]]


def test_simple_distributions() -> None:
    is_uniform(filled(lambda a: init.uniform_(a, -2, 3), 100, 100), -2, 3)
    is_normal(filled(lambda a: init.normal_(a, 5, 2), 100, 100), 2, 5)
    cut = filled(lambda a: init.trunc_normal_(a, std=2.0, a=-1.0, b=3.0), 100, 100)
    assert cut.min() >= -1
    assert cut.max() <= 3
    assert len(np.unique(cut)) > 9000  # drawn anew, not clipped


def test_distributions_by_fan_in_and_fan_out() -> None:
    shape = (40, 30, 3, 3)  # 270 in, 360 out
    bound = math.sqrt(6 / (270 + 360))
    is_uniform(filled(init.xavier_uniform_, *shape), -bound, bound)
    is_normal(filled(lambda a: init.xavier_normal_(a, gain=2), *shape), 2 * math.sqrt(2 / 630))
    bound = math.sqrt(3) * math.sqrt(2) / math.sqrt(270)
    is_uniform(filled(lambda a: init.kaiming_uniform_(a), *shape), -bound, bound)
    is_normal(
        filled(lambda a: init.kaiming_normal_(a, mode="fan_out", nonlinearity="tanh"), *shape),
        5 / 3 / math.sqrt(360),
    )


def test_gains_are_those_of_the_literature() -> None:
    expected = {"linear": 1, "relu": math.sqrt(2), "tanh": 5 / 3, "selu": 0.75, "conv2d": 1}
    for name, gain in expected.items():
        assert init.calculate_gain(name) == pytest.approx(gain)
    assert init.calculate_gain("leaky_relu", 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    array = filled(lambda a: init.orthogonal_(a, gain=2.0), *shape, dtype=np.float64)
    matrix = array.reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_identities() -> None:
    assert filled(init.eye_, 2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    init.dirac_(conv.weight, groups=2)
    x = np.random.default_rng(0).random((1, 4, 5, 5), np.float32)
    np.testing.assert_array_equal(conv(x), x)


@pytest.mark.parametrize(
    ("fill", "shape", "message"),
    [
        (init.eye_, (2,), "eye_ fills matrices"),
        (init.dirac_, (2, 2), "dirac_ fills weights of convolutions"),
        (init.orthogonal_, (2,), "rank 2 or more"),
        (init.xavier_uniform_, (2,), "rank of 2 or more"),
        (lambda a: init.kaiming_normal_(a, mode="fan"), (2, 2), "'fan_in' or 'fan_out'"),
        (lambda a: init.kaiming_normal_(a, nonlinearity="exp"), (2, 2), "no gain is known"),
        (lambda a: init.trunc_normal_(a, a=50.0, b=51.0), (2,), "falls into"),
        (lambda a: init.manual_seed(-1), (2,), "give one from 0"),
    ],
)
def test_slips_are_refused(fill: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fill(np.zeros(shape))


# -- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda: nn.Linear(64, 2000), 64),
        (lambda: nn.Conv2d(16, 1000, (3, 2), groups=2), 8 * 6),
        (lambda: nn.ConvTranspose1d(200, 1000, 4), 1000 * 4),
        (lambda: nn.Bilinear(16, 8, 1000), 16),
    ],
)
def test_layers_start_uniform_within_one_over_the_root_of_the_fan_in(
    make: Callable[[], Any], fan_in: int
) -> None:
    init.manual_seed(0)
    layer, bound = make(), 1 / math.sqrt(fan_in)
    is_uniform(layer.weight.data, -bound, bound)
    is_uniform(layer.bias.data, -bound, bound)


def test_embeddings_start_normal_but_for_the_padding() -> None:
    layer = nn.Embedding(100, 100, padding_idx=3)
    assert not layer.weight.data[3].any()
    is_normal(np.delete(layer.weight.data, 3, axis=0), 1)


def test_a_seed_gives_the_same_network_again() -> None:
    states = []
    for seed in (1, 1, 2):
        init.manual_seed(seed)
        states.append(nn.Sequential(nn.Linear(4, 4), nn.Conv1d(2, 2, 3)).state_dict())
    for key, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][key])
        assert not np.array_equal(array, states[2][key])


def test_other_generators_leave_the_common_one_alone() -> None:
    init.manual_seed(4)
    first = filled(init.normal_, 5)
    init.manual_seed(4)
    filled(lambda a: init.normal_(a, generator=np.random.default_rng(1)), 5)
    np.testing.assert_array_equal(filled(init.normal_, 5), first)
