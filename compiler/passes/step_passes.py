"""Passes over the bodies of recurrences that stay loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..body import Body
from ..graph import Graph, Node, Value
from ..llvm.target import Target
from ..lower.tile import VECTORS
from ..ops.base import apply
from ..ops.blocked import PackWeight
from ..ops.leaf import Constant, Input
from ..ops.linear import PackedMatMul
from ..ops.movement import Transpose
from ..ops.recurrence import Recurrence
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from ..types import TensorType
from .base import Pass
from .pack_products import column_groups, is_packable


@dataclass(frozen=True)
class StepPasses(Pass):
    """Applies passes to the body of every recurrence; its larger constants become invariants.

    Invariant matrices that several rows are multiplied by in each step are packed once.

    Arguments:
        passes: in order; they leave no composites.
        target: the machine that matrices are packed for; None: they are not packed.
    """

    passes: tuple[Pass, ...]
    target: Target | None = None

    @property
    def name(self) -> str:
        return "step-passes"

    def apply(self, graph: Graph) -> Graph:
        if not any(isinstance(n.op, Recurrence) for n in graph.nodes()):
            return graph
        done: dict[Body, Graph] = {}

        def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
            if not isinstance(node.op, Recurrence):
                return None
            if node.op.body not in done:
                done[node.op.body] = self._simplified(node.op.body.graph)
            return _Loop(rewriter, node, node.op, done[node.op.body], self.target).build()

        return rewrite(graph, rule)

    def _simplified(self, body: Graph) -> Graph:
        for step in self.passes:
            body = step.apply(body)
        return body


@dataclass
class _Loop:
    """A recurrence over another body that computes the same.

    Attributes:
        invariants: what becomes one: name and type inside, and what it is outside.
    """

    rewriter: Rewriter
    node: Node
    op: Recurrence
    body: Graph
    target: Target | None
    invariants: dict[str, tuple[TensorType, Tensor]] = field(default_factory=dict)

    def build(self) -> Sequence[Tensor]:
        """Its outputs."""
        inputs = self.rewriter.inputs(self.node)
        self._lift_constants()
        packed = dict(self._packed(inputs))
        own = Graph(self.body.name, outputs=dict(self.body.outputs))
        for inside in self.body.leaves(Input):
            own.add_node(inside, ())
        for name, (type, _) in self.invariants.items():
            own.add_node(Node(name, Input(type), (type,)), ())
        for inside in self.body.nodes():
            if inside.name in own:
                continue
            reads = self.body.inputs_of(inside.name)
            if inside.name in packed:
                op = PackedMatMul(inside.types[0].shape[1])
                inside, reads = replace(inside, op=op), (reads[0], Value(packed[inside.name]))
            own.add_node(inside, reads)
            if inside.name in self.body.data:
                own.data[inside.name] = self.body.data[inside.name]
        changed = replace(self.op, body=Body.of(own))
        added = [x for _, x in self.invariants.values()]
        with self.rewriter.new.scope(prefix=""):
            return self.rewriter.new.apply(changed, *inputs, *added, name=self.node.name)

    def _lift_constants(self) -> None:
        for inside in self.body.leaves(Constant):
            if inside.types[0].size > 1:
                x = self.rewriter.new.constant(self.body.data[inside.name], name=inside.name)
                self.invariants[inside.name] = inside.types[0], x

    def _packed(self, inputs: Sequence[Tensor]) -> Iterator[tuple[str, str]]:
        """Products, and the packed matrices that they read, by name."""
        names = self.op.body.input_names
        own = {Value(n): x for n, x in zip(names, inputs, strict=True)}
        fixed = set(self.op.split(list(own))[2])
        for inside in self.body.nodes():
            if self.target is None or not is_packable(inside, self.body):
                continue
            matrix, transposed = self._matrix(self.body.inputs_of(inside.name)[1])
            if matrix in fixed:
                lanes = self.target.vector_bits // (8 * inside.types[0].dtype.size)
                groups, x = column_groups(self.body, inside, lanes), own[matrix]
                if groups > 1 and not transposed:
                    x, transposed = x.transpose(), True
                x = apply(PackWeight(groups, VECTORS * lanes, not transposed), x)
                name = self.body.unique_name(f"{matrix.node}.packed")
                self.invariants[name] = x.type, x
                yield inside.name, name

    def _matrix(self, value: Value) -> tuple[Value, bool]:
        """What a matrix is, and whether it is the transpose of that."""
        node = self.body.producer(value)
        if isinstance(node.op, Transpose):
            return self.body.inputs_of(node.name)[0], True
        return value, False
