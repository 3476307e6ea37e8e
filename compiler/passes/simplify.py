"""Algebra: nodes that do nothing go, pairs that undo each other go, dear ones become cheap ones.

Only rewrites that keep every bit (but for the sign of a zero, and the last bits of a power) are
done, with NaN and infinity as they were: `x * 0` is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..graph import Graph, Node, Value
from ..ops import movement as mv
from ..ops import pointwise as pw
from ..ops import reduce as rd
from ..ops.base import Op, apply
from ..ops.leaf import Constant
from ..ops.pool import MaxPool, MaxPoolGradient, SumPool, SumPoolGradient
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass

Simplification = Callable[[Node, tuple[Tensor, ...]], Tensor | None]


@dataclass(frozen=True)
class Simplify(Pass):
    """Applies the rules below to every node, until nothing changes."""

    def apply(self, graph: Graph) -> Graph:
        changed = True
        while changed:
            changed = False

            def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
                nonlocal changed
                rules = _rules_of(type(node.op))
                inputs = rewriter.inputs(node) if rules else ()
                for simplify in rules:
                    result = simplify(node, inputs)
                    if result is not None:
                        changed = True
                        return [result]
                return None

            graph = rewrite(graph, rule)
        return graph


# -- looking at operands --------------------------------------------------------------------------


def _producer(x: Tensor) -> Node:
    return x.graph.producer(x.value)


def _operands(x: Tensor) -> tuple[Tensor, ...]:
    """What the node that gives `x` reads."""
    return tuple(x.graph.tensor(v) for v in x.graph.inputs_of(x.value.node))


def _number(x: Tensor) -> float | None:
    """The value of a constant whose elements are all one number."""
    node = _producer(x)
    if not isinstance(node.op, Constant) or x.type.size == 0:
        return None
    data = x.graph.data[node.name]
    first = data.flat[0].item()
    return first if (x.type.size == 1 or (data == first).all()) else None


def _like(x: Tensor, node: Node) -> Tensor | None:
    """`x` in place of the node, if it has the node's type (broadcasting it where it is smaller)."""
    wanted = node.types[0]
    if x.type == wanted:
        return x
    return x.broadcast_to(wanted.shape) if x.dtype is wanted.dtype else None


# -- pointwise ------------------------------------------------------------------------------------


def _add(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    a, b = inputs
    if _number(b) == 0:
        return _like(a, node)
    return _like(b, node) if _number(a) == 0 else None


def _subtract(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    a, b = inputs
    return _like(a, node) if _number(b) == 0 else None


def _multiply(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    a, b = inputs
    if _number(b) == 1:
        return _like(a, node)
    return _like(b, node) if _number(a) == 1 else None


def _divide(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    a, b = inputs
    divisor = _number(b)
    if divisor == 1:
        return _like(a, node)
    if divisor and math.isfinite(divisor) and abs(math.frexp(divisor)[0]) == 0.5:
        inverse = 1.0 / divisor
        return _like(a * inverse, node) if 2.0**-100 < abs(inverse) < 2.0**100 else None
    return None


def _power(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    a, b = inputs
    exponent = _number(b)
    if a.shape != node.types[0].shape:
        return None
    if exponent == 1:
        return a
    if exponent == 2:
        return a * a
    if exponent == 3:
        return a * a * a
    return 1.0 / a if exponent == -1 else None


def _involution(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """-(-x) and not not x."""
    (x,) = inputs
    return _operands(x)[0] if type(_producer(x).op) is type(node.op) else None


def _relu(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    return x if isinstance(_producer(x).op, pw.Relu) else None


def _cast(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    return x if x.type == node.types[0] else None


def _where(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    condition, a, b = inputs
    known = _number(condition)
    if known is not None:
        return _like(a if known else b, node)
    return _masked_pool(node, condition, a, b)


def _masked_pool(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    """The mask of a ReLU in front of a max-pool, taken from the pooled value instead.

    Where y = relu(...), p = maxpool(y): a signal that comes back through the pool arrives only
    where y = p, so `y > 0` there says the same as `p > 0`, and y itself need not be kept.
    """
    pooled = _producer(a)
    mask = _producer(condition)
    if not isinstance(pooled.op, MaxPoolGradient) or not isinstance(mask.op, pw.Greater):
        return None
    if _number(b) != 0:
        return None
    y, zero = _operands(condition)
    if _number(zero) != 0 or a.shape != node.types[0].shape or y.shape != a.shape:
        return None
    signal, position = _operands(a)
    pool = _producer(position)
    if not isinstance(pool.op, MaxPool) or _operands(position)[0].value != y.value:
        return None
    p = y.graph.tensor(Value(pool.name, 0))
    masked = apply(pw.Where(), p > 0.0, signal, signal.constant(0.0))
    return apply(pooled.op, masked, position)


# -- movement and reductions ----------------------------------------------------------------------


def _reshape(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    if x.type == node.types[0]:
        return x
    if isinstance(_producer(x).op, mv.Reshape):
        return _operands(x)[0].reshape(node.types[0].shape)
    return None


def _transpose(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    assert isinstance(node.op, mv.Transpose)
    inner = _producer(x).op
    if node.op.permutation == tuple(range(x.rank)):
        return x
    if isinstance(inner, mv.Transpose):
        order = tuple(inner.permutation[d] for d in node.op.permutation)
        return _operands(x)[0].permute(order)
    return None


def _broadcast(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    if x.type == node.types[0]:
        return x
    if isinstance(_producer(x).op, mv.Broadcast):
        return _operands(x)[0].broadcast_to(node.types[0].shape)
    return None


def _slice(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    return x if node.op == mv.slice_of(x.shape, (slice(None),) * x.rank) else None


def _pad(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    (x,) = inputs
    return x if x.type == node.types[0] else None


def _concat(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    if len(inputs) == 1:
        return inputs[0]
    assert isinstance(node.op, mv.Concat)
    axis = node.op.axis
    filled = [x for x in inputs if x.shape[axis]]
    if 0 < len(filled) < len(inputs):
        return apply(node.op, *filled)
    return None


def _sum_pool(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Windows of one element, each after the other, are what they are taken from."""
    (x,) = inputs
    assert isinstance(node.op, SumPool | SumPoolGradient)
    alone = node.op.window.size == 1 and set(node.op.stride) == {1}
    return x if alone and x.type == node.types[0] else None


def _reduction(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """A reduction over axes of extent 1 does nothing."""
    (x,) = inputs
    return x if x.type == node.types[0] else None


def _implicit_broadcast(node: Node, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Operands need not be broadcast where the others have the result's shape anyway."""
    plain = tuple(
        _operands(x)[0] if isinstance(_producer(x).op, mv.Broadcast) else x for x in inputs
    )
    if all(a is b for a, b in zip(plain, inputs, strict=True)):
        return None
    if node.op.infer(*(x.type for x in plain)) == node.types:
        return apply(node.op, *plain)
    kept = _without_one_broadcast(node, inputs, plain)
    return None if kept is None else apply(node.op, *kept)


def _without_one_broadcast(
    node: Node, inputs: tuple[Tensor, ...], plain: tuple[Tensor, ...]
) -> tuple[Tensor, ...] | None:
    """All broadcasts but one dropped, where that one gives the result its shape."""
    for i, x in enumerate(inputs):
        if x.shape != node.types[0].shape:
            continue
        kept = (*plain[:i], x, *plain[i + 1 :])
        if any(a is not b for a, b in zip(kept, inputs, strict=True)):
            return kept
    return None


_RULES: tuple[tuple[type[Op], Simplification], ...] = (
    (pw.Add, _add),
    (pw.Subtract, _subtract),
    (pw.Multiply, _multiply),
    (pw.Divide, _divide),
    (pw.Power, _power),
    (pw.Negate, _involution),
    (pw.Not, _involution),
    (pw.Relu, _relu),
    (pw.Cast, _cast),
    (pw.Where, _where),
    (mv.Reshape, _reshape),
    (mv.Transpose, _transpose),
    (mv.Broadcast, _broadcast),
    (mv.Slice, _slice),
    (mv.Pad, _pad),
    (mv.Concat, _concat),
    (SumPool, _sum_pool),
    (SumPoolGradient, _sum_pool),
    (rd.Reduction, _reduction),
    (pw.Pointwise, _implicit_broadcast),
)


_KNOWN: dict[type[Op], tuple[Simplification, ...]] = {}


def _rules_of(kind: type[Op]) -> tuple[Simplification, ...]:
    """The rules for operations of a class."""
    if kind not in _KNOWN:
        _KNOWN[kind] = tuple(rule for base, rule in _RULES if issubclass(kind, base))
    return _KNOWN[kind]
