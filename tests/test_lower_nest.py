"""Point nodes, moves and reductions as kernels: NumPy, the interpreter and machine code agree."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import check, check_kernels, graph_of, trained

from quern.compiler.graph import Graph
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Accumulate, Kernel, Prefetch, ReduceOp, walk
from quern.compiler.lower.lower import lower
from quern.compiler.ops import activation as act
from quern.compiler.ops import loss, norm
from quern.compiler.ops import movement as mv
from quern.compiler.ops import pointwise as pw
from quern.compiler.ops.base import Op, apply, apply_all
from quern.compiler.ops.blocked import Unblock
from quern.compiler.ops.indexing import Take, TakeAlongAxis
from quern.compiler.ops.movement import PadMode
from quern.compiler.ops.random import Philox, RandomNormal
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.partition import partition
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3e38, 0.5, -2.5, 88.8, -104.0]
)
FLOATS = (np.float32, np.float64)


def numbers(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    x = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(x * (1 if np.issubdtype(dtype, np.floating) else 9)).astype(dtype)


def kernels_of(graph: Graph) -> list[Kernel]:
    graph = Expand().apply(graph)
    return [lower(graph, group, Target.host()).kernel for group in partition(graph)]


def shapes(most: int = 4, side: int = 9) -> st.SearchStrategy[tuple[int, ...]]:
    return hnp.array_shapes(min_dims=0, max_dims=most, min_side=0, max_side=side)


# -- point nodes ----------------------------------------------------------------------------------


@given(hnp.mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=9, max_dims=4))
def test_operands_of_any_shapes_broadcast(shapes: Any) -> None:
    a, b, c = (numbers(s, seed=i) for i, s in enumerate(shapes.input_shapes))
    check(lambda a, b, c: (a + b * c, (a - c).relu().maximum(b), a < b), a, b, c, whole=False)


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_of_special_numbers(dtype: Any) -> None:
    """In whole vectors and in what remains; NaN and infinities come out where NumPy has them."""
    ops: list[Op] = [
        pw.Negate(), pw.Abs(), pw.Sign(), pw.Exp(), pw.Expm1(), pw.Log(), pw.Log1p(), pw.Sqrt(),
        pw.Tanh(), pw.Sigmoid(), pw.Erf(), pw.Relu(), pw.Floor(), pw.Ceil(), pw.Round(), pw.IsNaN(),
    ]  # fmt: skip
    x = np.concatenate([SPECIAL, SPECIAL[::-1], SPECIAL]).astype(dtype)
    check(lambda x: [apply(op, x) for op in ops], x, rtol=2e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_arithmetic_of_special_numbers(dtype: Any) -> None:
    ops: list[Op] = [
        pw.Add(), pw.Subtract(), pw.Multiply(), pw.Divide(), pw.Maximum(), pw.Minimum(),
        pw.Equal(), pw.NotEqual(), pw.Less(), pw.LessEqual(), pw.Greater(), pw.GreaterEqual(),
    ]  # fmt: skip
    a, b = SPECIAL.astype(dtype)[:, None], SPECIAL.astype(dtype)
    check(lambda a, b: [apply(op, a, b) for op in ops], a, b)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers_wrap_and_divide_by_zero_like_numpy(dtype: Any) -> None:
    edge = np.iinfo(dtype)
    x = np.array([edge.min, edge.max, -7, -1, 0, 1, 3, 12, 255, 2**20], dtype)
    ops: list[Op] = [
        pw.Add(), pw.Subtract(), pw.Multiply(), pw.Maximum(), pw.Less(), pw.And(), pw.Or(),
        pw.Xor(),
    ]  # fmt: skip
    check(lambda a, b: [apply(op, a, b) for op in ops], x[:, None], x)
    small = np.array([-7, -1, 0, 1, 3, 12], dtype)
    check(lambda a, b: (a // b, a % b), small[:, None], small)


@given(shapes(), st.sampled_from(list(DType)), st.sampled_from(list(DType)))
def test_casts(shape: tuple[int, ...], source: DType, to: DType) -> None:
    low = 0 if to is DType.UINT8 else -9
    x = np.clip(numbers(shape, np.float64) * 4, low, 100).astype(source.numpy)
    check(lambda x: x.cast(to), x, whole=False)


def test_a_long_row_is_cut_into_chunks() -> None:
    for extent in (4096, 5000, 12345):
        check(lambda x: (x * 2.0 + 1.0).tanh(), numbers((extent,)), whole=False)


@pytest.mark.parametrize("target", ["sse", "avx2"])
def test_lower_targets_give_the_same(target: str) -> None:
    below = Target.named(target)
    if below.missing:
        pytest.skip(f"this machine has no {target}")
    graph, feeds = graph_of(lambda x: apply(act.Softmax(1), (x * 2.0).tanh()), numbers((5, 19)))
    check_kernels(graph, feeds, target=below, whole=False)


@pytest.mark.parametrize(
    ("shape", "together"),
    [((64, 19), 4), ((7, 6, 10), 2), ((62, 19), 2), ((63, 19), 1), ((16, 19), 1), ((64, 200), 1)],
)
def test_short_rows_are_done_side_by_side(shape: tuple[int, ...], together: int) -> None:
    """They go through their stages in the same loops, and have the same results."""
    graph, feeds = graph_of(lambda x: apply(act.Softmax(len(shape) - 1), x), numbers(shape))
    check_kernels(graph, feeds, whole=False)
    (kernel,) = kernels_of(graph)
    sums = [s for s in walk(kernel.body) if isinstance(s, Accumulate) and s.op is ReduceOp.ADD]
    assert len(sums) == together


def test_rows_that_no_cache_holds_are_asked_for_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds = graph_of(lambda x: apply(act.Softmax(1), x), numbers((5, 19)))
    check_kernels(graph, feeds, whole=False)
    (near,) = kernels_of(graph)
    monkeypatch.setattr("quern.compiler.lower.nest_stage.L2_BYTES", 0)
    check_kernels(graph, feeds, whole=False)
    (far,) = kernels_of(graph)
    asked = [sum(isinstance(s, Prefetch) for s in walk(k.body)) for k in (near, far)]
    assert asked == [0, 2]  # x and y, while exponentials are computed


# -- moves ----------------------------------------------------------------------------------------


@given(shapes(), st.data())
def test_transposes(shape: tuple[int, ...], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    check(lambda x: (x.permute(*order), (x * 2.0).permute(*order)), numbers(shape), whole=False)


@given(shapes(3), st.data())
def test_slices_step_forwards_and_backwards_and_back(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    key = tuple(data.draw(st.slices(n)) for n in shape)
    taken = mv.slice_of(shape, key)
    back = mv.Unslice(shape, taken.start, taken.step)
    check(lambda x: (apply(taken, x), apply(back, apply(taken, x))), numbers(shape), whole=False)


@given(shapes(3, 5), st.sampled_from(list(PadMode)), st.data())
def test_padding(shape: tuple[int, ...], mode: PadMode, data: st.DataObject) -> None:
    def most(extent: int) -> int:
        limit = {PadMode.REFLECT: extent - 1, PadMode.WRAP: extent}
        return max(0, min(3, limit.get(mode, 3 * (extent > 0 or mode is PadMode.CONSTANT))))

    sides = [st.integers(0, most(n)) for n in shape]
    pairs = tuple((data.draw(side), data.draw(side)) for side in sides)
    check(lambda x: apply(mv.Pad(pairs, mode, -1.5), x), numbers(shape), whole=False)


@given(shapes(3, 5).filter(lambda s: len(s) > 0 and 0 not in s), shapes(2, 4), st.data())
def test_takes(shape: tuple[int, ...], picked: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from([np.int32, np.int64]))
    x, rng = numbers(shape), np.random.default_rng(0)
    indices = rng.integers(-2 * shape[axis], 2 * shape[axis], picked).astype(dtype)
    check(lambda x, i: apply(Take(axis), x, i), x, indices, whole=False)
    along = rng.integers(-7, 7, (*shape[:axis], 3, *shape[axis + 1 :]))
    check(lambda x, i: apply(TakeAlongAxis(axis), x, i), x, along, whole=False)


def test_moves_of_moves_and_of_point_nodes() -> None:
    def function(x: Tensor) -> Tensor:
        padded = apply(mv.Pad(((1, 2), (0, 3)), PadMode.REFLECT), x.exp())
        return padded[::-2].transpose(0, 1).reshape(3, -1)[:, ::-1] + 1.0

    check(function, numbers((5, 9)))


# -- reductions -----------------------------------------------------------------------------------


@given(hnp.arrays(np.float32, shapes(4, 7), elements=st.floats(-9, 9, width=32)), st.data())
def test_reductions_over_any_axes(x: Array, data: st.DataObject) -> None:
    axes = tuple(d for d in range(x.ndim) if data.draw(st.booleans()))
    empty = any(x.shape[d] == 0 for d in axes)

    def function(x: Tensor) -> list[Tensor]:
        sums = [x.sum(axes), (x * 0.5).sum(axes, keepdims=True), (x * 0.3).prod(axes)]
        return sums if empty else [*sums, x.amax(axes), x.amin(axes, keepdim=True)]

    check(function, x, atol=1e-5, whole=False)


LARGE = [(1, 40000), (40000, 1), (3, 20000), (20000, 3), (2, 9000, 5), (200, 130), (130, 7, 40)]


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_long_and_wide_reductions(shape: tuple[int, ...]) -> None:
    """Split into chunks, by rows and by columns, with what depends on their results."""
    for count in range(1, len(shape) + 1):
        for axes in combinations(range(len(shape)), count):

            def function(x: Tensor, axes: tuple[int, ...] = axes) -> list[Tensor]:
                centered = x - x.mean(axes, keepdims=True)
                variance = (centered * centered).mean(axes, keepdims=True)
                return [centered / (variance + 1e-3).sqrt(), variance * 2.0, x.amax(axes)]

            check(function, numbers(shape), atol=1e-5, whole=False)


@pytest.mark.parametrize("shape", [(8, 3, 70), (4, 2, 30, 8), (4, 2, 4096, 8)], ids=str)
def test_rows_in_several_places_of_memory(shape: tuple[int, ...]) -> None:
    """As statistics of channels have them: sums of several images side by side."""

    def function(x: Tensor) -> list[Tensor]:
        centered = x - x.mean((0, 2), keepdims=True)
        return [centered / ((centered * centered).mean((0, 2), keepdims=True) + 1e-3).sqrt()]

    check(function, numbers(shape), atol=1e-5, whole=False)


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_and_infinity_reach_the_results(axis: int) -> None:
    x = numbers((5, 21))
    x[0, 3], x[1, 4], x[2, 5], x[3, 17] = np.nan, np.inf, -np.inf, np.nan
    check(lambda x: (x.sum(axis), x.max(axis), x.min(axis), x.prod(axis)), x)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_reductions_of_whole_numbers(dtype: Any) -> None:
    x = numbers((3, 19, 5), dtype)
    for axes in [(0,), (1,), (2,), (0, 2), (0, 1, 2)]:
        check(lambda x, a=axes: (x.sum(a), x.max(a), x.min(a), x.prod(a)), x, whole=False)


# -- several stages -------------------------------------------------------------------------------

COMPOSED: dict[str, tuple[Callable[..., Tensor], int, list[tuple[int, ...]]]] = {
    "softmax": (lambda x: apply(act.Softmax(1), x), 1, [(5, 19)]),
    "softmax of columns": (lambda x: apply(act.Softmax(0), x), 1, [(5, 19)]),
    "softmax of many short rows": (lambda x: apply(act.Softmax(1), x), 1, [(64, 19)]),
    "softmax of pairs of rows": (lambda x: apply(act.Softmax(2), x), 1, [(7, 6, 10)]),
    "layer norm of many short rows": (
        lambda x, w, b: apply(norm.LayerNorm(1), x, w, b), 3, [(64, 33), (33,), (33,)]
    ),
    "softmax of one": (lambda x: apply(act.Softmax(1), x), 1, [(5, 1)]),
    "softmax, inner axis": (lambda x: apply(act.Softmax(1), x), 1, [(3, 7, 10)]),
    "log-softmax": (lambda x: apply(act.LogSoftmax(1), x), 1, [(5, 19)]),
    "layer norm": (
        lambda x, w, b: apply(norm.LayerNorm(1), x, w, b), 3, [(6, 33), (33,), (33,)]
    ),
    "group norm": (
        lambda x, w, b: apply(norm.GroupNorm(2), x, w, b), 3, [(2, 6, 3, 5), (6,), (6,)]
    ),
    "batch norm": (
        lambda x, w, b, m, v: apply_all(norm.BatchNorm(), x, w, b, m, v.abs())[0],
        3, [(4, 3, 5, 7), (3,), (3,), (3,), (3,)],
    ),
    "batch norm, few channels": (
        lambda x, w, b, m, v: apply_all(norm.BatchNorm(), x, w, b, m, v.abs())[0],
        3, [(2, 2, 100, 90), (2,), (2,), (2,), (2,)],
    ),
    "local response norm": (lambda x: apply(norm.LocalResponseNorm(3), x), 1, [(2, 7, 3, 4)]),
    "normalised twice": (
        lambda x: apply(act.Softmax(1), apply(norm.LayerNorm(1), x)), 1, [(4, 17)]
    ),
    "log-softmax of blocks of channels": (
        lambda x: apply(act.LogSoftmax(3), apply(Unblock(), x).transpose()), 1, [(2, 2, 3, 5, 8)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize("dtype", FLOATS)
def test_several_stages_forward_and_backward(name: str, dtype: Any) -> None:
    function, count, given = COMPOSED[name]
    arrays = [numbers(shape, dtype, seed) for seed, shape in enumerate(given)]
    tolerance = 2e-5 if dtype is np.float32 else 1e-10
    check_kernels(*trained(function, count, *arrays), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_forward_and_backward(smoothing: float) -> None:
    classes = np.array([2, 0, -100, 4, 1])
    op = loss.CrossEntropy(label_smoothing=smoothing)
    graph, feeds = trained(lambda x, t: apply(op, x, t), 1, numbers((5, 5)), classes)
    check_kernels(graph, feeds, rtol=2e-5, atol=2e-5)


def test_batch_norm_gives_running_statistics() -> None:
    arrays = [numbers(s, seed=i) for i, s in enumerate([(4, 3, 5, 7), (3,), (3,), (3,)])]
    check(lambda *x: apply_all(norm.BatchNorm(), *x), *arrays, np.ones(3, np.float32), atol=1e-5)


# -- random numbers -------------------------------------------------------------------------------


@given(shapes(3, 20), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40), st.integers(0, 3))
@example((100, 41), 2**63 - 1, 2**32 + 5, 1)
def test_philox_is_the_same_everywhere(
    shape: tuple[int, ...], seed: int, step: int, stream: int
) -> None:
    for dtype in (DType.FLOAT32, DType.FLOAT64):
        op = Philox(TensorType(shape, dtype), stream)
        given = np.array(seed), np.array(step)
        check(lambda s, t, op=op: apply(op, s, t), *given, rtol=0, atol=0, whole=False)


def test_normal_numbers_and_dropout() -> None:
    given = np.array(3), np.array(4)
    check(lambda s, t: apply(RandomNormal(TensorType((7, 9))), s, t), *given, rtol=1e-4, atol=1e-5)
