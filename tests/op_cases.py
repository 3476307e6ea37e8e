"""Tables of operations: each test file lists its operations with an independent formula for each.

A case is checked in float64 and float32 against its formula, and in float64 by central differences
of its gradient and of the gradient's gradient; tests/test_every_op.py does so for all tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from gradcheck import check_gradients, type_of

from quern.compiler.evaluate import evaluate
from quern.compiler.graph import Graph
from quern.compiler.ops.base import Op, apply, op_from_json, op_to_json
from quern.compiler.ops.movement import Concat
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array


@dataclass(frozen=True)
class Case:
    """An operation, what it is given, and what it should give.

    Arguments:
        op: the operation.
        inputs: arrays; floats are float64, at places where the operation is smooth.
        expected: the outputs by NumPy alone, of the same inputs.
        rounds: 2 checks gradients and their gradients, 1 gradients alone, 0 nothing.
        constant: numbers of the inputs that are not differentiated.
        rtol: of the comparison in float32.
    """

    op: Op
    inputs: tuple[Array, ...]
    expected: Callable[..., Any]
    rounds: int = 2
    constant: tuple[int, ...] = field(default=())
    rtol: float = 1e-5

    def __str__(self) -> str:
        return f"{self.op} of {', '.join(str(list(x.shape)) for x in self.inputs)}".replace(" ", "")


def cases(op: Op, expected: Callable[..., Any], *inputs: Array, **options: Any) -> Case:
    """A case, its arguments in the order in which they read best."""
    return Case(op, inputs, expected, **options)


def outputs_of(op: Op, *inputs: Array) -> tuple[Array, ...]:
    """All outputs of an operation, also of one without inputs."""
    graph = Graph()
    tensors = [graph.input(type_of(x), f"x{i}") for i, x in enumerate(inputs)]
    results = graph.apply(op, *tensors)
    graph.outputs = {f"y{i}": t.value for i, t in enumerate(results)}
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    return tuple(evaluate(graph.verify(), feeds).outputs.values())


def value_of(op: Op, *inputs: Array) -> Array:
    """The only output of an operation."""
    (y,) = outputs_of(op, *inputs)
    return y


def check_values(case: Case) -> None:
    """In float64 and float32, and after a round trip through JSON."""
    assert op_from_json(json.loads(json.dumps(op_to_json(case.op)))) == case.op
    expected = case.expected(*case.inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    narrow = [x.astype(np.float32) if x.dtype == np.float64 else x for x in case.inputs]
    for inputs, rtol in ((case.inputs, 1e-12), (narrow, case.rtol)):
        found = outputs_of(case.op, *inputs)
        for y, e in zip(found, expected, strict=True):
            e = np.asarray(e)
            assert y.shape == e.shape
            assert (y.dtype.kind == "f") == (e.dtype.kind == "f")
            scale = np.max(np.abs(e), initial=0.0, where=np.isfinite(e)) if e.dtype != bool else 0.0
            np.testing.assert_allclose(y, e, rtol=rtol, atol=rtol * scale)


def check_gradient(case: Case) -> None:
    """Against central differences, in float64."""
    moving = [i for i in range(len(case.inputs)) if i not in case.constant]

    def function(*tensors: Tensor) -> Tensor:
        graph = tensors[0].graph
        given = dict(zip(moving, tensors, strict=True))
        all_inputs = [
            given[i] if i in given else graph.constant(x) for i, x in enumerate(case.inputs)
        ]
        results = [y.reshape(-1) for y in graph.apply(case.op, *all_inputs) if y.dtype.is_float]
        return reduce(lambda a, b: apply(Concat(0), a, b), results)

    check_gradients(function, *(case.inputs[i] for i in moving), rounds=case.rounds)


def spread(shape: Sequence[int], seed: int = 0, low: float = 0.3, high: float = 2.0) -> Array:
    """Distinct numbers of either sign, away from 0 and from each other."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    magnitudes = np.linspace(low, high, max(size, 1))[:size]
    return (rng.permutation(magnitudes) * rng.choice([-1.0, 1.0], size)).reshape(shape)


def positive(shape: Sequence[int], seed: int = 0, low: float = 0.3, high: float = 2.0) -> Array:
    """Distinct positive numbers."""
    return np.abs(spread(shape, seed, low, high))
