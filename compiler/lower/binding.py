"""What every kernel family starts from: a group, its buffers, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import CompileError
from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Buffer, Space
from ..types import DType, Shape, restrided
from .elements import Elements, is_number, local_name, unique


@dataclass(frozen=True)
class Lowered:
    """A kernel and the values that its parameters stand for."""

    kernel: ir.Kernel
    arguments: tuple[Value, ...]


@dataclass
class Binding:
    """A group about to be lowered.

    Attributes:
        graph: the graph.
        group: which of its nodes.
        target: the machine.
        shapes: shapes under which values are indexed where that is not their own.
    """

    graph: Graph
    group: Group
    target: Target
    shapes: Mapping[Value, Shape] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    scratch: list[Buffer] = field(default_factory=list)

    @cached_property
    def inputs(self) -> dict[Value, Buffer]:
        """A buffer for every value the group reads, but for constants of one element."""
        read = (v for v in self.group.inputs if not is_number(self.graph, v))
        return {v: self._buffer(v) for v in read}

    @cached_property
    def outputs(self) -> dict[Value, Buffer]:
        """A buffer for every value the group writes."""
        return {v: self._buffer(v) for v in self.group.outputs}

    def _buffer(self, value: Value) -> Buffer:
        type = self.graph.type_of(value)
        hint = local_name(value.node) + (f"_{value.port}" if value.port else "")
        shape, gaps = self.shape(value), dict(self.group.strides).get(value)
        if gaps is not None:
            gaps = restrided(type.shape, gaps, shape)
            if gaps is None:
                raise CompileError(
                    f"{self.group.name} reads or writes {value} as {shape}, which has gaps in it"
                )
        return Buffer(unique(hint, self.names), shape, type.dtype, gaps=gaps)

    def shape(self, value: Value) -> Shape:
        """The shape a value is indexed by."""
        found = self.shapes.get(value)
        return self.graph.type_of(value).shape if found is None else found

    def local(self, hint: str, shape: Shape, dtype: DType, space: Space) -> Buffer:
        """A buffer of the kernel's own; scratch is given to it by the plan."""
        buffer = Buffer(unique(hint, self.names), shape, dtype, space)
        if space is Space.SCRATCH:
            self.scratch.append(buffer)
        return buffer

    def var(self, hint: str) -> ir.Var:
        """A new loop variable."""
        return ir.Var(unique(hint, self.names))

    def loop(self, hint: str, extent: int) -> tuple[ir.Expr, ir.Loops]:
        """A number below `extent`, and the loop over it, which a single round does without."""
        if extent == 1:
            return ir.index(0), ()
        var = self.var(hint)
        return var, ((var, extent),)

    def elements(self, given: Mapping[Value, ir.Expr] | None = None) -> Elements:
        """Elements of what the group reads and computes."""
        return Elements(
            self.graph, dict(self.inputs), dict(given or {}), dict(self.shapes), names=self.names
        )

    def lanes(self, *dtypes: DType) -> int:
        """Lanes of a vector loop over values of these types; narrow types count as 32 bits."""
        wide = any(d is DType.FLOAT64 for d in dtypes)
        return self.target.vector_bits // (64 if wide else 32)

    @cached_property
    def dtypes(self) -> tuple[DType, ...]:
        """Dtypes of all that the group computes."""
        return tuple(t.dtype for n in self.group.nodes for t in self.graph.node(n).types)

    def finish(self, body: ir.Block, note: str = "") -> Lowered:
        """The kernel."""
        values = {**self.inputs, **self.outputs}
        kernel = ir.Kernel(self.group.name, tuple(values.values()), body, tuple(self.scratch), note)
        return Lowered(kernel, tuple(values))
