"""Primitives that only move elements: each output element is one input element, or a fill value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import DTypeError, ShapeError
from ..types import Array, TensorType, broadcast_shapes
from .base import Op, apply
from .pointwise import Gradients, Signals, Tensors

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under another shape. It never moves memory."""

    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if math.prod(self.shape) != x.size or any(e < 0 for e in self.shape):
            raise ShapeError(
                f"{x} with {x.size} elements cannot be reshaped to {self.shape}, "
                f"which has {math.prod(self.shape)}"
            )
        return (x.with_shape(self.shape),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return (inputs[0].reshape(self.shape),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (signal.reshape(inputs[0].shape) if signal is not None else None,)


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order: output axis d is input axis `permutation[d]`."""

    permutation: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if sorted(self.permutation) != list(range(x.rank)):
            raise ShapeError(f"{self.permutation} is no permutation of the {x.rank} axes of {x}")
        return (x.with_shape(tuple(x.shape[d] for d in self.permutation)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return (np.ascontiguousarray(inputs[0].transpose(self.permutation)),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        inverse = tuple(int(d) for d in np.argsort(self.permutation))
        return (apply(Transpose(inverse), signal) if signal is not None else None,)


@dataclass(frozen=True)
class Broadcast(Op):
    """Repeated along axes of extent 1 and along new leading axes (NumPy broadcasting)."""

    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if broadcast_shapes(x.shape, self.shape) != self.shape:
            raise ShapeError(f"{x} does not broadcast to {self.shape}")
        return (x.with_shape(self.shape),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return (np.broadcast_to(inputs[0], self.shape).copy(),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        return (signal.sum_to(inputs[0].shape) if signal is not None else None,)


@dataclass(frozen=True)
class Slice(Op):
    """`size` elements along each axis, from `start` in steps of `step` (negative ones go back).

    Arguments:
        start: first index, 0 <= start < extent (any when size is 0).
        size: number of elements taken.
        step: distance between them, not 0.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]
    step: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if not len(self.start) == len(self.size) == len(self.step) == x.rank:
            raise ShapeError(f"Slice of {len(self.start)} axes applied to {x}")
        for axis, (start, size, step) in enumerate(
            zip(self.start, self.size, self.step, strict=True)
        ):
            last = start + (size - 1) * step
            extent = x.shape[axis]
            if step == 0 or size < 0 or (size and not (0 <= start < extent and 0 <= last < extent)):
                raise ShapeError(
                    f"{size} elements from {start} in steps of {step} leave axis {axis} of {x}"
                )
        return (x.with_shape(self.size),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        result = inputs[0]
        for axis, (start, size, step) in enumerate(
            zip(self.start, self.size, self.step, strict=True)
        ):
            result = np.take(result, start + step * np.arange(size), axis=axis)
        return (result,)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None:
            return (None,)
        return (apply(Unslice(inputs[0].shape, self.start, self.step), signal),)


@dataclass(frozen=True)
class Unslice(Op):
    """The transpose of Slice: element i goes to `start + i * step` of a value of zeros."""

    shape: tuple[int, ...]
    start: tuple[int, ...]
    step: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        whole = x.with_shape(self.shape)
        if Slice(self.start, x.shape, self.step).infer(whole) != (x,):
            raise ShapeError(f"{x} is no slice of {whole}")
        return (whole,)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        result = np.zeros(self.shape, x.dtype)
        places = [
            a + s * np.arange(n) for a, s, n in zip(self.start, self.step, x.shape, strict=True)
        ]
        result[np.ix_(*places)] = x
        return (result,)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None:
            return (None,)
        return (apply(Slice(self.start, inputs[0].shape, self.step), signal),)


class PadMode(Enum):
    """What stands outside of the padded value."""

    CONSTANT = "constant"
    EDGE = "edge"
    REFLECT = "reflect"
    WRAP = "wrap"


@dataclass(frozen=True)
class Pad(Op):
    """Rows added before and after each axis (numpy.pad, ONNX: Pad).

    Arguments:
        padding: (before, after) for each axis, not negative.
        mode: constant `value`, the edge element, mirrored without repeating the edge, or wrapped.
        value: of constant padding.
    """

    padding: tuple[tuple[int, int], ...]
    mode: PadMode = PadMode.CONSTANT
    value: float = 0.0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = inputs
        if len(self.padding) != x.rank or any(p < 0 for pair in self.padding for p in pair):
            raise ShapeError(f"padding {self.padding} does not fit {x}")
        limits = {PadMode.REFLECT: -1, PadMode.WRAP: 0}
        for axis, (pair, extent) in enumerate(zip(self.padding, x.shape, strict=True)):
            most = extent + limits.get(self.mode, 0)
            limited = self.mode in limits or (self.mode is PadMode.EDGE and extent == 0)
            if limited and max(pair) > max(most, 0):
                raise ShapeError(
                    f"{self.mode.value} padding {pair} of axis {axis} of {x} is at most {most}"
                )
        shape = tuple(a + n + b for (a, b), n in zip(self.padding, x.shape, strict=True))
        return (x.with_shape(shape),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (x,) = inputs
        if not self.padding:
            return (x,)
        if self.mode is PadMode.CONSTANT:
            return (np.pad(x, self.padding, constant_values=np.asarray(self.value, x.dtype)),)
        return (np.pad(x, self.padding, mode=self.mode.value),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,), (x,) = signals, inputs
        if signal is None:
            return (None,)
        for axis, pair in enumerate(self.padding):
            signal = self._fold(signal, axis, pair, x.shape[axis])
        return (signal,)

    def _fold(self, signal: Tensor, axis: int, pair: tuple[int, int], extent: int) -> Tensor:
        """The signal of one axis without its padding, which is added to where it came from."""
        before, after = pair
        inner = signal.slice_axis(axis, before, extent)
        if self.mode is PadMode.CONSTANT or pair == (0, 0):
            return inner
        head = signal.slice_axis(axis, 0, before)
        tail = signal.slice_axis(axis, before + extent, after)
        for part, size, at_end in ((head, before, False), (tail, after, True)):
            if size:
                inner = inner + self._origin_of(part, axis, size, at_end, extent)
        return inner

    def _origin_of(self, part: Tensor, axis: int, size: int, at_end: bool, extent: int) -> Tensor:
        if self.mode is PadMode.EDGE:
            placed, start = apply_sum(part, axis), extent - 1 if at_end else 0
        elif self.mode is PadMode.REFLECT:
            flipped = part.slice_axis(axis, size - 1, size, -1)
            placed, start = flipped, extent - 1 - size if at_end else 1
        else:
            placed, start = part, 0 if at_end else extent - size
        shape = tuple(extent if d == axis else n for d, n in enumerate(placed.shape))
        starts = tuple(start if d == axis else 0 for d in range(placed.rank))
        return apply(Unslice(shape, starts, (1,) * placed.rank), placed)


def apply_sum(x: Tensor, axis: int) -> Tensor:
    """Sum over one axis, which stays with extent 1."""
    return x.sum(axis, keepdims=True)


@dataclass(frozen=True)
class Concat(Op):
    """Values one after the other along `axis`."""

    axis: int
    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        first = inputs[0]
        if not 0 <= self.axis < first.rank:
            raise ShapeError(f"Concat has no axis {self.axis} in {first}")
        for other in inputs[1:]:
            same = other.rank == first.rank and all(
                a == b
                for d, (a, b) in enumerate(zip(first.shape, other.shape, strict=True))
                if d != self.axis
            )
            if other.dtype is not first.dtype:
                raise DTypeError(f"Concat takes one dtype, got {first} and {other}; cast one")
            if not same:
                raise ShapeError(f"{first} and {other} do not fit along axis {self.axis}")
        total = sum(t.shape[self.axis] for t in inputs)
        shape = tuple(total if d == self.axis else n for d, n in enumerate(first.shape))
        return (first.with_shape(shape),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        return (np.concatenate(inputs, axis=self.axis),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (signal,) = signals
        if signal is None:
            return [None] * len(inputs)
        result: list[Tensor] = []
        start = 0
        for x in inputs:
            result.append(signal.slice_axis(self.axis, start, x.shape[self.axis]))
            start += x.shape[self.axis]
        return result


def slice_of(shape: Sequence[int], key: Sequence[slice]) -> Slice:
    """The Slice that NumPy's basic slicing `x[key]` means for a value of `shape`."""
    start, size, step = [], [], []
    for extent, part in zip(shape, key, strict=True):
        indices = range(extent)[part]
        start.append(indices.start if len(indices) else 0)
        size.append(len(indices))
        step.append(indices.step if len(indices) > 1 else 1)
    return Slice(tuple(start), tuple(size), tuple(step))
