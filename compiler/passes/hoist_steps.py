"""What no state goes into or comes from leaves the loop: one large product for all steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ..batching import batched, can_batch
from ..body import inline_node
from ..graph import Graph, Node, Value
from ..ops.conv import Conv
from ..ops.leaf import Constant, Leaf
from ..ops.linear import Linear, MatMul
from ..ops.recurrence import Recurrence
from ..ops.recurrence_builder import INVARIANT, SEQUENCE, STATE, LoopBuilder
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass

_PRODUCTS = (MatMul, Linear, Conv)


@dataclass(frozen=True)
class HoistSteps(Pass):
    """Splits recurrences in up to three: products of sequences alone before the loop, products of
    results alone after it, each for all steps at once, and in between what the states need.

    What follows from the invariants alone is computed once; results that nobody reads are not
    computed at all. (Appleyard, Kociský and Blunsom, Optimizing performance of recurrent neural
    networks on GPUs, 2016.)
    """

    @property
    def name(self) -> str:
        return "hoist-steps"

    def apply(self, graph: Graph) -> Graph:
        if not any(isinstance(n.op, Recurrence) for n in graph.nodes()):
            return graph
        live = rewrite(graph)
        results = {*live.outputs.values(), *live.updates.values()}

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if not isinstance(node.op, Recurrence) or not node.op.steps:
                return None
            read = [v in results or bool(live.uses_of(v)) for v in live.outputs_of(node.name)]
            return _Split(rewriter, node, node.op, rewriter.inputs(node), read).build()

        return rewrite(live, rule)


@dataclass
class _Split:
    """One recurrence, being split.

    Attributes:
        body: its body.
        outside: where values of the body are known outside of the loop; True for those that are
            known step by step, (steps, *).
    """

    rewriter: Rewriter
    node: Node
    op: Recurrence
    inputs: Sequence[Tensor]
    read: Sequence[bool]
    outside: dict[Value, tuple[Tensor, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.body = self.op.body.graph
        self.own = [Value(n) for n in self.op.body.input_names]
        self.results = list(self.body.outputs.values())

    def build(self) -> list[Tensor]:
        states, sequences, invariants = self.op.split(self.own)
        given = dict(zip(self.own, self.inputs, strict=True))
        self.outside |= {v: (given[v], True) for v in sequences}
        self.outside |= {v: (given[v], False) for v in invariants}
        after = self._after()
        self._compute(self._before())
        count = self.op.states
        kept, results = self.results[:count], self.results[count:]
        wanted = [v for v, read in zip(results, self.read[count:], strict=True) if read]
        stacked = self._to_stack(wanted, after)
        finals = self._run(states, kept, stacked)
        self._compute(after)
        return [*finals, *(self._result(i) for i in range(count, len(self.results)))]

    def _result(self, i: int) -> Tensor:
        """A result for all steps; anything of the type where nobody reads it."""
        value = self.results[i]
        type = self.op.stacked(self.body.type_of(value))
        if not self.read[i]:
            return self.inputs[0].graph.constant(0, type.dtype).broadcast_to(type.shape)
        found, varies = self._outside(value)
        return found if varies else found.broadcast_to(type.shape)

    # -- what leaves the loop ---------------------------------------------------------------------

    def _reach(self, sources: Iterable[str]) -> set[str]:
        """The nodes that depend on these, and these."""
        found = set(sources)
        for node in self.body.nodes():
            if any(v.node in found for v in self.body.inputs_of(node.name)):
                found.add(node.name)
        return found

    def _needs(self, values: Iterable[Value]) -> set[str]:
        """The nodes that these depend on, and those that give them."""
        found, stack = set[str](), [v.node for v in values]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(v.node for v in self.body.inputs_of(name))
        return found

    def _leaves(self, nodes: Collection[str]) -> list[Node]:
        """Those nodes that are no leaves, in order."""
        return [n for n in self.body.nodes() if n.name in nodes and not isinstance(n.op, Leaf)]

    def _before(self) -> list[Node]:
        """What is computed before the loop."""
        states, sequences, _ = self.op.split(self.own)
        by_state = self._reach(v.node for v in states)
        by_sequence = self._reach(v.node for v in sequences)
        able: set[str] = {n.name for n in self.body.nodes() if n.name not in by_state}
        for node in self._leaves(able & by_sequence):
            reads = [v.node for v in self.body.inputs_of(node.name)]
            known = can_batch(node.op, [r in by_sequence for r in reads])
            if not known or not able.issuperset(reads):
                able.discard(node.name)
        products = [n.name for n in self._leaves(able & by_sequence) if _is_product(n)]
        once = self._leaves({n.name for n in self.body.nodes()} - by_state - by_sequence)
        chosen = self._reach(products) & able
        chosen |= self._needs(Value(n) for n in chosen) | {n.name for n in once}
        return self._leaves(chosen)

    def _after(self) -> list[Node]:
        """What is computed after the loop."""
        states, sequences, _ = self.op.split(self.own)
        varying = self._reach(v.node for v in (*states, *sequences))
        by_state = self._reach(v.node for v in states)
        inside = self._needs(self.results[: self.op.states])
        able: set[str] = set()
        for node in reversed(self._leaves(by_state - inside)):
            reads = [v.node in varying for v in self.body.inputs_of(node.name)]
            if can_batch(node.op, reads) and able.issuperset(self.body.users_of(node.name)):
                able.add(node.name)
        products = [n.name for n in self._leaves(able) if _is_product(n)]
        return self._leaves(self._reach(products) & able)

    def _to_stack(self, wanted: Sequence[Value], after: Sequence[Node]) -> list[Value]:
        """What the loop has to give for each step: results, and what is read after it."""
        late = {n.name for n in after}
        live = self._needs(wanted) & late
        read = [v for n in after if n.name in live for v in self.body.inputs_of(n.name)]
        values = dict.fromkeys([*(v for v in wanted if v.node not in late), *read])
        constant = {n.name for n in self.body.leaves(Constant)}
        return [
            v
            for v in values
            if v.node not in late and v.node not in constant and v not in self.outside
        ]

    def _compute(self, nodes: Sequence[Node]) -> None:
        """Nodes of the body outside of the loop."""
        graph = self.rewriter.new
        for node in nodes:
            values = self.body.inputs_of(node.name)
            if not all(v in self.outside or self._is_constant(v) for v in values):
                continue  # nobody reads it
            known = [self._outside(v) for v in values]
            varying = [varies for _, varies in known]
            inputs = [x for x, _ in known]
            results = self.body.outputs_of(node.name)
            if any(varying):
                found = [batched(node.op, inputs, varying, node.types[0])]
            else:
                found = inline_node(node, graph, inputs)
            for value, tensor in zip(results, found, strict=True):
                self.outside[value] = tensor, any(varying)

    def _is_constant(self, value: Value) -> bool:
        return isinstance(self.body.producer(value).op, Constant)

    def _outside(self, value: Value) -> tuple[Tensor, bool]:
        if value not in self.outside:
            node = self.body.producer(value)
            (tensor,) = inline_node(node, self.rewriter.new, ())
            self.rewriter.new.data[tensor.value.node] = self.body.data[node.name]
            self.outside[value] = tensor, False
        return self.outside[value]

    # -- what stays -------------------------------------------------------------------------------

    def _run(
        self, states: Sequence[Value], kept: Sequence[Value], stacked: Sequence[Value]
    ) -> tuple[Tensor, ...]:
        """The loop over what is left: its final states. What it stacks is known outside then."""
        loop = LoopBuilder(Graph(self.body.name))
        for value, x in zip(states, self.inputs, strict=False):
            loop.read(value, x, STATE)
        read, names = self._left((*kept, *stacked))
        for kind in (SEQUENCE, INVARIANT):
            for value in read:
                x, varies = self.outside[value]
                if varies == (kind == SEQUENCE):
                    loop.read(value, x, kind)
        loop.copy(self.body, [n for n in self.body.nodes() if n.name in names])
        for i, value in enumerate((*kept, *stacked)):
            name = f"state{i}" if i < len(kept) else f"result{i - len(kept)}"
            loop.give(name, value, self.body.type_of(value))
        with self.rewriter.new.scope(prefix=""):
            results = loop.run(self.op.steps, self.op.reverse, self.node.name)
        ends = len(kept)
        for value, result in zip(stacked, results[ends:], strict=True):
            self.outside[value] = result, True
        return results[:ends]

    def _left(self, roots: Sequence[Value]) -> tuple[list[Value], set[str]]:
        """What the loop reads from outside, in order, and the nodes that it computes."""
        read: dict[Value, None] = {}
        names: set[str] = set()
        stack = list(roots)
        while stack:
            value = stack.pop()
            if value in self.outside:
                read[value] = None
            elif value.node not in names:
                names.add(value.node)
                stack.extend(self.body.inputs_of(value.node))
        order = {n.name: i for i, n in enumerate(self.body.nodes())}
        return sorted(read, key=lambda v: (order[v.node], v.port)), names


def _is_product(node: Node) -> bool:
    return isinstance(node.op, _PRODUCTS)
