"""Matrix products as kernels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracles import check, check_kernels, graph_of, trained

from quern.compiler.llvm.target import Target
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array

DTYPES = (np.float32, np.float64, np.int32, np.int64)


def numbers(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 4).astype(dtype)


def stored(shape: tuple[int, ...], transposed: bool, dtype: Any, seed: int) -> Array:
    """An operand; transposed ones are kept with their last two axes exchanged."""
    shape = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
    return numbers(shape, dtype, seed)


def product(left: bool, right: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def function(a: Tensor, b: Tensor) -> Tensor:
        return (a.transpose(-1, -2) if left else a) @ (b.transpose(-1, -2) if right else b)

    return function


extents = st.sampled_from([0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 29, 33, 50])


@given(extents, extents, extents, st.booleans(), st.booleans(), st.sampled_from(DTYPES))
@example(65, 40, 50, False, False, np.float32)
@example(4, 300, 1, False, True, np.float32)
@example(1, 300, 40, False, True, np.float64)
@example(3, 0, 5, False, False, np.int32)
@example(40, 801, 40, True, False, np.float32)
@example(25, 700, 50, False, True, np.float64)
@example(70, 17, 300, True, True, np.float32)
@example(17, 1100, 19, False, True, np.float32)
@example(5, 530, 7, False, True, np.float64)
@example(3, 21, 700, False, False, np.float32)
@example(40, 300, 2, True, True, np.float32)
@example(40, 300, 2, False, False, np.int64)
def test_products_of_any_extents(
    m: int, k: int, n: int, left: bool, right: bool, dtype: Any
) -> None:
    a, b = stored((m, k), left, dtype, 1), stored((k, n), right, dtype, 2)
    check(product(left, right), a, b, atol=1e-6 * max(k, 1), whole=False)


batches = st.sampled_from(
    [((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((0,), (0,)), ((4, 1, 2), (3, 1))]
)


@given(batches, st.sampled_from([(3, 5, 7), (1, 6, 9), (20, 4, 33), (5, 3, 1)]), st.booleans())
def test_batches_broadcast(
    batches: tuple[tuple[int, ...], tuple[int, ...]], extents: tuple[int, int, int], right: bool
) -> None:
    m, k, n = extents
    a = stored((*batches[0], m, k), False, np.float32, 1)
    b = stored((*batches[1], k, n), right, np.float32, 2)
    check(product(False, right), a, b, atol=1e-5, whole=False)


@pytest.mark.parametrize("m", [2, 40])
def test_operands_may_be_slices(m: int) -> None:
    a, b = numbers((2 * m, 9)), numbers((9, 21), seed=1)
    check(lambda a, b: a[::2, 1:] @ b[1:, ::-1], a, b, atol=1e-5)
    check(lambda a, b: a[1:3].transpose(0, 1) @ b[:2], a, b, atol=1e-5)
    check(lambda a, b: a[:, 2:] @ b.transpose(0, 1)[:7, :7], a, b, atol=1e-5)


@pytest.mark.parametrize("m", [1, 3, 20, 70])
@pytest.mark.parametrize("right", [False, True])
def test_what_follows_is_in_the_same_kernel(m: int, right: bool) -> None:
    a, b = stored((m, 11), False, np.float32, 1), stored((11, 19), right, np.float32, 2)
    bias, scale, residual = numbers((19,)), numbers((m, 1)), numbers((m, 19))

    def function(a: Tensor, b: Tensor, bias: Tensor, scale: Tensor, rest: Tensor) -> list[Tensor]:
        y = product(False, right)(a, b) + bias
        return [y.relu() * scale - rest, y]

    groups = check(function, a, b, bias, scale, residual, atol=1e-5)
    assert len(groups) == 1


def test_operands_that_are_computed_are_stored_first() -> None:
    groups = check(
        lambda a, b: (a.relu() @ b.tanh()).exp(), numbers((5, 3)), numbers((3, 4)) / 9, atol=1e-5
    )
    assert len(groups) == 3


@pytest.mark.parametrize("right", [False, True])
def test_a_layer_forward_and_backward(right: bool) -> None:
    arrays = stored((9, 20), False, np.float64, 1), stored((20, 13), right, np.float64, 2)
    graph, feeds = trained(
        lambda a, b, c: (product(False, right)(a, b) + c).relu(),
        3,
        *arrays,
        numbers((13,), np.float64, 3),
    )
    check_kernels(graph, feeds, rtol=1e-12, atol=1e-12)


def test_nan_and_infinity_are_multiplied_like_all_else() -> None:
    a, b = numbers((5, 20)), numbers((20, 18))
    a[0, 1], a[1, 2], a[2, 19], b[3, 17] = np.nan, np.inf, -np.inf, np.inf
    check(lambda a, b: a @ b, a, b, atol=1e-5)
    check(lambda a, b: a[:3] @ b.transpose(0, 1)[:18].transpose(0, 1), a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["sse", "avx2"])
def test_lower_targets_give_the_same(name: str) -> None:
    target = Target.named(name)
    if target.missing:
        pytest.skip(f"this machine has no {name}")
    for m, right in [(40, False), (40, True), (2, True)]:
        a, b = stored((m, 11), False, np.float32, 1), stored((11, 19), right, np.float32, 2)
        graph, feeds = graph_of(product(False, right), a, b)
        check_kernels(graph, feeds, atol=1e-5, target=target, whole=False)
