"""What convolutions in blocks of channels ask for before it is needed."""

from __future__ import annotations

import numpy as np
from oracles import check

from quern.compiler.graph import Graph
from quern.compiler.llvm.target import Target
from quern.compiler.loops.ir import Const, Kernel, Prefetch, walk
from quern.compiler.lower.lower import lower
from quern.compiler.ops.base import apply
from quern.compiler.ops.blocked import BlockedConv
from quern.compiler.ops.conv import Conv, ConvInputGradient
from quern.compiler.passes.partition import partition
from quern.compiler.types import DType, TensorType


def lowered(op: BlockedConv, channels: int, side: int) -> Kernel:
    """The kernel of a convolution of (2, channels, side, side) by float32 in blocks of 8."""
    graph = Graph()
    x = graph.input(TensorType((2, channels // 8, side, side, 8), DType.FLOAT32), "x")
    (packed,) = op.packing(16).infer(TensorType(op.weight, DType.FLOAT32))
    graph.outputs = {"y": apply(op, x, graph.input(packed, "w")).value}
    (group,) = partition(graph)
    return lower(graph, group, Target.named("avx2")).kernel


def asked(channels: int, outputs: int, side: int, kernel: int = 1, groups: int = 1) -> set[str]:
    """The first letters of the buffers that a convolution asks for ahead."""
    padding = ((kernel // 2,) * 2,) * 2
    weight = (outputs, channels // groups, kernel, kernel)
    op = BlockedConv(Conv((1, 1), padding, (1, 1), groups), weight, 8)
    kernel_of = lowered(op, channels, side)
    return {s.buffer.name[0] for s in walk(kernel_of.body) if isinstance(s, Prefetch)}


def test_deep_convolutions_ask_for_weights_and_input() -> None:
    assert asked(512, 128, 32) == {"x", "w"}


def test_inputs_that_another_core_may_have_are_asked_for() -> None:
    assert asked(512, 64, 7) == {"x", "w"}
    op = BlockedConv(Conv((1, 1), ((0, 0),) * 2, (1, 1), 1), (16, 64, 1, 1), 8)
    kernel = lowered(op, 64, 18)
    lines = [s for s in walk(kernel.body) if isinstance(s, Prefetch)]
    assert [line.buffer.name[0] for line in lines] == ["x"] * 3  # 6 pixels of 32 bytes


def test_what_is_copied_or_small_is_not_asked_for() -> None:
    assert asked(128, 128, 32, kernel=3) == {"w"}
    assert asked(16, 16, 8) == set()
    assert asked(16, 32, 128) == {"x"}


def test_what_is_asked_for_may_lie_outside() -> None:
    """The last task asks for what is behind the end; nothing is read there."""
    op = BlockedConv(Conv((1, 1), ((0, 0),) * 2, (1, 1), 1), (32, 512, 1, 1), 8)
    rng = np.random.default_rng(0)
    w = rng.standard_normal((32, 512, 1, 1)).astype(np.float32)
    x = rng.standard_normal((1, 64, 20, 20, 8)).astype(np.float32)
    (packed,) = op.packing(16).evaluate(w)
    check(lambda a, b: apply(op, a, b), x, packed, whole=False, rtol=1e-4, atol=1e-4)


def test_results_that_no_tap_reaches_ask_for_nothing() -> None:
    """A transpose of stride 2 by 1x1 has zeros between its results."""
    op = BlockedConv(ConvInputGradient((104, 104), (2, 2), ((0, 0),) * 2, (1, 1)), (64, 8, 1, 1), 8)
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 8, 1, 1)).astype(np.float32)
    dy = rng.standard_normal((1, 8, 52, 52, 8)).astype(np.float32)
    assert dy.nbytes > 1 << 19
    (packed,) = op.packing(8).evaluate(w)
    check(lambda a, b: apply(op, a, b), dy, packed, whole=False, rtol=1e-4, atol=1e-4)


def test_only_the_taps_that_are_multiplied_are_asked_for() -> None:
    """Results of the transpose of stride 2 that one tap of nine reaches."""
    convolution = ConvInputGradient((28, 28), (2, 2), ((1, 1),) * 2, (1, 1))
    kernel = lowered(BlockedConv(convolution, (128, 128, 3, 3), 8), 128, 14)
    first, *_, last = kernel.body
    for phase, constant in ((first, True), (last, False)):
        asked_for = [s for s in walk((phase,)) if isinstance(s, Prefetch)]
        places = [s.index[3:5] for s in asked_for if s.buffer.name[0] == "w"]
        assert places
        assert all(isinstance(i, Const) and i.value == 1 for p in places for i in p) is constant
