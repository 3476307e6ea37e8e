"""Single elements of values, as loop expressions, computed on demand.

A kernel asks for the element of a value at an index. If the value is in memory, that is a load. If
it is what the kernel's own loops have just computed, that is given. Otherwise the element follows
from elements of the node's inputs, as `element_rules.py` says. So fusion, broadcasting and views
are one mechanism.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph import Graph, Value
from ..loops import ir
from ..loops.ir import Buffer, Const, Expr
from ..ops.leaf import Constant
from ..types import Shape
from .element_rules import element
from .index import Index, broadcast_index


@dataclass
class Elements:
    """Elements of the values a kernel deals with.

    Attributes:
        graph: the graph.
        memory: values that are in memory.
        held: values that are in memory where the loops stand, but not yet at other places.
        given: values computed by the kernel's loops, at the place where the loops stand.
        shapes: shapes under which values are indexed where that is not their own.
        block: statements that name what has been computed; the kernel puts them in its loop body.
    """

    graph: Graph
    memory: dict[Value, Buffer]
    given: dict[Value, Expr] = field(default_factory=dict)
    shapes: dict[Value, Shape] = field(default_factory=dict)
    block: list[ir.Stmt] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    held: dict[Value, Buffer] = field(default_factory=dict)
    _known: dict[tuple[Value, Index], Expr] = field(default_factory=dict)
    _elsewhere: Elements | None = None

    def inner(self) -> Elements:
        """The same elements for a loop inside of this one: what is known here is known there."""
        return Elements(
            self.graph,
            dict(self.memory),
            dict(self.given),
            dict(self.shapes),
            [],
            self.names,
            dict(self.held),
            dict(self._known),
        )

    def elsewhere(self) -> Elements:
        """Elements at other places than where the loops stand: moves read from there."""
        if not self.given and not self.held:
            return self
        if self._elsewhere is None:
            self._elsewhere = Elements(
                self.graph, self.memory, {}, self.shapes, self.block, self.names
            )
        return self._elsewhere

    def hold(self, value: Value, buffer: Buffer) -> None:
        """From here on the value is in memory, where the loops stand."""
        self.held[value] = buffer

    def put(self, value: Value, index: Index, x: Expr) -> None:
        """An element that the kernel's loops have computed, of which they know where it is."""
        self._known[value, index] = x

    def shape(self, value: Value) -> Shape:
        """The shape a value is indexed by."""
        held = self.held.get(value)
        found = self.shapes.get(value) if held is None else held.shape
        return self.graph.type_of(value).shape if found is None else found

    def at(self, value: Value, index: Index) -> Expr:
        """The element of `value` at `index`, of the rank of `shape(value)`."""
        given = self.given.get(value)
        if given is not None:
            return given
        scalar = self.scalar(value)
        if scalar is not None:
            return scalar
        key = (value, index)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._compute(value, index)
        return known

    def aligned(self, value: Value, index: Index) -> Expr:
        """The element of an operand where the result is asked at `index`."""
        return self.at(value, broadcast_index(index, self.shape(value)))

    def name(self, value: Expr, hint: str) -> Expr:
        """The value under a name of its own, so that it is computed once."""
        if isinstance(value, ir.Var | Const):
            return value
        name = unique(hint, self.names)
        var = ir.Var(name, value.dtype)
        self.block.append(ir.Let(var, value))
        return var

    def take_block(self) -> ir.Block:
        """The statements so far; what comes next starts anew."""
        block = tuple(self.block)
        self.block.clear()
        return block

    def scalar(self, value: Value) -> Const | None:
        """The number, where the value is a constant of one element."""
        if not is_number(self.graph, value):
            return None
        node = self.graph.producer(value)
        return Const(self.graph.data[node.name].item(), node.types[0].dtype)

    def _compute(self, value: Value, index: Index) -> Expr:
        buffer = self.held.get(value) or self.memory.get(value)
        node = self.graph.producer(value)
        if buffer is not None:
            return self.name(ir.Load(buffer, index), f"{buffer.name}_")
        return self.name(element(node.op, node, self, index), local_name(node.name))


def is_number(graph: Graph, value: Value) -> bool:
    """Whether a value is a constant of one element, known when the kernel is built."""
    node = graph.producer(value)
    known = isinstance(node.op, Constant) and node.name in graph.data
    return known and node.types[0].size == 1


def unique(hint: str, taken: set[str]) -> str:
    """A name that is not taken, which it then is."""
    name, number = hint, 1
    while name in taken:
        number += 1
        name = f"{hint}{number}"
    taken.add(name)
    return name


def local_name(node: str) -> str:
    """A node's name as a variable: its last parts, without dots."""
    return "_".join(node.split(".")[-2:]).replace(":", "_")
