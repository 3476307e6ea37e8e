"""What each operation does to one element.

Point nodes ask for elements of their operands at the same place, moves where they move from
(`moves.py`), and gathers where their indices say.
"""

from __future__ import annotations

from functools import reduce, singledispatch
from operator import and_
from typing import TYPE_CHECKING

from ..errors import CompileError
from ..graph import Graph, Node, Value
from ..loops import ir
from ..loops.ir import BinaryOp, Const, Expr, Function
from ..ops import movement as mv
from ..ops import pointwise as pw
from ..ops.base import Op
from ..ops.indexing import Take, TakeAlongAxis
from ..ops.random import Philox
from ..ops.reduce import Max
from .index import Index, data_index, linear_index, reshaped_index
from .moves import Move, source
from .philox import uniform

if TYPE_CHECKING:
    from .elements import Elements


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
    return [elements.aligned(v, index) for v in elements.graph.inputs_of(node.name)]


@element.register(pw.Exp)
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


@element.register(pw.Unary)
def _(op: pw.Unary, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    if isinstance(op, pw.Relu):
        zero = Const(0.0 if x.dtype.is_float else 0, x.dtype)
        return ir.Select(ir.Binary(BinaryOp.LT, x, zero), zero, x)
    return ir.Call(_FUNCTIONS[type(op)], x)


@element.register(pw.Binary)
def _(op: pw.Binary, node: Node, elements: Elements, index: Index) -> Expr:
    a, b = _operands(node, elements, index)
    if type(op) in _SWAPPED:
        return ir.Binary(_SWAPPED[type(op)], b, a)
    return ir.Binary(_BINARY[type(op)], a, b)


@element.register(pw.Where)
def _(op: pw.Where, node: Node, elements: Elements, index: Index) -> Expr:
    condition, a, b = _operands(node, elements, index)
    return ir.Select(condition, a, b)


@element.register(pw.Cast)
def _(op: pw.Cast, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    return x if x.dtype is op.dtype else ir.Cast(x, op.dtype)


@element.register(pw.Iota)
def _(op: pw.Iota, node: Node, elements: Elements, index: Index) -> Expr:
    place = index[op.axis]
    return place if op.type.dtype is ir.INDEX else ir.Cast(place, op.type.dtype)


@element.register(mv.Broadcast)
def _(op: mv.Broadcast, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = _operands(node, elements, index)
    return x


@element.register(mv.Reshape)
def _(op: mv.Reshape, node: Node, elements: Elements, index: Index) -> Expr:
    (x,) = elements.graph.inputs_of(node.name)
    return elements.at(x, reshaped_index(index, node.types[0].shape, elements.shape(x)))


@element.register(Move)
def _(op: Move, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    (x,) = elements.graph.inputs_of(node.name)
    dtype, shape = node.types[0].dtype, elements.shape(x)
    fill = Const(dtype.numpy.type(op.value if isinstance(op, mv.Pad) else 0).item(), dtype)
    if 0 in shape:
        return fill
    place = source(op, index, shape)
    value = elements.at(x, place.index)
    return ir.Select(reduce(and_, place.conditions), value, fill) if place.conditions else value


@element.register(Take)
def _(op: Take, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    x, indices = elements.graph.inputs_of(node.name)
    shape, rank = elements.shape(x), len(elements.shape(indices))
    chosen = elements.at(indices, index[op.axis : op.axis + rank])
    place = data_index(chosen, shape[op.axis])
    return elements.at(x, index[: op.axis] + (place,) + index[op.axis + rank :])


@element.register(TakeAlongAxis)
def _(op: TakeAlongAxis, node: Node, elements: Elements, index: Index) -> Expr:
    elements = elements.elsewhere()
    x, indices = elements.graph.inputs_of(node.name)
    place = data_index(elements.at(indices, index), elements.shape(x)[op.axis])
    return elements.at(x, index[: op.axis] + (place,) + index[op.axis + 1 :])


@element.register(Philox)
def _(op: Philox, node: Node, elements: Elements, index: Index) -> Expr:
    counters = elements.graph.inputs_of(node.name)
    seed, step = (elements.at(v, (ir.index(0),) * len(elements.shape(v))) for v in counters)
    return uniform(op, linear_index(index, elements.shape(Value(node.name))), seed, step, elements)
