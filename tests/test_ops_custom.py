"""Custom gradients: a body for each direction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from op_cases import Case, cases, check_gradient, positive, spread

from quern.compiler.body import Body
from quern.compiler.errors import ShapeError
from quern.compiler.graph import Graph
from quern.compiler.ops.custom import CustomGradient
from quern.compiler.tensor import Tensor
from quern.compiler.types import DType, TensorType


def body(function: Callable[..., tuple[Tensor, ...]], *types: TensorType) -> Body:
    graph = Graph("body")
    results = function(*(graph.input(t, f"x{i}") for i, t in enumerate(types)))
    graph.outputs = {f"y{i}": y.value for i, y in enumerate(results)}
    return Body.of(graph)


def product(shape: tuple[int, ...], dtype: DType) -> CustomGradient:
    """The product x log w, and where x is positive, differentiated by both."""
    x = TensorType(shape, dtype)
    truth = TensorType(shape, DType.BOOL)
    return CustomGradient(
        body(lambda x, w: (x * w.log(), x > 0), x, x),
        body(lambda x, w, y, t, signal: (signal * w.log(), signal * x / w), x, x, x, truth, x),
        (0, 1),
    )


CASES = [
    cases(
        product((2, 3), DType.FLOAT64),
        lambda x, w: (x * np.log(w), x > 0),
        spread((2, 3)),
        positive((2, 3), seed=1),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_backward_body(case: Case) -> None:
    check_gradient(case)


def test_bodies_that_do_not_fit_are_refused() -> None:
    op = product((2, 3), DType.FLOAT32)
    own, other = TensorType((2, 3), DType.FLOAT32), TensorType((3, 3), DType.FLOAT32)
    assert op.infer(own, own) == (own, TensorType((2, 3), DType.BOOL))
    with pytest.raises(ShapeError, match="reads"):
        op.infer(own, other)
    with pytest.raises(ShapeError, match="wrt"):
        CustomGradient(op.forward, op.backward, (0, 2)).infer(own, own)
    with pytest.raises(ShapeError, match="gives"):
        CustomGradient(op.forward, op.backward, (0,)).infer(own, own)
