"""Reverse-mode differentiation on the DAG.

Each value's signal is the sum of the signals that arrive along its uses; a tied weight is one
parameter with several uses, so its gradients add by the same rule. The result is an ordinary graph:
it is fused, drawn, and differentiated again. (Griewank and Walther, Evaluating Derivatives, 2008,
chapter 3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

from .errors import GradientError
from .graph import Graph, Node, Phase, Value
from .ops.base import Op
from .ops.composite import Composite
from .ops.leaf import Leaf, Parameter
from .passes.expand import Expand
from .passes.merge_recurrences import MergeRecurrences
from .rewrite import rewrite
from .tensor import Tensor


def gradients(
    graph: Graph, of: Sequence[Tensor], wrt: Sequence[Tensor], seeds: Sequence[Tensor] | None = None
) -> list[Tensor | None]:
    """Adds the backward nodes to a graph that is being built.

    Arguments:
        graph: composites between `wrt` and `of` that have no gradient are expanded beside it.
        of: what is differentiated; the sum of all their elements is the loss.
        wrt: with respect to what.
        seeds: d loss / d of, ones by default.

    Returns:
        d loss / d wrt, of the shape of each; None where nothing flows.
    """
    wanted = _between(graph, {t.value.node for t in wrt}, {t.value.node for t in of})
    signals = _propagate(graph, of, seeds, wanted, wanted)
    return [_total(graph, t.value, signals) for t in wrt]


def _propagate(
    graph: Graph,
    of: Sequence[Tensor],
    seeds: Sequence[Tensor] | None,
    through: set[str],
    wanted: set[str],
) -> dict[Value, list[Tensor]]:
    """The signals that arrive at the wanted nodes, by way of those of `through`."""
    signals: dict[Value, list[Tensor]] = {}
    for i, target in enumerate(of):
        if not target.dtype.is_float:
            raise GradientError(f"{target.value} is {target.type}; only floats have a gradient")
        with graph.scope("grad", graph.producer(target.value).origins, Phase.BACKWARD):
            seed = seeds[i] if seeds else target.constant(1.0).broadcast_to(target.shape)
        signals.setdefault(target.value, []).append(seed)
    for node in [n for n in reversed(list(graph.nodes())) if n.name in through]:
        _step_back(graph, node, wanted, signals)
    return signals


def _step_back(
    graph: Graph, node: Node, wanted: set[str], signals: dict[Value, list[Tensor]]
) -> None:
    outputs = graph.outputs_of(node.name)
    if isinstance(node.op, Leaf) or not any(v in signals for v in outputs):
        return
    if not node.op.differentiable:
        return
    is_composite = isinstance(node.op, Composite)
    if not node.op.has_gradient and not is_composite:
        raise GradientError(f"{node.op.name} has no gradient").at(node.name, node.source)
    with graph.scope(f"grad.{node.name}", node.origins, Phase.BACKWARD):
        arriving = tuple(_total(graph, v, signals) for v in outputs)
        inputs = tuple(graph.tensor(v) for v in graph.inputs_of(node.name))
        if node.op.has_gradient:
            of = tuple(graph.tensor(v) for v in outputs)
            results = node.op.gradient(inputs, of, arriving)
        else:
            results = _of_expansion(graph, node.op, inputs, arriving)
    for x, signal in zip(inputs, results, strict=True):
        if signal is None or x.value.node not in wanted or not x.dtype.is_float:
            continue
        if signal.type != x.type:
            raise GradientError(
                f"the gradient of {node.op.name} gives {signal.type} for its input {x.type}"
            ).at(node.name, node.source)
        signals.setdefault(x.value, []).append(signal)


def _of_expansion(
    graph: Graph, op: Op, inputs: tuple[Tensor, ...], arriving: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The signals of a composite's inputs, by way of its parts alone."""
    assert isinstance(op, Composite)
    before = {n.name for n in graph.nodes()}
    parts = zip(op.expand(*inputs), arriving, strict=True)
    of, seeds = zip(*((y, s) for y, s in parts if s is not None), strict=True)
    own = {x.value.node for x in inputs}
    inside = _between(graph, own, {y.value.node for y in of}) - before
    signals = _propagate(graph, of, seeds, inside, inside | own)
    # A value that is read at two places gets its whole signal once.
    return [_total(graph, v, {v: signals.pop(v, [])}) for v in (x.value for x in inputs)]


def _total(graph: Graph, value: Value, signals: dict[Value, list[Tensor]]) -> Tensor | None:
    """The sum of what has arrived at a value, added once."""
    parts = signals.get(value)
    if not parts:
        return None
    if len(parts) > 1:
        with graph.scope(f"grad.{value.node}", graph.node(value.node).origins, Phase.BACKWARD):
            parts[:] = [reduce(add, parts)]
    return parts[0]


def _between(graph: Graph, sources: set[str], targets: set[str]) -> set[str]:
    """Names of the nodes on a path from a source to a target, both included."""
    ahead: set[str] = set()
    for node in graph.nodes():
        inputs = graph.inputs_of(node.name)
        if node.name in sources or any(v.node in ahead for v in inputs):
            ahead.add(node.name)
    behind, stack = set[str](), list(targets)
    while stack:
        name = stack.pop()
        if name not in behind:
            behind.add(name)
            stack.extend(v.node for v in graph.inputs_of(name))
    return ahead & behind


def differentiate(
    graph: Graph,
    of: str | Sequence[str] | None = None,
    wrt: str | Sequence[str] | None = None,
) -> Graph:
    """A graph with its backward graph.

    Arguments:
        graph: stays as it is.
        of: names of outputs; the sum of all their elements is differentiated. All float outputs by
            default.
        wrt: names of parameters or inputs; all trainable parameters by default.

    Returns:
        The graph with one more output `grad.NAME` for each name in `wrt`, of the shape of NAME
        (`grad.grad.NAME` where that is taken by an earlier differentiation).

    Raises:
        GradientError: nothing to differentiate, or no path from a name to the outputs.
    """
    names = [of] if isinstance(of, str) else list(of or _float_outputs(graph))
    missing = [n for n in names if n not in graph.outputs]
    if missing or not names:
        have = ", ".join(graph.outputs) or "none"
        raise GradientError(f"no output {', '.join(missing)!r} to differentiate; there is {have}")
    given = [wrt] if isinstance(wrt, str) else wrt
    sources = list(given) if given is not None else _trainable(graph)
    if not sources:
        raise GradientError(
            f"{graph.name} has no trainable parameter; name what to differentiate by"
        )
    result = Expand(for_gradient=True).apply(graph)
    by = [_differentiable_by(graph, result, name) for name in sources]
    of_tensors = [result.tensor(result.outputs[n]) for n in names]
    for name, x, signal in zip(sources, by, gradients(result, of_tensors, by), strict=True):
        if signal is None:
            raise GradientError(
                f"{', '.join(names)} does not depend on it; leave it out of wrt or freeze it"
            ).at(name, x.graph.producer(x.value).source)
        result.outputs[_gradient_name(result, name)] = signal.value
    return MergeRecurrences().apply(rewrite(result))  # without signals that nobody asked for


def _differentiable_by(graph: Graph, expanded: Graph, name: str) -> Tensor:
    node = graph.node(name)
    if not node.types[0].dtype.is_float:
        raise GradientError(f"it is {node.types[0]}; only floats have a gradient").at(
            name, node.source
        )
    if name not in expanded:
        raise GradientError("nothing depends on it, so it has no gradient").at(name, node.source)
    return expanded.tensor(Value(name))


def _gradient_name(graph: Graph, name: str) -> str:
    """`grad.w`; `grad.grad.w` where a first derivative by w is there already."""
    result = f"grad.{name}"
    while result in graph.outputs:
        result = f"grad.{result}"
    return result


def _float_outputs(graph: Graph) -> list[str]:
    return [n for n, v in graph.outputs.items() if graph.type_of(v).dtype.is_float]


def _trainable(graph: Graph) -> list[str]:
    live = graph.live()
    return [
        n.name
        for n in graph.nodes()
        if isinstance(n.op, Parameter) and n.op.trainable and n.name in live
    ]
