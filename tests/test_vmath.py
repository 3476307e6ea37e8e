"""Vector math: at most 4 ULP over the whole float32 range, with the same bits at any lane count.

References are NumPy's or the C library's functions in float64. Errors are measured in units in the
last place of float32 at the exact result, subnormal results included; a result that should have
overflowed counts as 2^128.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from quern.compiler.llvm import vmath
from quern.compiler.llvm.builder import F32, F64, I32, I64, PTR, ModuleBuilder, Type, vector
from quern.compiler.llvm.codegen import compile_to_object
from quern.compiler.llvm.jit import Library, load
from quern.compiler.llvm.target import Target

Array = npt.NDArray[np.floating]

LANES = (1, 4, 5, 8, 16)
TARGETS = {
    "host": Target.host(),
    "sse": Target.named("sse"),  # no FMA, 128 bits
    "baseline": Target("x86-64", ("sse3",), 128),  # where rounding is a library call
}
ROUNDING = ("floor", "ceil", "round", "trunc")


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


REFERENCE: Mapping[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "decay": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
}


class Kernels:
    """Every function, compiled for each lane count as a loop over arrays."""

    def __init__(self, target: Target, element: Type, lane_counts: tuple[int, ...]) -> None:
        module = ModuleBuilder(has_fma=target.has_fma)
        for name, lanes in itertools.product((*REFERENCE, "pow"), lane_counts):
            sources = ("a", "b") if name == "pow" else ("a",)
            f = module.function(
                f"{name}.{lanes}", [("n", I64), ("y", PTR), *((s, PTR) for s in sources)]
            )
            n, y, *inputs = f.arguments
            with f.loop(0, n, step=lanes) as loop:
                places = (f.gep(element, p, loop.index) for p in inputs)
                values = [f.load(vector(lanes, element), place) for place in places]
                f.store(vmath.call(f, name, *values), f.gep(element, y, loop.index))
            f.ret()
        self.library: Library = load([compile_to_object(str(module), target)])
        self.dtype = np.dtype(np.float32 if element == F32 else np.float64)

    def __call__(self, name: str, *arguments: Array, lanes: int = 8) -> Array:
        """The function of 1-D arrays, which are padded to a multiple of the lanes."""
        n = arguments[0].size
        padded = [np.zeros(-(-n // lanes) * lanes, self.dtype) for _ in (0, *arguments)]
        for row, argument in zip(padded[1:], arguments, strict=True):
            row[:n] = argument
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * len(padded))
        pointers = (row.ctypes.data for row in padded)
        prototype(self.library.address(f"{name}.{lanes}"))(n, *pointers)
        return padded[0][:n]


@cache
def float32_kernels(target: str) -> Kernels:
    return Kernels(TARGETS[target], F32, LANES)


@cache
def float64_kernels() -> Kernels:
    return Kernels(TARGETS["host"], F64, (1, 5, 8))


@pytest.fixture(params=TARGETS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return float32_kernels(request.param)


def ulps(results: Array, exact: Array) -> Array:
    """Errors of float32 results against float64; infinite for a wrong NaN or sign of zero."""
    one_past = 2.0**128
    overflows = np.abs(exact) >= one_past - 2.0**103
    expected = np.where(overflows, np.copysign(one_past, exact), exact)
    got = results.astype(np.float64)
    got = np.where(np.isinf(got), np.copysign(one_past, got), got)
    ulp = np.ldexp(1.0, np.maximum(np.frexp(expected)[1] - 24, -149))
    with np.errstate(invalid="ignore"):
        errors = np.abs(got - expected) / ulp
    errors[np.isnan(exact)] = 0
    errors[np.isnan(exact) != np.isnan(got)] = math.inf
    errors[(got == 0) & (exact == 0) & (np.signbit(got) != np.signbit(exact))] = math.inf
    return errors


def around(values: npt.ArrayLike, steps: int = 40) -> Array:
    """Each float32 value of either sign with its neighbours, as far as they are in range."""
    bits = np.abs(np.asarray(values, np.float32)).view(np.int32).astype(np.int64)
    near = bits[:, None] + np.arange(-steps, steps + 1)
    positive = np.unique(np.clip(near, 0, 0x7FC00000)).astype(np.uint32).view(np.float32)
    return np.concatenate([positive, -positive])


@cache
def samples() -> Array:
    """Every 6007th bit pattern, and all around the places where something changes."""
    everywhere = np.arange(0, 2**32, 6007, dtype=np.uint32).view(np.float32)
    powers = 2.0 ** np.arange(-149, 128)
    edges = [0.0, math.inf, math.nan, math.log(2) / 2, math.sqrt(0.5), math.sqrt(2), 0.92, 4, 10,
             17.33, 87.3365, 88.7228, 89, 103.2789, 103.9721, 104, 2**24 - 0.5, 2**20]  # fmt: skip
    quarters = np.arange(1, 2000) * (math.pi / 4)
    halves = np.arange(-9, 10) / 2
    places = [around(edges, 3000), around(powers), around(quarters, 2), around(halves, 3)]
    return np.concatenate([everywhere, *places])


@cache
def exact(name: str) -> Array:
    with np.errstate(all="ignore"):
        return REFERENCE[name](samples().astype(np.float64))


def same_bits(a: Array, b: Array) -> bool:
    """Equal bits; a NaN's sign and payload are nobody's business."""
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


@pytest.mark.parametrize("name", [n for n in REFERENCE if n not in (*ROUNDING, "decay")])
def test_errors_are_at_most_4_ulp_over_the_whole_range(kernels: Kernels, name: str) -> None:
    errors = ulps(kernels(name, samples()), exact(name))
    worst = int(np.argmax(errors))
    assert errors[worst] <= 4, f"{errors[worst]} ULP at {float(samples()[worst]).hex()}"


def test_decay_is_exp_of_what_is_not_above_1(kernels: Kernels) -> None:
    x = samples()[~(samples() > 1)]
    x = x[~np.isnan(x)]
    with np.errstate(all="ignore"):
        results, expected = kernels("decay", x), np.exp(x.astype(np.float64))
    small = expected < 2.0**-126
    assert ulps(results, expected)[~small].max() <= 2.6
    assert (results[small] >= 0).all()
    assert (results[small] <= 2.0**-126).all()
    assert np.isnan(kernels("decay", np.array([math.nan]))).all()
    assert (kernels("decay", np.array([0.0, -math.inf])) == [1, 0]).all()


@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_is_exact(kernels: Kernels, name: str) -> None:
    assert ulps(kernels(name, samples()), exact(name)).max() == 0


def test_square_roots_are_correctly_rounded(kernels: Kernels) -> None:
    assert ulps(kernels("sqrt", samples()), exact("sqrt")).max() <= 0.5


@pytest.mark.parametrize("name", REFERENCE)
def test_every_lane_count_gives_the_same_bits(kernels: Kernels, name: str) -> None:
    x = samples()[::7]
    results = [kernels(name, x, lanes=lanes) for lanes in LANES]
    assert all(same_bits(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("tanh", -1, 1), ("erf", -1, 1), ("sigmoid", 0, 1)]
)
def test_bounded_functions_stay_within_their_bounds(
    kernels: Kernels, name: str, lowest: float, highest: float
) -> None:
    results = kernels(name, samples())
    assert np.nanmin(results) == lowest
    assert np.nanmax(results) == highest


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "expm1", "log1p", "trunc", "round"])
def test_zero_keeps_its_sign(kernels: Kernels, name: str) -> None:
    assert same_bits(kernels(name, np.array([0.0, -0.0])), np.array([0.0, -0.0], np.float32))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_near_multiples_of_half_pi_keep_all_their_digits(
    kernels: Kernels, name: str, rng: np.random.Generator
) -> None:
    k = np.floor(2 ** rng.uniform(0, 127, 200_000))
    x = (k * (math.pi / 2)).astype(np.float32)
    x = np.concatenate([x, np.array([16367173 * 2.0**72, 2.0**127], np.float32)])
    with np.errstate(all="ignore"):
        assert ulps(kernels(name, x), REFERENCE[name](x.astype(np.float64))).max() <= 4


# ------------------------------------------------------------------------------------------ pow

CORNERS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1 / 3, 100.0, 1e9, math.inf, 2.0**23 + 0.5, 2.0**24 - 1,
           2.0**24, 2.0**24 + 2, 1 + 2.0**-23, 1 - 2.0**-24, 2.0**-149, 2.0**-126, 2.0**127,
           3.4028234663852886e38]  # fmt: skip


def pow_errors(kernels: Kernels, base: npt.ArrayLike, exponent: npt.ArrayLike) -> Array:
    x, y = np.asarray(base, np.float32), np.asarray(exponent, np.float32)
    with np.errstate(all="ignore"):
        return ulps(kernels("pow", x, y), np.power(x.astype(np.float64), y.astype(np.float64)))


def test_powers_of_all_pairs_of_corner_cases_are_those_of_ieee_754(kernels: Kernels) -> None:
    values = [math.nan, *CORNERS, *(-c for c in CORNERS)]
    base, exponent = np.array(list(itertools.product(values, values))).T
    assert pow_errors(kernels, base, exponent).max() <= 1


def test_powers_are_accurate(kernels: Kernels, rng: np.random.Generator) -> None:
    n = 200_000
    anything = rng.integers(0, 2**32, (2, n), dtype=np.uint32).view(np.float32)
    assert pow_errors(kernels, *anything).max() <= 1
    with np.errstate(all="ignore"):  # exponents that spread the results over the whole range
        base = np.concatenate([np.abs(anything[0]), 1 + rng.normal(size=n) * 1e-3])
        logarithms = np.log2(base.astype(np.float32).astype(np.float64))
        exponent = rng.uniform(-150, 129, 2 * n) / logarithms
    finite = np.abs(exponent) < 3e38
    assert pow_errors(kernels, base[finite], exponent[finite]).max() <= 1
    assert pow_errors(kernels, -base[:n], rng.integers(-40, 41, n)).max() <= 1


def test_powers_have_the_same_bits_at_every_lane_count(
    kernels: Kernels, rng: np.random.Generator
) -> None:
    x, y = rng.integers(0, 2**32, (2, 20_000), dtype=np.uint32).view(np.float32)
    results = [kernels("pow", x, y, lanes=lanes) for lanes in LANES]
    assert all(same_bits(results[0], other) for other in results[1:])


# ------------------------------------------------------------------------------------------ else


@pytest.mark.parametrize("name", REFERENCE)
def test_float64_agrees_with_the_c_library(name: str, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(size=1000) * 10.0 ** rng.uniform(-8, 2, 1000),
                        [0.0, -0.0, math.inf, -math.inf, math.nan, 0.5, 1.5, -2.5]])  # fmt: skip
    finite = x if name not in ("sin", "cos") else x[~np.isinf(x)]
    with np.errstate(all="ignore"):
        expected = REFERENCE[name](finite)
    for lanes in (1, 5, 8):
        results = float64_kernels()(name, finite, lanes=lanes)
        np.testing.assert_allclose(results, expected, rtol=1e-15, atol=0)
        assert (np.signbit(results) == np.signbit(expected))[expected == 0].all()


def test_float64_powers_agree_with_the_c_library(rng: np.random.Generator) -> None:
    x, y = rng.uniform(0, 10, 500), rng.normal(size=500) * 10
    np.testing.assert_allclose(float64_kernels()("pow", x, y, lanes=5), x**y, rtol=1e-15)


def test_what_is_no_function_is_refused() -> None:
    f = ModuleBuilder().function("f", [("x", F32), ("y", F64), ("i", I32)])
    x, y, i = f.arguments
    for name, arguments in [("erfinv", (x,)), ("exp", (i,)), ("pow", (x,)), ("pow", (x, y))]:
        with pytest.raises(TypeError, match=rf"@f: no vector function {name}\("):
            vmath.call(f, name, *arguments)
