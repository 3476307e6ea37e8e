"""Every operation gives what its formula says, and its kernels what NumPy gives; gradients too.

The formulas are in the tables of tests/test_ops_*.py.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
import test_ops_activation
import test_ops_ctc
import test_ops_custom
import test_ops_einsum
import test_ops_grid
import test_ops_indexing
import test_ops_loss
import test_ops_movement
import test_ops_norm
import test_ops_pointwise
import test_ops_random
import test_ops_reduce
import test_ops_scatter
import test_ops_shrink
import test_ops_special
import test_ops_trigonometry
import test_recurrence
from gradcheck import type_of
from op_cases import Case, check_gradient, check_values, positive, spread
from oracles import check_kernels

from quern.compiler.autodiff import differentiate
from quern.compiler.errors import GradientError
from quern.compiler.graph import Graph
from quern.compiler.ops import (
    blocked,
    conv,
    linear,
    pool,
    random,
    strassen,
    winograd,
    winograd_gradient,
)
from quern.compiler.ops.adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from quern.compiler.ops.base import Op, op_classes
from quern.compiler.ops.composite import Composite
from quern.compiler.ops.leaf import Leaf
from quern.compiler.ops.stop_gradient import StopGradient
from quern.compiler.types import Array, DType, TensorType

TABLES = (
    test_ops_activation,
    test_ops_einsum,
    test_ops_grid,
    test_ops_indexing,
    test_ops_loss,
    test_ops_movement,
    test_ops_norm,
    test_ops_pointwise,
    test_ops_reduce,
    test_ops_scatter,
    test_ops_shrink,
    test_ops_special,
    test_ops_trigonometry,
)
# What is checked in more ways than by a formula is checked in the file itself.
SPECIAL = (test_ops_ctc, test_ops_custom, test_ops_random, test_recurrence)

IMAGE = spread((2, 4, 6, 5))
WINDOW = ((3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1))
POOLED = spread((2, 4, 3, 5), seed=1)
PICKED = np.arange(120).reshape(2, 4, 3, 5) % 6
COUNTERS = np.array(11), np.array(2**40 + 3)


def _case(op: Op, *inputs: Array) -> Case:
    """A case whose oracle is the operation's own `evaluate`."""
    return Case(op, inputs, op.evaluate, rounds=1)


def _convolutions() -> list[Case]:
    stride, padding, dilation = (2, 1), ((1, 0), (1, 1)), (1, 2)
    weight, narrow = spread((6, 4, 3, 2), seed=2), spread((6, 2, 3, 2), seed=2)
    y, bias = spread((2, 6, 3, 5), seed=3), spread((6,), seed=4)
    back = spread((4, 3, 3, 2), seed=5)
    line, short = spread((2, 3, 9)), spread((4, 3, 3), seed=1)
    block, cube = spread((1, 2, 4, 4, 4)), spread((3, 2, 2, 2, 2), seed=1)
    return [
        _case(conv.Conv(stride, padding, dilation), IMAGE, weight, bias),
        _case(conv.Conv(stride, padding, dilation, 2), IMAGE, narrow),
        _case(conv.Conv((1,), ((1, 1),), (1,)), line, short),
        _case(conv.Conv((1, 2, 1), ((0, 0), (1, 0), (1, 1)), (1, 1, 1)), block, cube),
        _case(conv.ConvInputGradient((6, 5), stride, padding, dilation), y, weight),
        _case(conv.ConvWeightGradient((3, 2), stride, padding, dilation), IMAGE, y),
        _case(conv.ConvTranspose((2, 2), ((1, 1), (0, 0)), (1, 0), (1, 1)), IMAGE, back),
    ]


def _blocks() -> list[Case]:
    plain, flipped = (conv.Conv(*WINDOW[1:], 2), conv.ConvInputGradient((6, 5), *WINDOW[1:], 2))
    each = conv.Conv(*WINDOW[1:], 4)
    x, y = blocked.blocked(IMAGE, 2), blocked.blocked(spread((2, 8, 3, 5), seed=3), 4)
    weight, single = spread((8, 2, 3, 2), seed=2), spread((4, 1, 3, 2), seed=2)
    return [
        _case(blocked.Block(2), IMAGE),
        _case(blocked.Block(1), IMAGE),
        _case(blocked.Unblock(), x),
        _case(blocked.PackWeight(2, 4), weight),
        _case(blocked.PackWeight(2, 3), weight),
        _case(blocked.PackWeight(2, 4, True), weight),
        _case(blocked.PackWeight(2, 4, True, joined=True), weight),
        _case(blocked.PackWeight(4, 8, joined=True), weight),
        _case(linear.PackedMatMul(7), spread((3, 5)), spread((1, 2, 5, 4), seed=4)),
        _case(linear.PackedMatMul(14), spread((3, 5)), spread((2, 2, 5, 4), seed=4)),
        *(
            _case(op, a, op.packing(panel).evaluate(w)[0])
            for op, a, w, panel in (
                (blocked.BlockedConv(plain, weight.shape, 4), x, weight, 8),
                (blocked.BlockedConv(flipped, weight.shape, 2), y, weight, 8),
                (blocked.BlockedConv(each, single.shape, 2), x, single, 2),
            )
        ),
        _case(blocked.BlockedConvWeightGradient(conv.ConvWeightGradient(*WINDOW, 2)), x, y),
    ]


def _winograd() -> list[Case]:
    forward = conv.Conv((1, 1), ((1, 1), (0, 2)), (1, 1))
    back = conv.ConvInputGradient((6, 5), (1, 1), ((1, 1), (0, 2)), (1, 1))
    weight, y = spread((8, 4, 3, 3), seed=2), spread((2, 8, 6, 5), seed=3)
    weights = [winograd.WinogradWeight(2, 8), winograd.WinogradWeight(4, 6, True)]
    return [
        *(_case(op, weight) for op in weights),
        *(
            _case(winograd.WinogradConv(op, weight.shape, 2, u.tile), x, *u.evaluate(weight))
            for op, u, x in zip((forward, back), weights, (IMAGE, y), strict=True)
            for x in [blocked.blocked(x, 2)]
        ),
        _case(
            winograd_gradient.WinogradConvWeightGradient(
                conv.ConvWeightGradient((3, 3), (1, 1), ((1, 1), (0, 2)), (1, 1)), 4
            ),
            *(blocked.blocked(a, 2) for a in (IMAGE, y)),
        ),
    ]


def _strassen() -> list[Case]:
    weight = spread((12, 4, 1, 1), seed=2)
    sums = strassen.StrassenWeight(4)
    op = strassen.StrassenConv(conv.Conv((1, 1), ((0, 0),) * 2, (1, 1)), weight.shape, 2)
    return [
        _case(sums, weight),
        _case(op, blocked.blocked(IMAGE, 2), *sums.evaluate(weight)),
    ]


OWN = [
    *_convolutions(),
    *_strassen(),
    *_blocks(),
    *_winograd(),
    _case(linear.MatMul(), spread((2, 3, 5)), spread((1, 5, 4), seed=1)),
    _case(linear.Linear(), spread((3, 5)), spread((4, 5), seed=1), spread((4,), seed=2)),
    _case(pool.MaxPool(*WINDOW), IMAGE),
    _case(pool.MaxPoolGradient((6, 5), *WINDOW), POOLED, PICKED.astype(np.uint8)),
    _case(pool.MaxPoolGather(*WINDOW), IMAGE, PICKED.astype(np.uint8)),
    _case(pool.MaxPoolIndices((6, 5), *WINDOW), PICKED.astype(np.uint8)),
    _case(pool.MaxUnpool((6, 5)), POOLED, PICKED * 5),
    _case(pool.SumPool(*WINDOW), IMAGE),
    _case(pool.SumPoolGradient((6, 5), *WINDOW), POOLED),
    _case(pool.AvgPool((2, 2), (2, 2), ((1, 1), (0, 0)), True, False), IMAGE),
    _case(AdaptiveAvgPool((4, 1)), IMAGE),
    _case(AdaptiveMaxPool((2, 3)), IMAGE),
    _case(StopGradient(), positive((3,))),
    _case(random.Philox(TensorType((3, 7), DType.FLOAT32), 1), *COUNTERS),
    _case(random.RandomNormal(TensorType((3, 7), DType.FLOAT64)), *COUNTERS),
]
FORMULAS: list[Case] = [case for module in TABLES for case in module.CASES]
LISTED = [*FORMULAS, *(case for module in SPECIAL for case in module.CASES)]
CASES = [*OWN, *(c for c in LISTED if len(c.inputs) >= c.op.arity[0])]


def graph_of_case(case: Case, dtype: type) -> tuple[Graph, dict[str, Array]]:
    graph = Graph()
    arrays = [x.astype(dtype) if x.dtype == np.float64 else x for x in case.inputs]
    tensors = [graph.input(type_of(x), f"x{i}") for i, x in enumerate(arrays)]
    results = graph.apply(case.op, *tensors)
    graph.outputs = {f"y{i}": t.value for i, t in enumerate(results)}
    return graph, {f"x{i}": x for i, x in enumerate(arrays)}


def _is_primitive(case: Case) -> bool:
    return not isinstance(case.op, Composite)


def _is_smooth(case: Case) -> bool:
    floats = any(x.dtype == np.float64 for x in case.inputs)
    return bool(case.rounds) and floats and case.op.differentiable


def test_every_operation_has_a_case() -> None:
    computed = {name for name, cls in op_classes().items() if not issubclass(cls, Leaf)}
    assert not computed - {case.op.name for case in CASES}


@pytest.mark.parametrize("case", FORMULAS, ids=str)
def test_value_is_the_formula(case: Case) -> None:
    check_values(case)


@pytest.mark.parametrize("case", [c for c in FORMULAS if _is_smooth(c)], ids=str)
def test_gradient_is_the_central_difference(case: Case) -> None:
    check_gradient(case)


@pytest.mark.parametrize("case", [c for c in CASES if _is_primitive(c)], ids=str)
def test_kernels_of_primitives_in_float32(case: Case) -> None:
    graph, feeds = graph_of_case(case, np.float32)
    check_kernels(graph, feeds, rtol=max(case.rtol, 1e-5), atol=1e-5, whole=False)


@pytest.mark.parametrize("case", [c for c in CASES if c.rounds or not _is_primitive(c)], ids=str)
def test_kernels_and_those_of_the_gradient_in_float64(case: Case) -> None:
    graph, feeds = graph_of_case(case, np.float64)
    results = [graph.tensor(v) for v in graph.outputs.values() if graph.type_of(v).dtype.is_float]
    weighted = []
    for i, y in enumerate(results):
        feeds[f"w{i}"] = spread(y.shape, seed=i).astype(y.dtype.numpy)
        weighted.append((y * graph.input(y.type, f"w{i}")).sum())
    wrt = [
        f"x{i}"
        for i, x in enumerate(case.inputs)
        if x.dtype == np.float64 and i not in case.constant
    ]
    if weighted and wrt:
        graph.outputs["loss"] = reduce(add, weighted).value
        try:
            graph = differentiate(graph, "loss", wrt)
        except GradientError:
            assert not case.op.differentiable
    check_kernels(graph, feeds, rtol=1e-9, atol=1e-9, whole=False)
