"""Gradients by the weight of small groups: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from conv_cases import geometries, kernel_of, numbers, square
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import run_kernel
from oracles import check

from quern.compiler.llvm.target import Target
from quern.compiler.loops.bounds import prove
from quern.compiler.loops.independence import possible_races
from quern.compiler.loops.ir import Kernel
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConvWeightGradient, blocked
from quern.compiler.ops.conv import ConvWeightGradient
from quern.compiler.ops.window import Window
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, Shape


@dataclass(frozen=True)
class Case:
    """`groups` groups of `size` channels each."""

    batch: int
    size: int
    groups: int
    spatial: Shape
    window: Window
    block: int = 8

    @property
    def op(self) -> BlockedConvWeightGradient:
        w = self.window
        op = ConvWeightGradient(w.kernel, w.stride, w.padding, w.dilation, self.groups)
        return BlockedConvWeightGradient(op)

    def operands(self, dtype: Any = np.float32) -> list[Array]:
        channels = self.size * self.groups
        x = (self.batch, channels, *self.spatial)
        dy = (self.batch, channels, *self.window.outputs(self.spatial))
        return [blocked(numbers(s, i, dtype), self.block) for i, s in enumerate((x, dy))]

    def check(self, dtype: Any = np.float32) -> None:
        """With an update behind it in one kernel; the error grows with the root of the pixels."""
        pixels = self.batch * math.prod(self.window.outputs(self.spatial))
        bound = (1e-6 if dtype is np.float32 else 1e-14) * math.sqrt(pixels)
        weight = numbers((self.size * self.groups, self.size, *self.window.kernel), 3, dtype)

        def update(x: Tensor, dy: Tensor, w: Tensor) -> Tensor:
            return w - 0.5 * apply(self.op, x, dy)

        groups = check(update, *self.operands(dtype), weight, whole=False, rtol=0.0, atol=bound)
        assert len(groups) == 1

    def kernel(self, target: Target | None = None) -> Kernel:
        operands = self.operands()
        return kernel_of(lambda x, dy: apply(self.op, x, dy), *operands, target=target)


CASES = {
    "3x3": Case(2, 4, 4, (9, 30), square(3, 1, 1)),
    "3x3 of pairs": Case(1, 2, 8, (7, 9), square(3, 1, 1)),
    "3x3 of eight": Case(2, 8, 3, (9, 30), square(3, 1, 1)),
    "strided": Case(2, 4, 4, (11, 30), square(3, 2, 1)),
    "strided, of eight": Case(1, 8, 2, (10, 21), square(3, 2, 1)),
    "1x1": Case(2, 4, 4, (7, 9), square(1)),
    "5x5": Case(1, 4, 4, (8, 9), square(5, 1, 2)),
    "7x7": Case(1, 4, 4, (11, 20), square(7, 1, 3)),
    "high": Case(1, 8, 2, (67, 5), square(3, 1, 1)),
    "many samples": Case(35, 4, 4, (3, 4), square(3, 1, 1)),
    "far rows": Case(1, 4, 4, (70, 130), square(3, 1, 1)),
    "3-D": Case(1, 4, 4, (4, 5, 9), Window((3, 2, 3), (2, 1, 1), ((1, 1),) * 3, (1,) * 3)),
    "small maps": Case(3, 4, 4, (2, 1), square(3, 1, 1)),
    "1-D": Case(2, 4, 4, (30,), Window((3,), (1,), ((1, 1),), (1,))),
    "no samples": Case(0, 4, 4, (6, 7), square(3, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_numpy(name: str) -> None:
    CASES[name].check()


def test_double_precision() -> None:
    replace(CASES["3x3"], block=4).check(np.float64)


def test_sums_of_all_rows_of_the_kernel_are_in_registers_if_there_is_room() -> None:
    avx2 = Target.named("avx2")
    assert CASES["3x3"].kernel(avx2).note == "groups, 3x3 sums, channels"
    assert CASES["strided, of eight"].kernel(avx2).note == "groups, 3x3 sums, channels"
    assert CASES["7x7"].kernel(avx2).note == "groups, 1x7 sums, channels"
    assert CASES["5x5"].kernel(avx2).note == "groups, 2x5 sums, channels"


@pytest.mark.parametrize("level", ["sse", "avx2", "avx512"])
@pytest.mark.parametrize("name", ["3x3", "strided, of eight", "3-D", "many samples"])
def test_tasks_stay_inside_and_apart(name: str, level: str) -> None:
    kernel = CASES[name].kernel(Target.named(level))
    prove(kernel)
    assert possible_races(kernel) == []


@st.composite
def cases(draw: Any) -> Case:
    spatial, window = draw(geometries({2: 17, 3: 5}))
    size, groups = draw(st.sampled_from([(2, 8), (4, 4), (4, 6), (8, 3)]))
    return Case(draw(st.integers(1, 3)), size, groups, spatial, window)


@settings(max_examples=12)
@given(cases())
def test_any_geometry(case: Case) -> None:
    case.check()


def test_the_same_bits_on_any_number_of_threads() -> None:
    case = CASES["many samples"]
    kernel = case.kernel()
    results = [run_kernel(kernel, [*case.operands(), None], pieces=n)[-1] for n in (1, 5)]
    np.testing.assert_array_equal(*results)
