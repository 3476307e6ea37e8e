"""Recurrences to test with, and the same in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from op_cases import spread

from quern.compiler.graph import Graph
from quern.compiler.ops.recurrence import build_body, recur
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType

F64 = DType.FLOAT64
STEPS, BATCH, INPUT, HIDDEN = 4, 2, 3, 5


def wide(*shape: int) -> TensorType:
    return TensorType(shape, F64)


def elman_step(
    h: Tensor, x: Tensor, w: Tensor, u: Tensor, b: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    new = (h @ w + x @ u + b).tanh()
    return [new], [new * 2.0]


def elman_inputs(steps: int) -> tuple[Array, ...]:
    shapes = ((BATCH, HIDDEN), (steps, BATCH, INPUT), (HIDDEN, HIDDEN), (INPUT, HIDDEN), (HIDDEN,))
    return tuple(0.5 * spread(shape, seed=i) for i, shape in enumerate(shapes))


def fibonacci(a: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    return [b, a + b], [a]


COUNT = TensorType((), DType.INT64)
NUMBERS, _ = build_body("fibonacci", [("a", COUNT), ("b", COUNT)], fibonacci)


def elman_graph(steps: int, reverse: bool = False, dtype: DType = F64) -> Graph:
    graph = Graph("net")
    h, x, w, u, b = (a.astype(dtype.numpy) for a in elman_inputs(steps))
    weights = [graph.parameter(p, n) for p, n in ((w, "w"), (u, "u"), (b, "b"))]
    states = [graph.input(TensorType(h.shape, dtype), "h")]
    sequences = [graph.input(TensorType(x.shape, dtype), "x")]
    names = ("h", "x", "w", "u", "b")
    (final,), (y,) = recur(
        elman_step, states, sequences, weights, reverse=reverse, names=names, name="rnn"
    )
    graph.outputs = {"y": y.value, "final": final.value}
    return graph


def feeds_of(steps: int, dtype: DType = F64) -> dict[str, Array]:
    h, x, *_ = (a.astype(dtype.numpy) for a in elman_inputs(steps))
    return {"h": h, "x": x}


def random_step(draw: Callable[[Any], Any]) -> Callable[[Tensor, Tensor, Tensor, Tensor], Any]:
    """A random body over a state s, a slice x, and weights w (3, 3) and b (3,)."""
    kinds = ("product", "bias", "tanh", "multiply", "add", "transpose", "sum", "where")
    plan = draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 9), st.integers(0, 9))))

    def step(s: Tensor, x: Tensor, w: Tensor, b: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        known = [s, x, (s @ w + x + b).tanh()]
        for kind, i, j in plan:
            a, c = known[i % len(known)], known[j % len(known)]
            known.append(
                {
                    "product": lambda a=a: (a @ w) * 0.3,
                    "bias": lambda a=a: a * b,
                    "tanh": lambda a=a: a.tanh(),
                    "multiply": lambda a=a, c=c: a * c.sigmoid(),
                    "add": lambda a=a, c=c: a - c,
                    "transpose": lambda a=a, c=c: (a.transpose() @ c).tanh() @ w,
                    "sum": lambda a=a: (a.sum(1, keepdims=True) + b).tanh(),
                    "where": lambda a=a, c=c: (a > 0.1).where(a, c),
                }[kind]()
            )
        return [(known[-1] + known[2]).tanh()], [known[len(known) // 2]]

    return step
