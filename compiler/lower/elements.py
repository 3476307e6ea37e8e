"""Single elements of values, as loop expressions, computed on demand.

A kernel asks for the element of a value at an index. If the value is in memory, that is a load. If
it is what the kernel's own loops have just computed, that is given. Otherwise the element follows
from elements of the node's inputs: point nodes ask at the same place (broadcasting undone), moves
at the place they move from. So fusion, broadcasting and views are one mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch

from ..errors import CompileError
from ..graph import Graph, Node, Value
from ..loops import ir
from ..loops.ir import BinaryOp, Buffer, Const, Expr, Function
from ..ops import movement as mv
from ..ops import pointwise as pw
from ..ops.base import Op
from ..ops.blocked import Block, PackWeight, Unblock
from ..ops.indexing import Take, TakeAlongAxis
from ..ops.leaf import Constant
from ..ops.random import Philox
from ..ops.reduce import Max
from ..types import DType, Shape
from .philox import uniform

Index = tuple[Expr, ...]


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

    def aligned(self, value: Value, index: Index, shape: Shape) -> Expr:
        """The element of an operand where the result, of `shape`, is asked at `index`."""
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


def broadcast_index(index: Index, shape: Shape) -> Index:
    """Where an operand of `shape` is read, for a result element at `index`."""
    tail = index[len(index) - len(shape) :] if shape else ()
    return tuple(ir.index(0) if n == 1 else i for i, n in zip(tail, shape, strict=True))


# -- what each operation does to one element ------------------------------------------------------


@singledispatch
def element(op: Op, node: Node, elements: Elements, index: Index) -> Expr:
    """The element of a node's output at `index`."""
    raise CompileError(f"{op.name} cannot be computed element by element").at(
        node.name, node.source
    )


_FUNCTIONS: dict[type[Op], Function] = {
    pw.Negate: Function.NEG,
    pw.Abs: Function.ABS,
    pw.Sign: Function.SIGN,
    pw.Expm1: Function.EXPM1,
    pw.Log: Function.LOG,
    pw.Log1p: Function.LOG1P,
    pw.Sqrt: Function.SQRT,
    pw.Sin: Function.SIN,
    pw.Cos: Function.COS,
    pw.Tanh: Function.TANH,
    pw.Sigmoid: Function.SIGMOID,
    pw.Erf: Function.ERF,
    pw.Floor: Function.FLOOR,
    pw.Ceil: Function.CEIL,
    pw.Round: Function.ROUND,
    pw.IsNaN: Function.ISNAN,
    pw.Not: Function.NOT,
}

_BINARY: dict[type[Op], BinaryOp] = {
    pw.Add: BinaryOp.ADD,
    pw.Subtract: BinaryOp.SUB,
    pw.Multiply: BinaryOp.MUL,
    pw.Divide: BinaryOp.DIV,
    pw.FloorDivide: BinaryOp.FLOORDIV,
    pw.Remainder: BinaryOp.MOD,
    pw.Power: BinaryOp.POW,
    pw.Maximum: BinaryOp.MAX,
    pw.Minimum: BinaryOp.MIN,
    pw.Equal: BinaryOp.EQ,
    pw.NotEqual: BinaryOp.NE,
    pw.Less: BinaryOp.LT,
    pw.LessEqual: BinaryOp.LE,
    pw.And: BinaryOp.AND,
    pw.Or: BinaryOp.OR,
    pw.Xor: BinaryOp.XOR,
}

_SWAPPED: dict[type[Op], BinaryOp] = {
    pw.Greater: BinaryOp.LT,
    pw.GreaterEqual: BinaryOp.LE,
}


def _operands(node: Node, elements: Elements, index: Index) -> list[Expr]:
    return [
        elements.aligned(v, index, node.types[0].shape) for v in elements.graph.inputs_of(node.name)
    ]


@element.register
def _(op: pw.Exp, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    (value,) = elements.graph.inputs_of(node.name)
    return ir.Call(Function.DECAY if _is_below_maximum(elements.graph, value) else Function.EXP, x)


def _is_below_maximum(graph: Graph, value: Value) -> bool:
    """Whether a value is another one less its largest elements, so that it is not above zero."""
    node = graph.producer(value)
    if not isinstance(node.op, pw.Subtract):
        return False
    x, top = graph.inputs_of(node.name)
    largest = graph.producer(top)
    return isinstance(largest.op, Max) and graph.inputs_of(largest.name) == (x,)


@element.register
def _(op: pw.Unary, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    if isinstance(op, pw.Relu):
        zero = Const(0.0 if x.dtype.is_float else 0, x.dtype)
        return ir.Select(ir.Binary(BinaryOp.LT, x, zero), zero, x)
    return ir.Call(_FUNCTIONS[type(op)], x)


@element.register
def _(op: pw.Binary, node: Node, elements: Elements, index: Index) -> Expr:
    a, b = _operands(node, elements, index)
    if type(op) in _SWAPPED:
        return ir.Binary(_SWAPPED[type(op)], b, a)
    return ir.Binary(_BINARY[type(op)], a, b)


@element.register
def _(op: pw.Where, node: Node, elements: Elements, index: Index) -> Expr:
    condition, a, b = _operands(node, elements, index)
    return ir.Select(condition, a, b)


@element.register
def _(op: pw.Cast, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    return x if x.dtype is op.dtype else ir.Cast(x, op.dtype)


@element.register
def _(op: pw.Iota, node: Node, elements: Elements, index: Index) -> Expr:
    place = index[op.axis]
    return place if op.type.dtype is ir.INDEX else ir.Cast(place, op.type.dtype)


@element.register
def _(op: mv.Broadcast, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    return x


@element.register
def _(op: mv.Reshape, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = elements.graph.inputs_of(node.name)
    return elements.at(x, reshaped_index(index, node.types[0].shape, elements.shape(x)))


@element.register
def _(op: mv.Transpose, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    source: list[Expr] = [ir.index(0)] * len(index)
    for place, axis in zip(index, op.permutation, strict=True):
        source[axis] = place
    return elements.at(x, tuple(source))


@element.register
def _(op: mv.Slice, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    return elements.at(
        x, tuple(i * s + a for i, a, s in zip(index, op.start, op.step, strict=True))
    )


@element.register
def _(op: mv.Unslice, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    shape = elements.shape(x)
    dtype = node.types[0].dtype
    zero = Const(0.0 if dtype.is_float else False if dtype is DType.BOOL else 0, dtype)
    if 0 in shape:
        return zero
    conditions: list[Expr] = []
    source: list[Expr] = []
    for place, start, step, size, extent in zip(
        index, op.start, op.step, shape, op.shape, strict=True
    ):
        if (start, step, size) == (0, 1, extent):
            source.append(place)
            continue
        low, width = (start, step) if step > 0 else (start + (size - 1) * step, -step)
        offset = place - low
        conditions += [offset >= 0, offset < size * width]
        if width != 1:
            inside = ir.clamp(offset, 0, size * width - 1)
            conditions.append(ir.binary(BinaryOp.EQ, inside % width, 0))
            slot = inside // width
        else:
            slot = ir.clamp(offset, 0, size - 1)
        source.append(slot if step > 0 else (size - 1) - slot)
    value = elements.at(x, tuple(source))
    return _guarded(conditions, value, zero)


def _guarded(conditions: Sequence[Expr], value: Expr, otherwise: Expr) -> Expr:
    if not conditions:
        return value
    whole = conditions[0]
    for condition in conditions[1:]:
        whole = whole & condition
    return ir.Select(whole, value, otherwise)


@element.register
def _(op: mv.Pad, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    shape = elements.shape(x)
    dtype = node.types[0].dtype
    fill = Const(dtype.numpy.type(op.value).item(), dtype)
    if 0 in shape:
        return fill
    conditions: list[Expr] = []
    source: list[Expr] = []
    for place, (before, after), extent in zip(index, op.padding, shape, strict=True):
        if (before, after) == (0, 0):
            source.append(place)
            continue
        inner = place - before
        if op.mode is mv.PadMode.CONSTANT:
            conditions += [inner >= 0, inner < extent]
        source.append(_padded_place(inner, extent, op.mode))
    return _guarded(conditions, elements.at(x, tuple(source)), fill)


def _padded_place(inner: Expr, extent: int, mode: mv.PadMode) -> Expr:
    """Which element stands at `inner`, which may lie outside of [0, extent)."""
    last = extent - 1
    if mode is mv.PadMode.REFLECT:
        inner = ir.Select(inner < 0, 0 - inner, inner)
        inner = ir.Select(inner <= last, inner, 2 * last - inner)
    elif mode is mv.PadMode.WRAP:
        inner = ir.Select(inner < 0, inner + extent, inner)
        inner = ir.Select(inner <= last, inner, inner - extent)
    return ir.clamp(inner, 0, last)


@element.register
def _(op: Block, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    batch, block, *spatial, lane = index
    return elements.at(x, (batch, block * op.size + lane, *spatial))


@element.register
def _(op: Unblock, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    size = elements.shape(x)[-1]
    batch, channel, *spatial = index
    return elements.at(x, (batch, channel // size, *spatial, channel % size))


@element.register
def _(op: PackWeight, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (w,) = elements.graph.inputs_of(node.name)
    group, panel, depth, *taps, lane = index
    shape = elements.shape(w)
    outer, inner = shape[0] // op.groups, shape[1]
    channels = inner if op.transposed else outer
    channel = panel * op.panel + lane
    if op.joined:
        total = op.groups * channels
        place = ir.clamp(channel, 0, total - 1) if total % op.panel else channel
        group, place = place // channels, place % channels
        pair = (depth, place) if op.transposed else (place, depth)
        x = elements.at(w, (group * outer + pair[0], pair[1], *taps))
        zero = Const(0.0, node.types[0].dtype)
        return _guarded([channel < total] if total % op.panel else [], x, zero)
    place = ir.clamp(channel, 0, channels - 1) if channels % op.panel else channel
    pair = (depth, place) if op.transposed else (place, depth)
    x = elements.at(w, (group * outer + pair[0], pair[1], *taps))
    zero = Const(0.0, node.types[0].dtype)
    return _guarded([channel < channels] if channels % op.panel else [], x, zero)


@element.register
def _(op: Take, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    x, indices = elements.graph.inputs_of(node.name)
    shape, rank = elements.shape(x), len(elements.shape(indices))
    chosen = elements.at(indices, index[op.axis : op.axis + rank])
    place = data_index(chosen, shape[op.axis])
    return elements.at(x, index[: op.axis] + (place,) + index[op.axis + rank :])


@element.register
def _(op: TakeAlongAxis, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    x, indices = elements.graph.inputs_of(node.name)
    place = data_index(elements.at(indices, index), elements.shape(x)[op.axis])
    return elements.at(x, index[: op.axis] + (place,) + index[op.axis + 1 :])


def data_index(chosen: Expr, extent: int) -> Expr:
    """An index that comes from data: counted from the end when negative, kept inside."""
    wide = chosen if chosen.dtype is ir.INDEX else ir.Cast(chosen, ir.INDEX)
    return ir.clamp(ir.Select(wide < 0, wide + extent, wide), 0, extent - 1)


@element.register
def _(op: Philox, node: Node, elements: Elements, index: Index) -> Expr:
    counters = elements.graph.inputs_of(node.name)
    seed, step = (elements.at(v, (ir.index(0),) * len(elements.shape(v))) for v in counters)
    return uniform(op, linear_index(index, elements.shape(Value(node.name))), seed, step, elements)


def linear_index(index: Index, shape: Shape) -> Expr:
    """Row-major number of an element."""
    result: Expr = ir.index(0)
    for place, extent in zip(index, shape, strict=True):
        result = result * extent + place
    return result


def reshaped_index(index: Index, shape: Shape, source: Shape) -> Index:
    """The index in `source` of the element at `index` in `shape`, both of one size."""
    rest = linear_index(index, shape)
    result: list[Expr] = []
    for extent in reversed(source):
        result.append(rest % extent)
        rest = rest // extent
    return tuple(reversed(result))
