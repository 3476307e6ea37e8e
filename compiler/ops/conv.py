"""Convolution over 1 to 3 spatial axes, and its transposes.

As in every network library it is cross-correlation, the kernel is not flipped. The sum over all
terms x · w · dy is linear in each of the three, and the three primitives are its derivatives: by dy
(`Conv`), by x (`ConvInputGradient`), by w (`ConvWeightGradient`). So the gradient of each is
written in the other two, and gradients of gradients need nothing more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import ShapeError
from ..types import Array, Shape, TensorType
from .base import Op, apply
from .composite import Composite
from .linear import FLOATS, check_bias, common_dtype, in_double
from .movement import Pad
from .pointwise import Gradients, Signals, Tensors
from .window import Pairs, Window, WithSpatial, spatial_of

if TYPE_CHECKING:
    from ..tensor import Tensor


@dataclass(frozen=True)
class Convolution(Op, abstract=True):
    """Base of the convolutions.

    Arguments:
        stride: distance between neighbouring windows along each spatial axis.
        padding: (low, high) zeros before and after each spatial axis; may exceed the kernel.
        dilation: distance between neighbouring places of the kernel.
        groups: the channels are cut into this many independent convolutions.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def window(self, kernel: Shape) -> Window:
        """The geometry for a kernel of these extents."""
        return Window(kernel, self.stride, self.padding, self.dilation)

    def to_output(self, x: Tensor, w: Tensor) -> Tensor:
        """Get y from x and w: the derivative of the trilinear form by dy."""
        return apply(Conv(self.stride, self.padding, self.dilation, self.groups), x, w)

    def to_input(self, dy: Tensor, w: Tensor, spatial: Shape) -> Tensor:
        """Get dx from dy and w: the derivative of the trilinear form by x."""
        return apply(
            ConvInputGradient(spatial, self.stride, self.padding, self.dilation, self.groups), dy, w
        )

    def to_weight(self, x: Tensor, dy: Tensor, kernel: Shape) -> Tensor:
        """Get dw from x and dy: the derivative of the trilinear form by w."""
        return apply(
            ConvWeightGradient(kernel, self.stride, self.padding, self.dilation, self.groups), x, dy
        )

    def check_groups(self, what: str, channels: int) -> None:
        """
        Raises:
            ShapeError: when the channels cannot be cut into groups.
        """
        if self.groups < 1 or channels % self.groups:
            raise ShapeError(
                f"{channels} {what} channels cannot be cut into groups={self.groups}; "
                "groups must divide them"
            )

    def check_windows(self, x: Shape, kernel: Shape, dy: Shape) -> None:
        """
        Raises:
            ShapeError: when the convolution of extents `x` does not give extents `dy`.
        """
        expected = self.window(kernel).outputs(x)
        if dy != expected:
            raise ShapeError(
                f"dy has spatial extents {dy}, but kernel {kernel} over {x} gives {expected}"
            )


@dataclass(frozen=True)
class Conv(Convolution):
    """Convolution (PyTorch: conv1d to conv3d, ONNX: Conv).

    Inputs are x (N, C, *spatial), w (K, C / groups, *kernel) and, optionally, bias (K,); the output
    is (N, K, *windows) with `(low + extent + high - (kernel - 1) * dilation - 1) // stride + 1`
    windows along an axis. With a bias it is a composite, without one a primitive.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 3)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, w, *bias = inputs
        common_dtype(self.name, inputs, FLOATS)
        spatial = spatial_of(self.name, x)
        check_weight_rank(self.name, x, w)
        self.check_groups("input", x.shape[1])
        self.check_groups("output", w.shape[0])
        if w.shape[1] * self.groups != x.shape[1]:
            raise ShapeError(
                f"x {x} has {x.shape[1]} channels, weight {w} with groups={self.groups} reads "
                f"{w.shape[1]} * {self.groups} = {w.shape[1] * self.groups}"
            )
        check_bias(w, bias)
        windows = self.window(w.shape[2:]).outputs(spatial)
        return (x.with_shape((x.shape[0], w.shape[0], *windows)),)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...] | None:
        x, w, *bias = inputs
        if not bias:
            return None
        return (apply(self, x, w) + along_channels(bias[0], x.rank),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, w, *bias = inputs
        window = self.window(w.shape[2:])
        with np.errstate(all="ignore"):
            y = grouped_weight(w, self.groups) @ grouped_columns(x, window, self.groups)
            y = y.reshape(x.shape[0], w.shape[0], *window.outputs(x.shape[2:]))
            for b in bias:
                y = y + in_double(b).reshape(-1, *(1,) * window.rank)
            return (y.astype(x.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, w, *bias), (signal,) = inputs, signals
        if signal is None:
            return [None] * len(inputs)
        return (
            self.to_input(signal, w, x.shape[2:]),
            self.to_weight(x, signal, w.shape[2:]),
            *(sum_over_pixels(signal) for _ in bias),
        )


@dataclass(frozen=True)
class ConvInputGradient(Convolution, WithSpatial):
    """The transpose of `Conv` with respect to x (ONNX: ConvTranspose).

    Inputs are dy (N, K, *windows) and w (K, C / groups, *kernel); the output is (N, C, *spatial).
    """

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, w = inputs
        common_dtype(self.name, inputs, FLOATS)
        windows = spatial_of(self.name, dy)
        check_weight_rank(self.name, dy, w)
        self.check_groups("output", w.shape[0])
        if dy.shape[1] != w.shape[0]:
            raise ShapeError(f"dy {dy} has {dy.shape[1]} channels, weight {w} gives {w.shape[0]}")
        self.check_windows(self.spatial, w.shape[2:], windows)
        return (dy.with_shape((dy.shape[0], w.shape[1] * self.groups, *self.spatial)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        dy, w = inputs
        window = self.window(w.shape[2:])
        with np.errstate(all="ignore"):
            parts = grouped_weight(w, self.groups).swapaxes(1, 2) @ grouped_pixels(dy, self.groups)
            channels = w.shape[1] * self.groups
            parts = parts.reshape(dy.shape[0], channels, window.size, *dy.shape[2:])
            return (window.fold(parts, self.spatial).astype(dy.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (dy, w), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        return self.to_output(signal, w), self.to_weight(signal, dy, w.shape[2:])


@dataclass(frozen=True)
class WithKernel(Op, abstract=True):
    """Base of what gives a kernel.

    Arguments:
        kernel: its extents along the spatial axes.
    """

    kernel: tuple[int, ...]


@dataclass(frozen=True)
class ConvWeightGradient(Convolution, WithKernel):
    """The transpose of `Conv` with respect to w.

    Inputs are x (N, C, *spatial) and dy (N, K, *windows); the output is (K, C / groups, *kernel).
    """

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, dy = inputs
        common_dtype(self.name, inputs, FLOATS)
        spatial, windows = spatial_of(self.name, x), spatial_of(self.name, dy)
        if x.shape[0] != dy.shape[0]:
            raise ShapeError(f"x {x} has a batch of {x.shape[0]}, dy {dy} of {dy.shape[0]}")
        self.check_groups("input", x.shape[1])
        self.check_groups("output", dy.shape[1])
        self.check_windows(spatial, self.kernel, windows)
        return (x.with_shape((dy.shape[1], x.shape[1] // self.groups, *self.kernel)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, dy = inputs
        with np.errstate(all="ignore"):
            columns = grouped_columns(x, self.window(self.kernel), self.groups)
            parts = grouped_pixels(dy, self.groups) @ columns.swapaxes(2, 3)
            shape = (dy.shape[1], x.shape[1] // self.groups, *self.kernel)
            return (parts.sum(axis=0).reshape(shape).astype(x.dtype),)

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        (x, dy), (signal,) = inputs, signals
        if signal is None:
            return (None, None)
        return self.to_input(dy, signal, x.shape[2:]), self.to_output(x, signal)


@dataclass(frozen=True)
class ConvTranspose(Composite):
    """Transposed convolution (PyTorch: conv_transpose1d to conv_transpose3d, ONNX: ConvTranspose).

    Inputs are x (N, C, *spatial), w (C, K / groups, *kernel) and, optionally, bias (K,); the output
    is (N, K, *extents) with extents of
    `(extent - 1) * stride - low - high + (kernel - 1) * dilation + output_padding + 1`.

    Arguments:
        stride, padding, dilation, groups: of the convolution whose transpose it is.
        output_padding: further places at the high end, less than the stride or the dilation.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    arity: ClassVar[tuple[int, int | None]] = (2, 3)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, w, *bias = inputs
        common_dtype(self.name, inputs, FLOATS)
        spatial = spatial_of(self.name, x)
        check_weight_rank(self.name, x, w)
        if x.shape[1] != w.shape[0]:
            raise ShapeError(
                f"x {x} has {x.shape[1]} channels, weight {w} (C, K / groups, *kernel) reads "
                f"{w.shape[0]}"
            )
        if self.groups < 1 or w.shape[0] % self.groups:
            raise ShapeError(
                f"{w.shape[0]} input channels cannot be cut into groups={self.groups}; "
                "groups must divide them"
            )
        channels = w.shape[1] * self.groups
        check_bias(w.with_shape((channels,)), bias)
        return (x.with_shape((x.shape[0], channels, *self._extents(spatial, w.shape[2:]))),)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, w, *bias = inputs
        extents = self._extents(x.shape[2:], w.shape[2:])
        padding, beyond = self._reachable()
        reached = tuple(n - b for n, b in zip(extents, beyond, strict=True))
        op = ConvInputGradient(reached, self.stride, padding, self.dilation, self.groups)
        y = apply(op, x, w)
        if any(beyond):
            y = apply(Pad(((0, 0), (0, 0), *((0, b) for b in beyond))), y)
        return (y + along_channels(bias[0], x.rank) if bias else y,)

    def _extents(self, spatial: Shape, kernel: Shape) -> Shape:
        """Spatial extents of the output."""
        window = Window(kernel, self.stride, self.padding, self.dilation)
        window.check()
        if len(self.output_padding) != window.rank:
            raise ShapeError(
                f"output_padding {self.output_padding} has {len(self.output_padding)} entries, "
                f"there are {window.rank} spatial axes; give one entry an axis"
            )
        for extra, stride, dilation in zip(
            self.output_padding, self.stride, self.dilation, strict=True
        ):
            if not 0 <= extra < max(stride, dilation):
                raise ShapeError(
                    f"output_padding {self.output_padding} must be at least 0 and less than the "
                    f"stride {self.stride} or the dilation {self.dilation}"
                )
        result = tuple(
            (n - 1) * stride + reach - low - high + extra
            for n, stride, reach, (low, high), extra in zip(
                spatial, self.stride, window.reach, self.padding, self.output_padding, strict=True
            )
        )
        if min(result) < 1 or min(spatial) < 1:
            raise ShapeError(
                f"the transposed convolution of extents {spatial} with kernel {kernel} has extents "
                f"{result}; make the input larger or the padding {self.padding} smaller"
            )
        return result

    def _reachable(self) -> tuple[Pairs, Shape]:
        """Padding of the convolution to transpose, and places at the end that it does not reach.

        An output padding below the stride is a remainder that no window reads. A larger one would
        make room for another window, so it is taken off the padding; what is left over is zeros.
        """
        padding, beyond = [], []
        for (low, high), extra, stride in zip(
            self.padding, self.output_padding, self.stride, strict=True
        ):
            surplus = extra if extra >= stride else 0
            padding.append((low, max(high - surplus, 0)))
            beyond.append(max(surplus - high, 0))
        return tuple(padding), tuple(beyond)


def check_weight_rank(name: str, x: TensorType, w: TensorType) -> None:
    """
    Raises:
        ShapeError: when the weight is not of the rank of what it is applied to.
    """
    if w.rank != x.rank:
        raise ShapeError(
            f"{name} takes a weight of rank {x.rank} (two channel axes and the kernel) for {x}, "
            f"got {w} of rank {w.rank}"
        )


def along_channels(bias: Tensor, rank: int) -> Tensor:
    """(K,) as (1, K, 1, …), to be added to a value (N, K, *spatial) of this rank."""
    return bias.reshape((1, bias.shape[0]) + (1,) * (rank - 2))


def sum_over_pixels(dy: Tensor) -> Tensor:
    """(N, K, *windows) -> (K,): the gradient of a bias."""
    return dy.sum((0, *range(2, dy.rank)))


def grouped_weight(w: Array, groups: int) -> Array:
    """(K, C / groups, *kernel) as matrices (groups, K / groups, C / groups * prod(kernel))."""
    return in_double(w).reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))


def grouped_pixels(dy: Array, groups: int) -> Array:
    """(N, K, *windows) as matrices (N, groups, K / groups, prod(windows))."""
    n, k, *windows = dy.shape
    return in_double(dy).reshape(n, groups, k // groups, math.prod(windows))


def grouped_columns(x: Array, window: Window, groups: int) -> Array:
    """What the windows read, as (N, groups, C / groups * prod(kernel), prod(windows))."""
    n, c, *spatial = x.shape
    count = math.prod(window.outputs(tuple(spatial)))
    return window.unfold(in_double(x)).reshape(n, groups, c // groups * window.size, count)
