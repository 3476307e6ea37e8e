"""Symbolic tensors: a value of a graph on which arithmetic builds nodes.

Gradient rules, composites and the modules of the front end are all written with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, ClassVar, TypeAlias, cast, overload

import numpy as np

from .errors import ShapeError
from .ops import movement as mv
from .ops import pointwise as pw
from .ops import reduce as rd
from .ops.base import Op, apply
from .types import Array, DType, Shape, TensorType, broadcast_shapes, normalize_axes, normalize_axis

if TYPE_CHECKING:
    from .graph import Graph, Value

Scalar: TypeAlias = bool | int | float
Axes: TypeAlias = int | tuple[int, ...] | list[int] | None
Key: TypeAlias = int | slice | EllipsisType | None

_PROMOTION = (
    DType.BOOL,
    DType.UINT8,
    DType.INT32,
    DType.INT64,
    DType.FLOAT32,
    DType.FLOAT64,
)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A handle on one value of a graph that is being built.

    Arguments:
        graph: the graph.
        value: which value of it.
    """

    graph: Graph
    value: Value
    # NumPy's own operators leave an array beside a tensor to those below.
    __array_ufunc__: ClassVar[None] = None

    # -- what it is -------------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:
        return self.graph.type_of(self.value)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return self.type.rank

    @property
    def ndim(self) -> int:
        return self.type.rank

    @overload
    def size(self) -> Shape: ...

    @overload
    def size(self, axis: int) -> int: ...

    def size(self, axis: int | None = None) -> int | Shape:
        """Extent along one axis, or the shape."""
        return self.shape if axis is None else self.shape[normalize_axis(axis, self.rank)]

    def dim(self) -> int:
        """The rank."""
        return self.rank

    def numel(self) -> int:
        """Number of elements."""
        return self.type.size

    def __len__(self) -> int:
        return self.size(0)

    def __repr__(self) -> str:
        return f"Tensor({self.value}: {self.type})"

    def __bool__(self) -> bool:
        raise ShapeError(
            f"the truth of {self.value} is not known before the network runs; "
            "use where(condition, a, b) in place of Python's if"
        )

    # -- arithmetic -------------------------------------------------------------------------------

    def constant(self, value: Scalar) -> Tensor:
        """A scalar constant of this tensor's dtype."""
        return self.graph.constant(value, self.dtype)

    def __add__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Add(), self, other)

    def __radd__(self, other: Scalar) -> Tensor:
        return _binary(pw.Add(), other, self)

    def __sub__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Subtract(), self, other)

    def __rsub__(self, other: Scalar) -> Tensor:
        return _binary(pw.Subtract(), other, self)

    def __mul__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Multiply(), self, other)

    def __rmul__(self, other: Scalar) -> Tensor:
        return _binary(pw.Multiply(), other, self)

    def __truediv__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Divide(), self, other, as_float=True)

    def __rtruediv__(self, other: Scalar) -> Tensor:
        return _binary(pw.Divide(), other, self, as_float=True)

    def __floordiv__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.FloorDivide(), self, other)

    def __mod__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Remainder(), self, other)

    def __pow__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Power(), self, other, as_float=True)

    def __rpow__(self, other: Scalar) -> Tensor:
        return _binary(pw.Power(), other, self, as_float=True)

    def __neg__(self) -> Tensor:
        return apply(pw.Negate(), self)

    def __abs__(self) -> Tensor:
        return apply(pw.Abs(), self)

    def __invert__(self) -> Tensor:
        return apply(pw.Not(), self)

    def __and__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.And(), self, other)

    def __or__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Or(), self, other)

    def __xor__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Xor(), self, other)

    def __lt__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Less(), self, other)

    def __le__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.LessEqual(), self, other)

    def __gt__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Greater(), self, other)

    def __ge__(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.GreaterEqual(), self, other)

    def equal(self, other: Tensor | Scalar) -> Tensor:
        """Element by element `==` (the operator itself compares handles)."""
        return _binary(pw.Equal(), self, other)

    def not_equal(self, other: Tensor | Scalar) -> Tensor:
        """Element by element `!=`."""
        return _binary(pw.NotEqual(), self, other)

    def maximum(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Maximum(), self, other)

    def minimum(self, other: Tensor | Scalar) -> Tensor:
        return _binary(pw.Minimum(), self, other)

    def where(self, a: Tensor | Scalar, b: Tensor | Scalar) -> Tensor:
        """Elements of a where this condition holds, else of b."""
        first, second = promote(a, b, like=self)
        return apply(pw.Where(), self, first, second)

    def exp(self) -> Tensor:
        return apply(pw.Exp(), self)

    def log(self) -> Tensor:
        return apply(pw.Log(), self)

    def sqrt(self) -> Tensor:
        return apply(pw.Sqrt(), self)

    def tanh(self) -> Tensor:
        return apply(pw.Tanh(), self)

    def sigmoid(self) -> Tensor:
        return apply(pw.Sigmoid(), self)

    def relu(self) -> Tensor:
        return apply(pw.Relu(), self)

    def abs(self) -> Tensor:
        return apply(pw.Abs(), self)

    def cast(self, dtype: DType | str) -> Tensor:
        """The same values in another dtype (itself when it has that dtype already)."""
        wanted = DType.of(dtype)
        return self if wanted is self.dtype else apply(pw.Cast(wanted), self)

    def detach(self) -> Tensor:
        """The same values as if they were constant: no gradient flows through."""
        from .ops.stop_gradient import StopGradient

        return apply(StopGradient(), self)

    # -- reductions -------------------------------------------------------------------------------
    # Over all axes by default. `dim` and `keepdim` are PyTorch's words for `axis` and `keepdims`.

    def sum(
        self, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False
    ) -> Tensor:
        return _reduce(self, rd.Sum, dim if axis is None else axis, keepdims or keepdim)

    def mean(
        self, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False
    ) -> Tensor:
        """Mean over axes, of floats."""
        axes = normalize_axes(dim if axis is None else axis, self.rank)
        count = 1
        for d in axes:
            count *= self.shape[d]
        x = self if self.dtype.is_float else self.cast(DType.FLOAT32)
        inverse = 1.0 / count if count else float("nan")
        return x.sum(axes, keepdims or keepdim) * inverse

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return _reduce(self, rd.Max, axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        return _reduce(self, rd.Min, axis, keepdims)

    def prod(
        self, axis: Axes = None, keepdims: bool = False, *, dim: Axes = None, keepdim: bool = False
    ) -> Tensor:
        return _reduce(self, rd.Product, dim if axis is None else axis, keepdims or keepdim)

    def amax(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """Largest element over axes."""
        return self.max(dim, keepdim)

    def amin(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """Smallest element over axes."""
        return self.min(dim, keepdim)

    def _drop(self, axes: tuple[int, ...]) -> Tensor:
        return self.reshape(tuple(n for d, n in enumerate(self.shape) if d not in axes))

    def sum_to(self, shape: Shape) -> Tensor:
        """Undoes broadcasting: the sum over every axis that broadcasting from `shape` repeated."""
        if self.shape == shape:
            return self
        lead = self.rank - len(shape)
        axes = tuple(range(lead)) + tuple(
            d + lead for d, n in enumerate(shape) if n == 1 and self.shape[d + lead] != 1
        )
        return (apply(rd.Sum(axes), self) if axes else self).reshape(shape)

    # -- movement ---------------------------------------------------------------------------------

    def reshape(self, *shape: int | Shape) -> Tensor:
        """Another shape of the same size; one extent may be -1."""
        extents = _extents(shape)
        if extents.count(-1) == 1:
            known = 1
            for e in extents:
                known *= e if e != -1 else 1
            rest = self.type.size // known if known else 0
            extents = tuple(rest if e == -1 else e for e in extents)
        return self if extents == self.shape else apply(mv.Reshape(extents), self)

    view = reshape

    def contiguous(self) -> Tensor:
        """Itself: where a value lies in memory is the compiler's choice."""
        return self

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes `start_dim` to `end_dim` (both included) as one."""
        if self.rank == 0:
            return self.reshape(1)
        first, last = normalize_axis(start_dim, self.rank), normalize_axis(end_dim, self.rank)
        merged = 1
        for extent in self.shape[first : last + 1]:
            merged *= extent
        return self.reshape(self.shape[:first] + (merged,) + self.shape[last + 1 :])

    def permute(self, *axes: int | Shape) -> Tensor:
        """Axes in another order."""
        order = tuple(normalize_axis(a, self.rank) for a in _extents(axes))
        return self if order == tuple(range(self.rank)) else apply(mv.Transpose(order), self)

    def transpose(self, first: int = -2, second: int = -1) -> Tensor:
        """Two axes exchanged; the last two by default."""
        order = list(range(self.rank))
        a, b = normalize_axis(first, self.rank), normalize_axis(second, self.rank)
        order[a], order[b] = order[b], order[a]
        return self.permute(tuple(order))

    def unsqueeze(self, axis: int) -> Tensor:
        """A new axis of extent 1."""
        d = normalize_axis(axis, self.rank + 1)
        return self.reshape(self.shape[:d] + (1,) + self.shape[d:])

    def squeeze(self, axis: Axes = None) -> Tensor:
        """Without axes of extent 1 (all of them, or those named that have extent 1)."""
        named = normalize_axes(axis, self.rank)
        return self._drop(tuple(d for d in named if self.shape[d] == 1))

    def broadcast_to(self, *shape: int | Shape) -> Tensor:
        extents = _extents(shape)
        return self if extents == self.shape else apply(mv.Broadcast(extents), self)

    def slice_axis(self, axis: int, start: int, size: int, step: int = 1) -> Tensor:
        """`size` elements of one axis from `start` in steps of `step`."""
        if size and (start, size, step) == (0, self.shape[axis], 1):
            return self
        whole = mv.slice_of(self.shape, (slice(None),) * self.rank)
        at = axis, axis + 1
        return apply(
            mv.Slice(
                whole.start[: at[0]] + (start,) + whole.start[at[1] :],
                whole.size[: at[0]] + (size,) + whole.size[at[1] :],
                whole.step[: at[0]] + (step,) + whole.step[at[1] :],
            ),
            self,
        )

    def __getitem__(self, key: Key | tuple[Key, ...]) -> Tensor:
        """Basic NumPy indexing: integers, slices with steps, Ellipsis, None for a new axis."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if keys.count(Ellipsis) > 1:
            raise ShapeError("an index has at most one Ellipsis")
        used = sum(k is not None and k is not Ellipsis for k in keys)
        if used > self.rank:
            raise ShapeError(f"{used} indices for {self.type}")
        if Ellipsis not in keys:
            keys.append(Ellipsis)
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (self.rank - used)
        return self._index(keys)

    def _index(self, keys: list[Key]) -> Tensor:
        parts: list[slice] = []
        shape: list[int] = []
        for k in keys:
            if k is None:
                shape.append(1)
                continue
            axis = len(parts)
            extent = self.shape[axis]
            if isinstance(k, slice):
                parts.append(k)
                shape.append(len(range(extent)[k]))
            elif isinstance(k, int):
                if not -extent <= k < extent:
                    raise ShapeError(f"index {k} leaves axis {axis} of {self.type}")
                parts.append(slice(k % extent, k % extent + 1))
            else:
                raise ShapeError(f"{k!r} cannot index a tensor; use gather for tensors of indices")
        op = mv.slice_of(self.shape, parts)
        whole = op == mv.slice_of(self.shape, (slice(None),) * self.rank)
        return (self if whole else apply(op, self)).reshape(tuple(shape))

    def __matmul__(self, other: Tensor) -> Tensor:
        from .ops.linear import matmul

        return matmul(self, other)


def _reduce(x: Tensor, op: type[rd.Reduction], axis: Axes, keepdims: bool) -> Tensor:
    axes = normalize_axes(axis, x.rank)
    result = apply(op(axes), x) if axes else x
    return result if keepdims else result._drop(axes)


def _extents(given: tuple[int | Shape, ...]) -> Shape:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    if len(given) == 1 and not isinstance(given[0], int):
        return tuple(int(e) for e in given[0])
    return tuple(int(e) for e in given if isinstance(e, int))


def promote(*operands: Tensor | Scalar, like: Tensor | None = None) -> tuple[Tensor, ...]:
    """Operands as tensors of one dtype: the widest of the tensors', floats before integers.

    Arguments:
        operands: tensors and Python scalars; a float scalar makes integers float32.
        like: gives the graph when all operands are scalars.
    """
    tensors = [x for x in operands if isinstance(x, Tensor)]
    scalars = [x for x in operands if not isinstance(x, Tensor)]
    anchor = tensors[0] if tensors else like
    if anchor is None:
        raise ShapeError("at least one operand must be a tensor")
    dtypes = [t.dtype for t in tensors]
    if any(isinstance(s, float) for s in scalars) and not any(d.is_float for d in dtypes):
        dtypes.append(DType.FLOAT32)
    elif not dtypes or (
        DType.BOOL in dtypes
        and len(set(dtypes)) == 1
        and any(not isinstance(s, bool) for s in scalars)
    ):
        dtypes.append(DType.INT64)
    dtype = max(dtypes, key=_PROMOTION.index)
    return tuple(
        x.cast(dtype) if isinstance(x, Tensor) else anchor.graph.constant(x, dtype)
        for x in operands
    )


def _binary(op: Op, a: Tensor | Scalar, b: Tensor | Scalar, as_float: bool = False) -> Tensor:
    if isinstance(b, np.ndarray) and isinstance(a, Tensor):
        b = _constant(b, a)
    elif isinstance(a, np.ndarray) and isinstance(b, Tensor):
        a = _constant(a, b)
    if not all(isinstance(x, Tensor | bool | int | float) for x in (a, b)):
        return cast(Tensor, NotImplemented)
    first, second = promote(a, b)
    if as_float and not first.dtype.is_float:
        first, second = first.cast(DType.FLOAT32), second.cast(DType.FLOAT32)
    return apply(op, first, second)


def _constant(array: Array, like: Tensor) -> Tensor:
    """An array as a constant; floats are of the tensor's precision, as Python's floats are."""
    dtype = DType.of(array.dtype)
    if dtype.is_float:
        dtype = like.dtype if like.dtype.is_float else DType.FLOAT32
    return like.graph.constant(array, dtype)


def broadcast_all(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors in their common shape."""
    shape = broadcast_shapes(*(t.shape for t in tensors))
    return tuple(t.broadcast_to(shape) for t in tensors)
