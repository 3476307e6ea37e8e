"""The chain rule of a recurrence: another one, backwards over the gradient of the body.

With s[t+1], y[t] = body(s[t], x[t], w), the signal ds of the states goes from step to step:

    ds[t], dx[t], dw[t] = gradient of the body(ds[t+1], dy[t]; what the forward step has saved)

and dw is the sum of all dw[t]. Where dw[t] is a product of what varies in time, the sum over steps
is part of one large product: sum over t of a[t]ᵀ b[t] is Aᵀ B, with the steps stacked as rows.
(Werbos, Backpropagation through time, 1990.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..body import Body
from .base import apply
from .conv import ConvWeightGradient
from .leaf import Input
from .linear import MatMul
from .movement import Broadcast, Reshape, Slice, Transpose
from .pointwise import Add, Gradients, Signals, Tensors
from .recurrence import Recurrence
from .recurrence_builder import INVARIANT, SEQUENCE, STATE, LoopBuilder
from .reduce import Sum

if TYPE_CHECKING:
    from ..graph import Graph, Node, Value
    from ..tensor import Tensor

_CHEAP = (Reshape, Transpose, Broadcast, Slice)  # computed again rather than saved

# Given what stacks a value of a step over all steps, a sum over all steps.
Total = Callable[[Callable[["Value"], "Tensor"]], "Tensor"]


def backward(op: Recurrence, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
    """The gradient by each input, as nodes of the inputs' graph."""
    arriving = [s is not None for s in signals[op.states :]]
    return _Backward(op, inputs, outputs, signals, _differentiated(op, arriving)).build()


@dataclass(frozen=True)
class _Step:
    """The gradient of one step.

    Attributes:
        forward: the body, in operations that have a gradient.
        graph: the same with its backward nodes.
        inputs: what the body reads.
        seeds: for each output of the body, the signal that arrives there; None if none does.
        found: for each input of the body, its gradient; None where nothing flows.
    """

    forward: Graph
    graph: Graph
    inputs: list[Value]
    seeds: list[Value | None]
    found: list[Value | None]


def _differentiated(op: Recurrence, results: Sequence[bool]) -> _Step:
    """The gradient of the body, where signals arrive at these of its results."""
    from ..autodiff import gradients
    from ..graph import Value
    from ..passes.expand import Expand

    forward = Expand(for_gradient=True).apply(op.body.graph)
    graph = forward.copy()
    seeds: list[Tensor | None] = []
    for (name, value), arrives in zip(
        forward.outputs.items(), (*(True for _ in range(op.states)), *results), strict=True
    ):
        type = graph.type_of(value)
        flows = arrives and type.dtype.is_float
        seeds.append(graph.input(type, f"d_{name}") if flows else None)
    pairs = [
        (graph.tensor(v), s)
        for v, s in zip(forward.outputs.values(), seeds, strict=True)
        if s is not None
    ]
    inputs = [Value(n) for n in op.body.input_names]
    wrt = [graph.tensor(v) for v in inputs if graph.type_of(v).dtype.is_float]
    results_ = gradients(graph, [y for y, _ in pairs], wrt, [s for _, s in pairs])
    found = {x.value: g.value for x, g in zip(wrt, results_, strict=True) if g is not None}
    plain = [None if s is None else s.value for s in seeds]
    return _Step(forward, graph, inputs, plain, [found.get(v) for v in inputs])


@dataclass
class _Backward:
    """The gradient of one recurrence, being built.

    Attributes:
        saved: values of the forward step that are known for all steps.
        stacked: values of the backward step that are known for all steps.
        varying: names of the nodes of the step that are not the same in all steps.
    """

    op: Recurrence
    inputs: Tensors
    outputs: Tensors
    signals: Signals
    step: _Step
    saved: list[Value] = field(default_factory=list)
    stacked: list[Value] = field(default_factory=list)
    varying: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.step.graph
        invariants = {v.node for v in self.op.split(self.step.inputs)[2]}
        for node in graph.nodes():
            own = isinstance(node.op, Input) and node.name not in invariants
            if own or any(v.node in self.varying for v in graph.inputs_of(node.name)):
                self.varying.add(node.name)

    def build(self) -> Gradients:
        states, sequences, invariants = self.op.split(range(len(self.inputs)))
        found = self.step.found
        totals = {i: self._total(v) for i in invariants if (v := found[i]) is not None}
        self._stack(*(v for i in sequences if (v := found[i]) is not None))
        moving = [i for i in states if self.step.seeds[i] is not None]
        added = [i for i, total in totals.items() if total is None]
        needed = self._needed([found[i] for i in (*moving, *added)])
        saved = dict(zip(self.saved, self._saved(), strict=True))
        finals, stacks = self._backward_steps(moving, added, needed, saved)

        def over_steps(value: Value) -> Tensor:
            return self._over_steps(value, saved, stacks)

        result: list[Tensor | None] = [None] * len(self.inputs)
        for i, final in zip((*moving, *added), finals, strict=True):
            result[i] = final
        for i in sequences:
            result[i] = None if (v := found[i]) is None else over_steps(v)
        for i, total in totals.items():
            result[i] = result[i] if total is None else total(over_steps)
        return result

    # -- what is known for all steps --------------------------------------------------------------

    def _is_forward(self, value: Value) -> bool:
        return value.node in self.step.forward

    def _sequence(self, value: Value) -> Tensor | None:
        """The sequence, or the signal of a result, that a value is a slice of."""
        if value in (own := self.op.split(self.step.inputs)[1]):
            return self.inputs[self.op.states + own.index(value)]
        if value in (seeds := self.step.seeds[self.op.states :]):
            return self.signals[self.op.states + seeds.index(value)]
        return None

    def _stack(self, *values: Value) -> None:
        """Each of these will be known for all steps."""
        graph = self.step.graph
        for value in values:
            if isinstance(graph.producer(value).op, Reshape):
                self._stack(*graph.inputs_of(value.node))
            elif self._sequence(value) is None:
                known = self.saved if self._is_forward(value) else self.stacked
                if value not in known:
                    known.append(value)

    def _over_steps(
        self, value: Value, saved: Mapping[Value, Tensor], stacks: Mapping[Value, Tensor]
    ) -> Tensor:
        """A value of the step, for all steps."""
        graph = self.step.graph
        if isinstance(graph.producer(value).op, Reshape):
            (inside,) = graph.inputs_of(value.node)
            shape = self.op.stacked(graph.type_of(value)).shape
            return self._over_steps(inside, saved, stacks).reshape(shape)
        given = self._sequence(value)
        if given is not None:
            return given
        return saved[value] if self._is_forward(value) else stacks[value]

    # -- sums over all steps ----------------------------------------------------------------------

    def _total(self, value: Value) -> Total | None:
        """The sum of a value over all steps where adding step by step is not the way to it."""
        before = len(self.saved), len(self.stacked)
        total = self._total_of(value)
        if total is None:
            del self.saved[before[0] :], self.stacked[before[1] :]
        return total

    def _total_of(self, value: Value) -> Total | None:
        graph = self.step.graph
        node = graph.producer(value)
        reads = graph.inputs_of(node.name)
        if self._is_forward(value) or node.name not in self.varying:
            return None
        match node.op:
            case Transpose() | Reshape():
                inner = self._total_of(reads[0])
                return None if inner is None else lambda s: apply(node.op, inner(s))
            case Add() if all(graph.type_of(v) == node.types[0] for v in reads):
                a, b = (self._total_of(v) for v in reads)
                return None if a is None or b is None else lambda s: a(s) + b(s)
            case MatMul() if node.types[0].rank == 2:
                return self._total_product(*reads)
            case ConvWeightGradient():
                self._stack(*reads)
                return lambda s: apply(node.op, *(_merged(s(v)) for v in reads))
            case Sum(axes):
                self._stack(reads[0])
                over = Sum((0, *(d + 1 for d in axes)))
                return lambda s: apply(over, s(reads[0])).reshape(node.types[0].shape)
        return None

    def _total_product(self, a: Value, b: Value) -> Total:
        """One product, whose inner extent is that of all steps."""
        producer = self.step.graph.producer(a)
        if isinstance(producer.op, Transpose):
            (rows,) = self.step.graph.inputs_of(producer.name)
            self._stack(rows, b)
            return lambda s: apply(MatMul(), _merged(s(rows)).transpose(), _merged(s(b)))
        self._stack(a, b)
        return lambda s: apply(MatMul(), _merged(s(a).permute(0, 2, 1)).transpose(), _merged(s(b)))

    # -- the two recurrences ----------------------------------------------------------------------

    def _needed(self, roots: Sequence[Value | None]) -> list[Node]:
        """What a step backwards computes; decides what else the step forwards has to save."""
        graph = self.step.graph
        stack, names = [*(v for v in roots if v is not None), *self.stacked], set[str]()
        while stack:
            value = stack.pop()
            node = graph.producer(value)
            if node.name in names or value in self.saved:
                continue
            again = node.name not in self.varying or isinstance(node.op, _CHEAP)
            if self._is_forward(value) and not again and self._sequence(value) is None:
                self.saved.append(value)
                continue
            names.add(node.name)
            stack.extend(graph.inputs_of(node.name))
        return [n for n in graph.nodes() if n.name in names]

    def _saved(self) -> list[Tensor]:
        """What is saved, for all steps: of the same recurrence, with more results."""
        op, graph = self.op, self.step.forward.copy()
        own = list(graph.outputs.values())[op.states :]
        known = dict(zip(own, self.outputs[op.states :], strict=True))
        new = [v for v in self.saved if v not in known]
        if new:
            graph.outputs |= {f"saved{i}": v for i, v in enumerate(new)}
            more = replace(op, body=Body.of(graph))
            results = self.inputs[0].graph.apply(more, *self.inputs, name="saved")
            known |= dict(zip(new, results[len(results) - len(new) :], strict=True))
        return [known[v] for v in self.saved]

    def _backward_steps(
        self,
        moving: Sequence[int],
        added: Sequence[int],
        needed: Sequence[Node],
        saved: Mapping[Value, Tensor],
    ) -> tuple[Tensors, dict[Value, Tensor]]:
        """The recurrence backwards.

        Arguments:
            moving: numbers of the inputs that are states with a gradient.
            added: numbers of the invariants whose gradients are added step by step.
            needed: what a step computes.
            saved: what the steps forwards have saved.

        Returns:
            Gradients of the initial states, then of the invariants, and what is stacked.
        """
        from ..graph import Graph

        if not moving and not added and not self.stacked:
            return (), {}
        op, step = self.op, self.step
        loop = LoopBuilder(Graph(f"{op.body} backward"))
        for i in moving:
            signal, seed = self.signals[i], step.seeds[i]
            assert seed is not None
            loop.read(seed, _zeros_like(self.inputs[i]) if signal is None else signal, STATE)
        sums = [loop.declare(f"sum_{step.inputs[i]}", _zeros_like(self.inputs[i])) for i in added]
        roots = [v for i in (*moving, *added) if (v := step.found[i]) is not None]
        read = {v for n in needed for v in step.graph.inputs_of(n.name)} | {*roots, *self.stacked}
        for value in sorted(read):
            given = saved.get(value, self._sequence(value))
            if given is not None:
                loop.read(value, given, SEQUENCE)
        for i in op.split(range(len(self.inputs)))[2]:
            if step.inputs[i] in read:
                loop.read(step.inputs[i], self.inputs[i], INVARIANT)
        loop.copy(step.graph, needed)
        for i in moving:
            loop.give(f"d_{step.inputs[i]}", step.found[i], self.inputs[i].type)
        for i, total in zip(added, sums, strict=True):
            term = step.found[i]
            assert term is not None
            loop.graph.outputs[f"sum_{step.inputs[i]}"] = (total + loop.inside(term)).value
        for i, value in enumerate(self.stacked):
            loop.give(f"stacked{i}", value, step.graph.type_of(value))
        results = loop.run(op.steps, not op.reverse, "backward")
        count = len(moving) + len(added)
        return results[:count], dict(zip(self.stacked, results[count:], strict=True))


def _zeros_like(x: Tensor) -> Tensor:
    return x.constant(0).broadcast_to(x.shape)


def _merged(x: Tensor) -> Tensor:
    """The steps of (T, N, *) as more of the rows N."""
    return x.reshape((math.prod(x.shape[:2]), *x.shape[2:]))
