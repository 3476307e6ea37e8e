"""What a matrix product is to its kernels: two operands to be asked for elements, and a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..graph import Value
from ..loops import ir
from ..loops.ir import Buffer, Expr, LoopKind, Space
from ..ops.movement import Slice, Transpose
from ..types import Shape, row_major_strides
from .anchored import Anchored
from .elements import Elements
from .epilogue import store_results
from .index import Index, broadcast_index
from .tile import panels


@dataclass
class Product(Anchored):
    """result[…, i, j] = sum over k of left[…, i, k] * right[…, k, j].

    Arguments:
        swapped: whether rows and columns are exchanged: the same product of the transposes.
        copied: the left operand as (*batch, chunk, row, term), if it has been copied.
    """

    swapped: bool = False
    copied: Buffer | None = None

    @cached_property
    def swap(self) -> Product:
        """The product of the transposes, right by left."""
        return replace(self, swapped=not self.swapped)

    @cached_property
    def shape(self) -> Shape:
        """(*batch, rows, columns)"""
        *batch, m, n = self.binding.graph.type_of(self.result).shape
        return (*batch, n, m) if self.swapped else (*batch, m, n)

    @cached_property
    def operands(self) -> tuple[Value, Value]:
        """Left and right."""
        left, right = self.inputs
        return (right, left) if self.swapped else (left, right)

    @property
    def rows(self) -> int:
        return self.shape[-2]

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @cached_property
    def depth(self) -> int:
        """Extent of the summed dimension."""
        left, _ = self.inputs
        return self.binding.graph.type_of(left).shape[-1]

    @property
    def zero(self) -> ir.Const:
        return ir.Const(0.0 if self.dtype.is_float else 0, self.dtype)

    @cached_property
    def batch(self) -> list[tuple[ir.Var, int]]:
        """Parallel loops over the batch axes."""
        return [(self.binding.var("b"), n) for n in self.shape[:-2]]

    def batch_of(self, operand: int) -> Shape:
        """Extents of an operand's batch axes."""
        return self.binding.graph.type_of(self.operands[operand]).shape[:-2]

    # -- where operands lie -----------------------------------------------------------------------

    @cached_property
    def left_strides(self) -> tuple[int, int]:
        """How far apart rows, and terms, of the left operand are."""
        row, k = self._strides(0)
        return (k, row) if self.swapped else (row, k)

    @cached_property
    def right_strides(self) -> tuple[int, int]:
        """How far apart terms, and columns, of the right operand are."""
        k, column = self._strides(1)
        return (column, k) if self.swapped else (k, column)

    def _strides(self, operand: int) -> tuple[int, int]:
        """Elements from one place to the next along the last two axes; 0 where there is but one."""
        graph, value = self.binding.graph, self.operands[operand]
        moves: list[Transpose | Slice] = []
        while value not in self.binding.inputs:
            node = graph.producer(value)
            if not isinstance(node.op, Transpose | Slice):
                break
            moves.append(node.op)
            (value,) = graph.inputs_of(node.name)
        source = self.binding.inputs.get(value)
        shape = self.binding.shape(value)
        strides = list(source.strides if source is not None else row_major_strides(shape))
        for op in reversed(moves):
            if isinstance(op, Transpose):
                strides = [strides[axis] for axis in op.permutation]
            else:
                strides = [s * step for s, step in zip(strides, op.step, strict=True)]
        shape = graph.type_of(self.operands[operand]).shape
        row, column = (s if n > 1 else 0 for s, n in zip(strides[-2:], shape[-2:], strict=True))
        return row, column

    def with_copied_left(self, terms: int) -> tuple[ir.Block, Product]:
        """The product with a left operand in chunks of terms, and how these get there."""
        batch = zip(self.batch_of(0), self.shape[:-2], strict=True)
        lead = tuple(1 if n == 1 else m for n, m in batch)
        chunks = -(-self.depth // terms)
        copied = self.local("left", (*lead, chunks, self.rows, terms), Space.SCRATCH)
        loops = [(b, n) for (b, _), n in zip(self.batch, lead, strict=True)]
        body: ir.Block = ()
        for span in panels(self.depth, terms):
            chunk, row, k = (self.binding.var(h) for h in ("chunk", "row", "k"))
            number = chunk + span.start // terms
            lets, x = self.left(row, number * terms + k)
            store = (*lets, ir.Store(copied, (*self.batch_index(lead), number, row, k), x))
            vector = ir.For(k, span.length, store, LoopKind.VECTOR, self.lanes)
            nest = (*loops, (chunk, span.count), (row, self.rows))
            body += ir.loop_nest(nest, (vector,), LoopKind.PARALLEL)
        return body, replace(self, copied=copied)

    # -- elements ---------------------------------------------------------------------------------

    def left(self, row: Expr, k: Expr) -> tuple[ir.Block, Expr]:
        """An element of the left operand, and the statements it needs before."""
        if self.copied is not None:
            *lead, _, _, terms = self.copied.shape
            index = (*self.batch_index(tuple(lead)), k // terms, row, k % terms)
            return (), ir.Load(self.copied, index)
        return self._operand(0, row, k)

    def right(self, k: Expr, column: Expr) -> tuple[ir.Block, Expr]:
        """An element of the right operand, and the statements it needs before."""
        return self._operand(1, k, column)

    def _operand(self, number: int, row: Expr, column: Expr) -> tuple[ir.Block, Expr]:
        if self.swapped:
            row, column = column, row
        elements = self.binding.elements()
        value = self.operands[number]
        index = (*(var for var, _ in self.batch), row, column)
        x = elements.at(value, broadcast_index(index, elements.shape(value)))
        return _inlined(elements, x)

    def batch_index(self, shape: Shape) -> Index:
        """Where the batch loops stand, in something of so many batch axes."""
        return broadcast_index(tuple(var for var, _ in self.batch), shape)

    def store(self, x: Expr, row: Expr, column: Expr) -> ir.Block:
        """Stores what follows from a sum."""
        if self.swapped:
            row, column = column, row
        index = (*(var for var, _ in self.batch), row, column)
        given: Mapping[Value, Expr] = {self.result: x}
        return store_results(self.binding, given, index)

    def local(self, hint: str, shape: Shape, space: Space) -> Buffer:
        """A buffer of the kernel's own, of the product's dtype."""
        return self.binding.local(hint, shape, self.dtype, space)


def _inlined(elements: Elements, value: Expr) -> tuple[ir.Block, Expr]:
    """Loads of a tile are written in place, where they have just been named."""
    block = elements.take_block()
    last = block[-1] if block else None
    if isinstance(last, ir.Let) and last.var == value:
        return block[:-1], last.value
    return block, value
