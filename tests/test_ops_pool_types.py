"""Types of pooling, what clashes, and JSON."""

from __future__ import annotations

from typing import Any

import pytest
from pooling import AVERAGES, NAMED, gradient_of, of

from quern.compiler.errors import DTypeError, ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops.adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from quern.compiler.ops.base import Op, op_from_json, op_to_json
from quern.compiler.ops.composite import Composite, expansion
from quern.compiler.ops.pool import (
    AvgPool,
    MaxPool,
    MaxPoolGather,
    MaxPoolGradient,
    MaxPoolIndices,
    MaxUnpool,
    SumPool,
    SumPoolGradient,
)
from quern.compiler.ops.window import Window
from quern.compiler.types import DType, TensorType

ALL_OF_THEM: list[Op] = [
    *(of(kind, w) for kind in (MaxPool, MaxPoolGather, SumPool) for _, w in NAMED.values()),
    *(
        gradient_of(kind, spatial, w)
        for kind in (MaxPoolGradient, SumPoolGradient, MaxPoolIndices)
        for spatial, w in NAMED.values()
    ),
    *(op for _, op in AVERAGES.values()),
    MaxUnpool((3, 4)),
    AdaptiveAvgPool((3, None)),
    AdaptiveMaxPool((3, 4)),
]


def test_json() -> None:
    for op in ALL_OF_THEM:
        assert op_from_json(op_to_json(op)) == op


COMPOSITES: list[tuple[Composite, TensorType]] = [
    *((op, TensorType((2, 3, *spatial))) for spatial, op in AVERAGES.values()),
    *(
        (gradient_of(MaxPoolIndices, s, w), TensorType((2, 3, *w.outputs(s)), DType.UINT8))
        for s, w in NAMED.values()
    ),
    (AdaptiveAvgPool((3, None)), TensorType((2, 3, 7, 5))),
    (AdaptiveMaxPool((2, 4)), TensorType((2, 3, 7, 4))),
    (AdaptiveMaxPool((2, 2)), TensorType((2, 3, 8, 4))),
]


@pytest.mark.parametrize(("op", "type"), COMPOSITES, ids=[str(op) for op, _ in COMPOSITES])
def test_what_composites_say_of_their_type_is_what_they_expand_to(
    op: Composite, type: TensorType
) -> None:
    graph = expansion(op, (type,))
    assert op.infer(type) == tuple(graph.type_of(v) for v in graph.outputs.values())


F32, I64, U8 = DType.FLOAT32, DType.INT64, DType.UINT8
PLAIN = Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
X = TensorType((1, 3, 8, 8))


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (
            MaxPool((2,), (1,), ((3, 0),), (1,)),
            [TensorType((1, 1, 4))],
            r"window 0 along spatial axis 0 of extent 4 holds nothing but padding \(kernel 2",
        ),
        (
            MaxPool((2,), (1,), ((1, 1),), (2,)),
            [TensorType((1, 1, 1))],
            r"nothing but padding .* dilation 2\); make the padding smaller",
        ),
        (of(MaxPool, PLAIN), [TensorType((1, 1, 1, 4))], r"over 2 places .* axis 0 of extent 1"),
        (of(MaxPool, PLAIN), [TensorType((1, 1, 4))], r"over 2 spatial axes, the input .* has 1"),
        (of(MaxPool, PLAIN), [TensorType((4, 4))], r"\(N, C, \*spatial\)"),
        (of(SumPool, PLAIN), [X.with_dtype(I64)], r"got int64; cast first"),
        (
            of(MaxPoolGather, PLAIN),
            [X, TensorType((1, 3, 4, 4), I64)],
            r"positions in a kernel \(2, 2\) of 4 places are uint8, got int64",
        ),
        (
            of(MaxPoolGather, PLAIN),
            [X, TensorType((1, 3, 4, 5), U8)],
            r"positions uint8\[1, 3, 4, 5\] do not fit the windows of float32\[1, 3, 4, 4\]",
        ),
        (
            gradient_of(SumPoolGradient, (8, 8), PLAIN),
            [TensorType((1, 3, 4, 5))],
            r"extents \(4, 5\), but pooling \(8, 8\) gives \(4, 4\)",
        ),
        (AvgPool((2, 2), (2, 2), ((0, 0),) * 2, divisor_override=0), [X], r"divisor_override is 0"),
        (AvgPool((2, 2), (2,), ((0, 0),) * 2), [X], r"stride \(2,\) has 1 entries"),
        (
            gradient_of(MaxPoolIndices, (8, 8), PLAIN),
            [TensorType((1, 3, 4, 3), U8)],
            r"do not fit the windows",
        ),
        (MaxUnpool((8, 8)), [X, X], r"indices .* must be int64\[1, 3, 8, 8\]"),
        (MaxUnpool((8,)), [X, X.with_dtype(I64)], r"2 spatial axes and cannot be unpooled to"),
        (AdaptiveAvgPool((3,)), [X], r"output_size \(3,\) has 1 entries, .* has 2 spatial axes"),
        (AdaptiveMaxPool((0, 2)), [X], r"cannot be pooled to \(0, 2\)"),
    ],
)
def test_clashes_are_named(op: Any, types: list[TensorType], message: str) -> None:
    graph = Graph()
    inputs = [graph.input(type) for type in types]
    with pytest.raises((ShapeError, DTypeError), match=rf"^pool1 \(.*\): .*{message}"):
        graph.apply(op, *inputs, name="pool1")
