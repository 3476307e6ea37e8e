"""Initial contents of parameters. Names, arguments and formulas are those of torch.nn.init.

Each function fills a parameter or array in place and returns it. All numbers come from one
generator, which `manual_seed` restarts; it starts from seed 0, so that a program gives the same
network in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.types import Array, Shape, row_major_strides
from .state import State

Filled = TypeVar("Filled", State, Array)


class _Randomness:
    """The generator of initial contents, and what random layers start from."""

    def __init__(self, seed: int) -> None:
        self.skipped = False
        self.restart(seed)

    def restart(self, seed: int) -> None:
        self.seed = seed
        self.runs = 0
        self.generator = np.random.Generator(np.random.Philox(seed))


_RANDOMNESS = _Randomness(0)


def manual_seed(seed: int) -> None:
    """Restarts the random numbers of initial contents and of dropout.

    Arguments:
        seed: from 0 to 2**63 - 1.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"the seed is {seed}; give one from 0 to 2**63 - 1")
    _RANDOMNESS.restart(seed)


def current_seed() -> int:
    """The seed given last; graphs traced now start their random numbers from it."""
    return _RANDOMNESS.seed


def next_run() -> int:
    """Number of the next run of a network on arrays, since the seed was given."""
    _RANDOMNESS.runs += 1
    return _RANDOMNESS.runs - 1


@contextmanager
def skipped() -> Iterator[None]:
    """Parameters made inside are not filled with random numbers: their contents are undefined.

    For looking at large networks, where the contents do not matter and take seconds to draw.
    """
    outer, _RANDOMNESS.skipped = _RANDOMNESS.skipped, True
    try:
        yield
    finally:
        _RANDOMNESS.skipped = outer


# -- simple ones ----------------------------------------------------------------------------------


def constant_(tensor: Filled, val: float) -> Filled:
    """Fills with one number."""
    _array(tensor)[...] = val
    return tensor


def zeros_(tensor: Filled) -> Filled:
    """Fills with 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Filled) -> Filled:
    """Fills with 1."""
    return constant_(tensor, 1.0)


def uniform_(tensor: Filled, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Filled:
    """Fills from the uniform distribution over [a, b)."""
    array = _array(tensor)
    if _RANDOMNESS.skipped:
        return tensor
    drawn = _draw(generator).random(array.shape, dtype=_drawn(array))
    drawn *= b - a
    drawn += a
    array[...] = drawn
    return tensor


def normal_(tensor: Filled, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Filled:
    """Fills from a normal distribution."""
    array = _array(tensor)
    if _RANDOMNESS.skipped:
        return tensor
    drawn = _draw(generator).standard_normal(array.shape, dtype=_drawn(array))
    drawn *= std
    drawn += mean
    array[...] = drawn
    return tensor


def trunc_normal_(
    tensor: Filled,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Filled:
    """Fills from a normal distribution, drawing anew what falls outside [a, b]."""
    if not (a < b and mean - 8 * std < b and mean + 8 * std > a):
        raise UsageError(f"no normal number of mean {mean} and std {std} falls into [{a}, {b}]")
    if _RANDOMNESS.skipped:
        return tensor
    flat = normal_(tensor, mean, std, generator)
    array = _array(flat)
    outside = (array < a) | (array > b)
    while outside.any():
        count = int(outside.sum())
        array[outside] = _draw(generator).standard_normal(count, dtype=_drawn(array)) * std + mean
        outside = (array < a) | (array > b)
    return tensor


def eye_(tensor: Filled) -> Filled:
    """Fills a matrix with the identity."""
    array = _array(tensor)
    if array.ndim != 2:
        raise UsageError(f"eye_ fills matrices, got shape {array.shape}")
    array[...] = np.eye(*array.shape)
    return tensor


def dirac_(tensor: Filled, groups: int = 1) -> Filled:
    """Fills the weight of a convolution so that it hands its channels on unchanged."""
    array = _array(tensor)
    if not 3 <= array.ndim <= 5 or array.shape[0] % groups:
        raise UsageError(
            f"dirac_ fills weights of convolutions in {groups} groups, got shape {array.shape}"
        )
    array[...] = 0
    middle = array.reshape(*array.shape[:2], -1)[..., _middle(array.shape[2:])]
    per_group = array.shape[0] // groups
    for group in range(groups):
        np.fill_diagonal(middle[group * per_group : (group + 1) * per_group], 1)
    return tensor


def _middle(extents: Shape) -> int:
    """Place of the middle element in row-major order."""
    strides = row_major_strides(extents)
    return sum(n // 2 * stride for n, stride in zip(extents, strides, strict=True))


def orthogonal_(tensor: Filled, gain: float = 1.0, generator: Any = None) -> Filled:
    """Fills with an orthogonal matrix; axes after the first are one (Saxe et al., 2013)."""
    array = _array(tensor)
    if array.ndim < 2:
        raise UsageError(f"orthogonal_ fills values of rank 2 or more, got shape {array.shape}")
    rows, columns = array.shape[0], math.prod(array.shape[1:])
    drawn = _draw(generator).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q = q * np.sign(np.diag(r))
    array[...] = gain * (q.T if rows < columns else q).reshape(array.shape)
    return tensor


# -- by the number of inputs and outputs ----------------------------------------------------------


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What an activation function takes away from the standard deviation, to be made up for."""
    gains = {
        "tanh": 5.0 / 3,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2)),
        "selu": 3.0 / 4,
    }
    linear = ("linear", "sigmoid", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)))
    gains |= dict.fromkeys(linear, 1.0)
    if nonlinearity not in gains:
        raise UsageError(f"no gain is known for {nonlinearity!r}, only for {', '.join(gains)}")
    return gains[nonlinearity]


def fans(tensor: State | Array) -> tuple[int, int]:
    """Numbers of inputs and outputs of one unit of a weight (O, I, *kernel)."""
    shape = _array(tensor).shape
    if len(shape) < 2:
        raise UsageError(f"fan in and fan out need a rank of 2 or more, got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def xavier_uniform_(tensor: Filled, gain: float = 1.0, generator: Any = None) -> Filled:
    """Uniform, of std gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Filled, gain: float = 1.0, generator: Any = None) -> Filled:
    """Normal, of std gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Filled,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Filled:
    """Uniform, of std gain / sqrt(fan) (He et al., 2015)."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Filled,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Filled:
    """Normal, of std gain / sqrt(fan) (He et al., 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def _kaiming_std(tensor: State | Array, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise UsageError(f"the mode is 'fan_in' or 'fan_out', not {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def default_weight_and_bias(weight: State, bias: State | None) -> None:
    """What PyTorch's linear layers and convolutions start from: uniform in ±1 / sqrt(fan_in)."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in, _ = fans(weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        uniform_(bias, -bound, bound)


def _array(tensor: State | Array) -> Array:
    return tensor.data if isinstance(tensor, State) else tensor


def _draw(generator: np.random.Generator | None) -> np.random.Generator:
    return _RANDOMNESS.generator if generator is None else generator


def _drawn(array: Array) -> Any:
    return np.float64 if array.dtype == np.float64 else np.float32
