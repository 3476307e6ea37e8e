"""Pooling over 1 to 3 spatial axes: x is (N, C, *spatial), each channel is pooled by itself.

Max-pooling gives, beside the maximum, its position inside the window: one byte a window, in place
of the input, is all that the backward graph needs. Pooling to a given size is in `adaptive.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, DType, Shape, TensorType, row_major_strides
from .base import Op, apply
from .composite import Composite
from .indexing import TakeAlongAxis, own_indices, resolve
from .linear import FLOATS, common_dtype, in_double
from .pointwise import Gradients, Signals, Tensors
from .window import Pairs, Window, WithSpatial, spatial_of

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Pool(Op, abstract=True):
    """Base of the pooling operations.

    Arguments:
        kernel: extents of a window along the spatial axes.
        stride: distance between neighbouring windows.
        padding: (low, high) places before and after each spatial axis.
        dilation: distance between neighbouring places of a window.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    @property
    def position_dtype(self) -> DType:
        """Of positions inside a window: uint8 where they fit, else int32."""
        return DType.UINT8 if self.window.size <= 256 else DType.INT32

    def pooled(self, x: TensorType) -> TensorType:
        """Type of one element a window of x.

        Raises:
            ShapeError, DTypeError: when the windows do not fit x, or x does not hold floats.
        """
        common_dtype(self.name, (x,), FLOATS)
        return x.with_shape(x.shape[:2] + self.window.outputs(spatial_of(self.name, x)))

    def unpooled(self, dy: TensorType, spatial: Shape) -> TensorType:
        """Type of what was pooled, from one element a window.

        Raises:
            ShapeError, DTypeError: when pooling `spatial` does not give the extents of dy.
        """
        common_dtype(self.name, (dy,), FLOATS)
        expected = self.window.outputs(spatial)
        if spatial_of(self.name, dy) != expected:
            raise ShapeError(
                f"dy {dy} has spatial extents {dy.shape[2:]}, but pooling {spatial} gives "
                f"{expected}"
            )
        return dy.with_shape(dy.shape[:2] + spatial)

    def check_position(self, position: TensorType, pooled: TensorType) -> None:
        """
        Raises:
            ShapeError, DTypeError: for positions that do not belong to `pooled`.
        """
        if position.shape != pooled.shape:
            raise ShapeError(f"positions {position} do not fit the windows of {pooled}")
        if position.dtype is not self.position_dtype:
            raise DTypeError(
                f"positions in a kernel {self.kernel} of {self.window.size} places are "
                f"{self.position_dtype}, got {position.dtype}"
            )

    def clipped(self, position: Array) -> Array:
        """Positions as indices (N, C, 1, *windows) of an unfolded value; wrong ones are clamped."""
        return np.clip(position.astype(np.int64), 0, self.window.size - 1)[:, :, None]


# -- maximum --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaxPool(Pool):
    """Maximum over windows (PyTorch: max_pool1d to max_pool3d, ONNX: MaxPool).

    Outputs are y and `position`: the row-major index, inside its window of `kernel` places, of the
    first place that holds the maximum (uint8 for windows of up to 256 places, else int32). A NaN
    wins over every number, the first NaN over later ones. Padding is never chosen; a window of
    nothing but padding is refused.
    """

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        pooled = self.pooled(x)
        for axis, extent in enumerate(x.shape[2:]):
            empty = np.flatnonzero(self.window.inside(axis, extent) == 0)
            if empty.size:
                raise ShapeError(
                    f"window {empty[0]} along spatial axis {axis} of extent {extent} holds "
                    f"nothing but padding (kernel {self.kernel[axis]}, stride "
                    f"{self.stride[axis]}, padding {self.padding[axis]}, dilation "
                    f"{self.dilation[axis]}); make the padding smaller"
                )
        return pooled, pooled.with_dtype(self.position_dtype)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        places = self.window.unfold(x)
        inside = self.window.unfold(np.ones((1, 1, *x.shape[2:]), np.bool_))
        shown = np.where(inside, places, -np.inf)
        with np.errstate(invalid="ignore"):
            best = shown.max(axis=2, keepdims=True)
        position = (inside & ((shown == best) | np.isnan(shown))).argmax(axis=2)
        y = np.take_along_axis(places, position[:, :, None], axis=2)[:, :, 0]
        return y, position.astype(self.position_dtype.numpy)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x,), (_, position), (signal, _) = inputs, outputs, signals
        if signal is None:
            return (None,)
        return (apply(MaxPoolGradient(x.shape[2:], **self.attributes()), signal, position),)


@dataclass(frozen=True)
class MaxPoolGradient(Pool, WithSpatial):
    """Each element of dy added to the place it was picked from; zero elsewhere.

    Inputs are dy (N, C, *windows) and MaxPool's positions, the output is (N, C, *spatial). The
    transpose of `MaxPoolGather`.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, position = inputs
        self.check_position(position, dy)
        return (self.unpooled(dy, self.spatial),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        dy, position = inputs
        parts = np.zeros((*dy.shape[:2], self.window.size, *dy.shape[2:]), in_double(dy).dtype)
        np.put_along_axis(parts, self.clipped(position), dy[:, :, None], axis=2)
        with np.errstate(all="ignore"):
            return (self.window.fold(parts, self.spatial).astype(dy.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (_, position), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        op = MaxPoolGather(self.kernel, self.stride, self.padding, self.dilation)
        return apply(op, signal, position), None


@dataclass(frozen=True)
class MaxPoolGather(Pool):
    """The element at `position` of each window; zero where that is padding.

    Inputs are x (N, C, *spatial) and positions (N, C, *windows), the output is (N, C, *windows).
    The transpose of `MaxPoolGradient`.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, position = inputs
        pooled = self.pooled(x)
        self.check_position(position, pooled)
        return (pooled,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, position = inputs
        places = self.window.unfold(x)
        return (np.take_along_axis(places, self.clipped(position), axis=2)[:, :, 0],)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, position), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        op = MaxPoolGradient(x.shape[2:], **self.attributes())
        return apply(op, signal, position), None


def max_pool_padding(
    spatial: Shape, kernel: Shape, stride: Shape, padding: Pairs, dilation: Shape, ceil_mode: bool
) -> Pairs:
    """The padding that gives MaxPool the windows PyTorch gives it.

    Arguments:
        spatial: extents of the input.
        kernel, stride, padding, dilation: of the pooling.
        ceil_mode: a last window that hangs over the padded end counts too, provided that it starts
            inside the input or its low padding.
    """
    window = Window(kernel, stride, padding, dilation)
    return window.rounded_up(spatial).padding if ceil_mode else padding


# -- sum and average ------------------------------------------------------------------------------


@dataclass(frozen=True)
class SumPool(Pool):
    """Sum over windows; padding counts as zero."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (self.pooled(inputs[0]),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        with np.errstate(all="ignore"):
            return (self.window.unfold(in_double(x)).sum(axis=2).astype(x.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x,), (signal,) = inputs, signals
        if signal is None:
            return (None,)
        return (apply(SumPoolGradient(x.shape[2:], **self.attributes()), signal),)


@dataclass(frozen=True)
class SumPoolGradient(Pool, WithSpatial):
    """Each element of dy (N, C, *windows) added to every place of its window: (N, C, *spatial).

    The transpose of `SumPool`.
    """

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (self.unpooled(inputs[0], self.spatial),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (dy,) = inputs
        shape = (*dy.shape[:2], self.window.size, *dy.shape[2:])
        parts = np.broadcast_to(in_double(dy)[:, :, None], shape)
        with np.errstate(all="ignore"):
            return (self.window.fold(parts, self.spatial).astype(dy.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None:
            return (None,)
        return (apply(SumPool(self.kernel, self.stride, self.padding, self.dilation), signal),)


@dataclass(frozen=True)
class AvgPool(Composite):
    """Average over windows (PyTorch: avg_pool1d to avg_pool3d, ONNX: AveragePool).

    Arguments:
        kernel, stride, padding: as in Pool.
        ceil_mode: a last window that hangs over the padded end counts too (see max_pool_padding).
        count_include_pad: padding counts as elements that are zero; what hangs over it never does.
        divisor_override: what every sum is divided by, in place of the number of elements.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if self.divisor_override == 0:
            raise ShapeError("divisor_override is 0; leave it out, or divide by another number")
        spatial_of(self.name, x)
        return self._sum(x.shape[2:]).infer(x)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        pool = self._sum(x.shape[2:])
        scale = self._scale(x.shape[2:], pool.window).astype(x.dtype.numpy)
        first = scale.flat[0]
        constant = x.graph.constant(first if (scale == first).all() else scale, x.dtype, "scale")
        return (apply(pool, x) * constant,)

    def _sum(self, spatial: Shape) -> SumPool:
        dilation = (1,) * len(self.kernel)
        padding = max_pool_padding(
            spatial, self.kernel, self.stride, self.padding, dilation, self.ceil_mode
        )
        return SumPool(self.kernel, self.stride, padding, dilation)

    def _scale(self, spatial: Shape, window: Window) -> Array:
        """What the sum of each window is multiplied with: float64 (*windows)."""
        if self.divisor_override is not None:
            return np.full(window.outputs(spatial), 1.0 / self.divisor_override)
        along = []
        for axis, (extent, (_, high)) in enumerate(zip(spatial, self.padding, strict=True)):
            padded = (window.places(axis, extent) < extent + high).sum(axis=1)
            along.append(padded if self.count_include_pad else window.inside(axis, extent))
        counts = reduce(np.multiply.outer, along)
        return np.asarray(1.0 / np.maximum(counts, 1))  # the sum over nothing stays 0


# -- indices and unpooling ------------------------------------------------------------------------


@dataclass(frozen=True)
class MaxPoolIndices(Composite, Pool, WithSpatial):
    """MaxPool's positions as PyTorch's `return_indices`.

    The input is `position` (N, C, *windows) of pooling (N, C, *spatial); the output is int64 of the
    same shape, row-major indices into the flattened spatial axes.
    """

    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (position,) = inputs
        windows = self.window.outputs(self.spatial)
        pooled = TensorType(position.shape[:2] + windows)
        self.check_position(position, pooled)
        return (position.with_dtype(DType.INT64),)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        position = inputs[0].cast(DType.INT64)
        axes = zip(row_major_strides(self.kernel), row_major_strides(self.spatial), strict=True)
        parts = [
            self._coordinate(position, axis, below) * step
            for axis, (below, step) in enumerate(axes)
        ]
        return (reduce(add, parts),)

    def _coordinate(self, position: Tensor, axis: int, below: int) -> Tensor:
        """Where along one axis of the input the picked places lie."""
        number = own_indices(position, 2 + axis, position.shape[2 + axis], DType.INT64)
        start = number * self.stride[axis] - self.padding[axis][0]
        return start + (position // below % self.kernel[axis]) * self.dilation[axis]


@dataclass(frozen=True)
class MaxUnpool(Op):
    """Elements put back where they came from, zero elsewhere (PyTorch: max_unpool1d to 3d).

    Inputs are x (N, C, *windows) and int64 indices of the same shape, into the flattened spatial
    axes of the output (N, C, *spatial), as MaxPoolIndices gives them. An index below 0 counts from
    the end, one outside is clamped. Where one occurs several times in a channel, as overlapping
    windows have it, the last element stays; the gradient nevertheless goes to each of them, as in
    PyTorch.

    Arguments:
        spatial: extents of the output.
    """

    spatial: tuple[int, ...]
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = inputs
        common_dtype(self.name, (x,), FLOATS)
        if len(self.spatial) != len(spatial_of(self.name, x)) or min(self.spatial) < 1:
            raise ShapeError(
                f"x {x} has {x.rank - 2} spatial axes and cannot be unpooled to {self.spatial}; "
                "give an extent of at least 1 for each"
            )
        if indices.dtype is not DType.INT64 or indices.shape != x.shape:
            wanted = x.with_dtype(DType.INT64)
            raise ShapeError(f"indices {indices} must be {wanted}, one an element")
        return (x.with_shape(x.shape[:2] + self.spatial),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, indices = inputs
        places = resolve(indices, math.prod(self.spatial))
        planes = np.zeros((*x.shape[:2], math.prod(self.spatial)), x.dtype)
        for at in np.ndindex(*x.shape):
            planes[at[0], at[1], places[at]] = x[at]
        return (planes.reshape(*x.shape[:2], *self.spatial),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, indices), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        planes, flat = signal.flatten(2), indices.flatten(2)
        return apply(TakeAlongAxis(2), planes, flat).reshape(x.shape), None
