"""Summaries: parameters, FLOPs and activation memory, against numbers worked out by hand."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from networks import lenet

from quern.compiler.autodiff import differentiate
from quern.compiler.flops import flops, graph_flops
from quern.compiler.graph import Graph
from quern.compiler.ops.activation import Softmax
from quern.compiler.ops.base import Op
from quern.compiler.ops.conv import Conv, ConvInputGradient, ConvWeightGradient
from quern.compiler.ops.indexing import Take
from quern.compiler.ops.linear import Linear, MatMul, matmul
from quern.compiler.ops.movement import Broadcast, Reshape
from quern.compiler.ops.pointwise import Add, Exp, Where
from quern.compiler.ops.pool import MaxPool
from quern.compiler.ops.reduce import Sum
from quern.compiler.summary import LayerRow, format_summary, si_text, summarize, total
from quern.compiler.types import DType, TensorType

ONES, ZEROS = (1, 1), ((0, 0), (0, 0))
CASES: list[tuple[Op, list[tuple[int, ...]], int]] = [
    (MatMul(), [(3, 4), (4, 5)], 2 * 3 * 4 * 5),
    (MatMul(), [(7, 3, 4), (7, 4, 5)], 7 * 2 * 3 * 4 * 5),
    (Linear(), [(2, 4), (5, 4), (5,)], 2 * 2 * 4 * 5 + 2 * 5),
    (Conv(ONES, ZEROS, ONES), [(2, 3, 8, 8), (4, 3, 3, 3)], 2 * (2 * 4 * 6 * 6) * 27),
    (Conv(ONES, ZEROS, ONES), [(2, 3, 8, 8), (4, 3, 3, 3), (4,)], 2 * (2 * 4 * 6 * 6) * 27 + 288),
    (Conv(ONES, ZEROS, ONES, 2), [(1, 4, 8, 8), (6, 2, 3, 3)], 2 * (6 * 6 * 6) * 18),
    (
        ConvInputGradient((8, 8), ONES, ZEROS, ONES),
        [(2, 4, 6, 6), (4, 3, 3, 3)],
        2 * (2 * 4 * 6 * 6) * 27,
    ),
    (
        ConvWeightGradient((3, 3), ONES, ZEROS, ONES),
        [(2, 3, 8, 8), (2, 4, 6, 6)],
        2 * (2 * 4 * 6 * 6) * 27,
    ),
    (MaxPool((2, 2), (2, 2), ZEROS, ONES), [(1, 3, 8, 8)], 3 * 4 * 4 * 4),
    (Add(), [(3, 1), (4,)], 12),
    (Exp(), [(5, 5)], 25),
    (Sum((0,)), [(5, 6)], 30),
    (Reshape((6,)), [(2, 3)], 0),
    (Broadcast((4, 3)), [(3,)], 0),
    # max, subtract, exp, sum, multiply: one an element each, and a reciprocal a row
    (Softmax(1), [(2, 10)], 5 * 20 + 2),
]


@pytest.mark.parametrize(("op", "shapes", "expected"), CASES, ids=lambda c: str(c)[:40])
def test_flops(op: Op, shapes: list[tuple[int, ...]], expected: int) -> None:
    inputs = [TensorType(s) for s in shapes]
    assert flops(op, inputs, op.infer(*inputs)) == expected


def test_flops_of_a_choice_and_of_a_lookup() -> None:
    condition, x = TensorType((4,), DType.BOOL), TensorType((4,))
    assert flops(Where(), [condition, x, x], [x]) == 4
    index = TensorType((9,), DType.INT64)
    assert flops(Take(0), [x, index], Take(0).infer(x, index)) == 0


def rows() -> dict[str, LayerRow]:
    return {row.name: row for row in summarize(lenet(batch=4))}


def test_a_row_for_every_layer_in_order() -> None:
    assert list(rows()) == [
        "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten",
        "fc1", "relu3", "fc2", "relu4", "fc3", "loss",
    ]  # fmt: skip


def test_parameters_and_work_of_lenet() -> None:
    """The 61,706 parameters of LeNet-5 with full connections, counted by hand."""
    table = rows()
    assert table["conv1"].parameters == 6 * 25 + 6
    assert table["conv2"].parameters == 16 * 6 * 25 + 16
    assert table["fc1"].parameters == 400 * 120 + 120
    assert table["conv1"].flops == 4 * 6 * 28 * 28 * (2 * 25 + 1)
    whole = total(list(table.values()))
    assert whole.parameters == whole.trainable == 61_706
    assert whole.flops == sum(r.flops for r in table.values()) == graph_flops(lenet(4))


def test_memory_forward_and_kept_for_backward() -> None:
    table = rows()
    assert table["relu1"].forward_bytes == 4 * prod((4, 6, 28, 28))
    assert table["pool1"].forward_bytes == (4 + 1) * prod((4, 6, 14, 14))  # with its positions
    assert table["flatten"].forward_bytes == 0
    # What a convolution gives is read by the rectifier alone, whose slope its own output tells.
    assert table["conv1"].backward_bytes == 0
    assert table["relu1"].backward_bytes == table["relu1"].forward_bytes
    assert table["pool2"].backward_bytes == table["pool2"].forward_bytes
    assert table["flatten"].backward_bytes == 0


def tied() -> Graph:
    graph = Graph("tied")
    x = graph.input(TensorType((2, 3)), "x")
    w = graph.parameter(np.zeros((3, 3), np.float32), "w")
    fixed = graph.parameter(np.zeros(3, np.float32), "fixed", trainable=False)
    with graph.scope("a"):
        x = matmul(x, w) + fixed
    with graph.scope("b"):
        x = matmul(x, w)
    graph.outputs["y"] = x.value
    return graph


def test_tied_weights_are_counted_once_and_marked() -> None:
    table = {row.name: row for row in summarize(tied())}
    first, second = table["a.mat_mul"], table["b.mat_mul"]
    assert (first.parameters, second.parameters) == (9, 0)
    assert first.shared == second.shared == ("w",)
    assert (table["a.add"].parameters, table["a.add"].trainable) == (3, 0)
    assert total(list(table.values())).parameters == 12


def test_a_training_step_is_summarized_by_its_forward_graph() -> None:
    graph = lenet(4)
    names = [row.name for row in summarize(differentiate(graph, of="logits"))]
    assert names == [row.name for row in summarize(graph)]


def test_a_graph_without_parameters_keeps_nothing() -> None:
    graph = Graph()
    graph.outputs["y"] = graph.input(TensorType((3,)), "x").exp().value
    (row,) = summarize(graph)
    assert (row.parameters, row.backward_bytes, row.flops) == (0, 0, 3)


def test_the_table_is_aligned_text() -> None:
    lines = format_summary(summarize(tied())).splitlines()
    assert lines[0].split() == [
        "layer", "type", "output", "parameters", "trainable", "FLOPs", "forward", "kept",
    ]  # fmt: skip
    assert "9 =  " in lines[2]
    assert lines[-1] == "= shares w with other layers"
    assert lines[-2].startswith("total")
    ends = {len(line) for line in lines if line.endswith("B")}
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 "), (999, "999 "), (1000, "1.00 k"), (61_706, "61.7 k"), (999_999, "1.00 M")],
)
def test_numbers_to_three_digits(number: int, text: str) -> None:
    assert si_text(number) == text
