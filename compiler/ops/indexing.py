"""Operations that read or write at places given by data, and functions that cut and join.

An index below 0 counts from the end; one outside of the axis is clamped to its nearer end, so that
every access stays inside whatever the data say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType, TensorType, normalize_axis
from .base import Op, apply
from .composite import Composite
from .movement import Concat
from .pointwise import Gradients, Iota, IsNaN, Signals, Tensors

if TYPE_CHECKING:
    from ..tensor import Tensor


def resolve(indices: Array, extent: int) -> Array:
    """Indices into an axis: negative ones from the end, those outside clamped."""
    wide = indices.astype(np.int64)
    return np.asarray(np.clip(np.where(wide < 0, wide + extent, wide), 0, extent - 1))


@dataclass(frozen=True)
class Indexed(Op, abstract=True):
    """Base of the operations that index one axis by data."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def _check(self, indices: TensorType, whole: TensorType, axis: int) -> None:
        if indices.dtype not in (DType.INT32, DType.INT64):
            raise DTypeError(f"the indices of {self.name} are int32 or int64, got {indices}")
        if not 0 <= axis < whole.rank:
            raise ShapeError(f"{self.name} has no axis {axis} in {whole}")
        if indices.size and not whole.shape[axis]:
            raise ShapeError(f"{self.name} indexes the empty axis {axis} of {whole}")

    def _check_updates(self, updates: TensorType, wanted: TensorType) -> None:
        if updates.dtype is DType.BOOL:
            raise DTypeError(f"{self.name} adds numbers, got {updates}")
        if updates != wanted:
            raise ShapeError(f"the updates of {self.name} are {updates}, expected {wanted}")


@dataclass(frozen=True)
class Take(Indexed):
    """Slices of x at the indices along `axis` (numpy.take, ONNX: Gather); an embedding's look-up.

    Inputs x and indices (int32 or int64, any shape); the output's shape is x's, with that of the
    indices in place of the axis.
    """

    axis: int = 0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = inputs
        self._check(indices, x, self.axis)
        return (x.with_shape(x.shape[: self.axis] + indices.shape + x.shape[self.axis + 1 :]),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, indices = inputs
        return (np.take(x, resolve(indices, x.shape[self.axis]), axis=self.axis),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x, indices) = signals, inputs
        if signal is None:
            return (None, None)
        return apply(ScatterAdd(x.shape, self.axis), indices, signal), None


@dataclass(frozen=True)
class ScatterAdd(Indexed):
    """The transpose of Take: zeros of `shape`, to whose slices along `axis` the updates are added.

    Inputs indices and updates; updates of the same slice are added in the order of the indices.
    """

    shape: tuple[int, ...]
    axis: int = 0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        indices, updates = inputs
        whole = updates.with_shape(self.shape)
        self._check(indices, whole, self.axis)
        (wanted,) = Take(self.axis).infer(whole, indices)
        self._check_updates(updates, wanted)
        return (whole,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        indices, updates = inputs
        result = np.zeros(self.shape, updates.dtype)
        places = resolve(indices, self.shape[self.axis])
        key: Any = (slice(None),) * self.axis + (places,)
        np.add.at(result, key, updates)
        return (result,)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (indices, _) = signals, inputs
        return (None, apply(Take(self.axis), signal, indices) if signal is not None else None)


@dataclass(frozen=True)
class TakeAlongAxis(Indexed):
    """y[i, j, k] = x[i, indices[i, j, k], k] for axis 1 (torch.gather, ONNX: GatherElements).

    Inputs x and indices of the same rank; on the other axes indices are no longer than x.
    """

    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = inputs
        self._check(indices, x, self.axis)
        fits = x.rank == indices.rank and all(
            n <= m
            for d, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True))
            if d != self.axis
        )
        if not fits:
            raise ShapeError(f"indices {indices} leave {x} on another axis than {self.axis}")
        return (x.with_shape(indices.shape),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, indices = inputs
        return (x[_places(indices, x.shape, self.axis)],)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x, indices) = signals, inputs
        if signal is None:
            return (None, None)
        return apply(ScatterAddAlongAxis(x.shape, self.axis), indices, signal), None


@dataclass(frozen=True)
class ScatterAddAlongAxis(Indexed):
    """The transpose of TakeAlongAxis: zeros of `shape`, to whose elements the updates are added.

    Inputs indices and updates of the same shape; updates of one element are added in order.
    """

    shape: tuple[int, ...]
    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        indices, updates = inputs
        whole = updates.with_shape(self.shape)
        (wanted,) = TakeAlongAxis(self.axis).infer(whole, indices)
        self._check_updates(updates, wanted)
        return (whole,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        indices, updates = inputs
        result = np.zeros(self.shape, updates.dtype)
        np.add.at(result, _places(indices, self.shape, self.axis), updates)
        return (result,)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (indices, _) = signals, inputs
        if signal is None:
            return (None, None)
        return None, apply(TakeAlongAxis(self.axis), signal, indices)


def _places(indices: Array, shape: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """A NumPy index: the given indices on one axis, each element's own place on the others."""
    own: list[Array] = list(np.indices(indices.shape, sparse=True))
    own[axis] = resolve(indices, shape[axis])
    return tuple(own)


# -- composites -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneHot(Composite):
    """1 at the class each index names and 0 elsewhere, on a new axis (ONNX: OneHot).

    An index that names no class gives zeros only.

    Arguments:
        classes: extent of the new axis.
        axis: its place in the output, counted from the front; None puts it last.
        dtype: of the output.
    """

    classes: int
    axis: int | None = None
    dtype: DType = DType.FLOAT32
    differentiable: ClassVar[bool] = False

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (indices,) = inputs
        if not indices.dtype.is_integer:
            raise DTypeError(f"OneHot takes integers, got {indices.type}")
        axis = indices.rank if self.axis is None else self.axis
        if not 0 <= axis <= indices.rank:
            raise ShapeError(f"OneHot cannot put an axis {axis} into {indices.type}")
        if indices.dtype is DType.UINT8:
            indices = indices.cast(DType.INT32)
        numbers = own_indices(indices.unsqueeze(axis), axis, self.classes, indices.dtype)
        return (indices.unsqueeze(axis).equal(numbers).cast(self.dtype),)


@dataclass(frozen=True)
class ArgExtremum(Composite, abstract=True):
    """Base: where along an axis the extremum first stands; NaN counts as the extremum.

    Arguments:
        axis: counted from the front.
        keepdims: whether the axis stays, with extent 1.
    """

    axis: int
    keepdims: bool = False
    differentiable: ClassVar[bool] = False

    def extremum(self, x: Tensor) -> Tensor:
        """The extremum along the axis, which stays."""
        raise NotImplementedError(f"{self.name} has no extremum")

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"{self.name} has no axis {self.axis} in {x.type}")
        found = x.equal(self.extremum(x))
        if x.dtype.is_float:
            # With a NaN the extremum is NaN, which equals nothing: then only the NaNs are found.
            found = found | apply(IsNaN(), x)
        extent = x.shape[self.axis]
        numbers = own_indices(x, self.axis, extent, DType.INT32)
        first = found.where(numbers, numbers.constant(extent)).amin(self.axis, self.keepdims)
        return (first.cast(DType.INT64),)


@dataclass(frozen=True)
class ArgMax(ArgExtremum):
    """Index (int64) of the first largest element along an axis (ONNX: ArgMax)."""

    def extremum(self, x: Tensor) -> Tensor:
        return x.amax(self.axis, keepdim=True)


@dataclass(frozen=True)
class ArgMin(ArgExtremum):
    """Index (int64) of the first smallest element along an axis (ONNX: ArgMin)."""

    def extremum(self, x: Tensor) -> Tensor:
        return x.amin(self.axis, keepdim=True)


def own_indices(like: Tensor, axis: int, extent: int, dtype: DType) -> Tensor:
    """0, 1, … along one axis, of the rank of `like` and extent 1 on its other axes."""
    shape = tuple(extent if d == axis else 1 for d in range(like.rank))
    (result,) = like.graph.apply(Iota(TensorType(shape, dtype), axis))
    return result


# -- functions ------------------------------------------------------------------------------------


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Parts of x along an axis (torch.split, ONNX: Split).

    Arguments:
        sizes: extent of each part; a number cuts parts of that extent, the last one may be smaller.

    Raises:
        ShapeError: when the sizes do not add up to the axis.
    """
    d = normalize_axis(axis, x.rank)
    extent = x.shape[d]
    if isinstance(sizes, int):
        if sizes < 1:
            raise ShapeError(f"cannot split {x.type} into parts of extent {sizes}")
        sizes = [min(sizes, extent - start) for start in range(0, extent, sizes)] or [0]
    if sum(sizes) != extent or min(sizes, default=0) < 0:
        raise ShapeError(f"sizes {tuple(sizes)} do not add up to axis {axis} of {x.type}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(x.slice_axis(d, a, n) for a, n in zip(starts, sizes, strict=True))


def chunk(x: Tensor, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts of x along an axis, of equal extent but for the last (torch.chunk)."""
    if chunks < 1:
        raise ShapeError(f"cannot cut {x.type} into {chunks} chunks")
    return split(x, max(1, math.ceil(x.size(axis) / chunks)), axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side on a new axis (torch.stack)."""
    if not tensors:
        raise ShapeError("stack takes at least one tensor")
    shapes = {t.shape for t in tensors}
    if len(shapes) != 1:
        raise ShapeError(f"stack takes tensors of one shape, got {sorted(shapes)}")
    d = normalize_axis(axis, tensors[0].rank + 1)
    return apply(Concat(d), *(t.unsqueeze(d) for t in tensors))
