"""Convolutions whose weights differ from place to place."""

from __future__ import annotations

import math

from ...compiler.errors import ShapeError
from ...compiler.tensor import Tensor
from . import init
from .functional.arguments import Size, per_axis
from .functional.shape import cat
from .linear import empty
from .module import Layer
from .state import Parameter


class LocallyConnected2d(Layer):
    """(N, C, H, W) -> (N, K, rows, columns): each place has a kernel of its own.

    Parameters are weight (rows * columns, C * kernel rows * kernel columns, K) and bias
    (K, rows, columns), uniform in ±1 / sqrt(fan_in). The extents are known beforehand, because
    there is a kernel for each place.

    Arguments:
        in_channels, out_channels: C and K.
        input_size: H and W.
        kernel_size, stride: one number, or one an axis.
        bias: whether there is a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: Size,
        kernel_size: Size,
        stride: Size = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.input_size = per_axis(input_size, 2, "input_size")
        self.kernel_size = per_axis(kernel_size, 2, "kernel_size")
        self.stride = per_axis(stride, 2, "stride")
        self.places = tuple(
            (n - kernel) // stride + 1
            for n, kernel, stride in zip(
                self.input_size, self.kernel_size, self.stride, strict=True
            )
        )
        if min(self.places) < 1:
            raise ShapeError(
                f"LocallyConnected2d: kernel_size={self.kernel_size} does not fit into "
                f"input_size={self.input_size}"
            )
        depth = in_channels * math.prod(self.kernel_size)
        self.weight = Parameter(empty(math.prod(self.places), depth, out_channels))
        shape = (out_channels, *self.places)
        self.register_parameter("bias", Parameter(empty(*shape)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random contents."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        if input.rank != 4 or input.shape[1:] != (self.in_channels, *self.input_size):
            raise ShapeError(
                f"LocallyConnected2d takes (N, {self.in_channels}, *{self.input_size}), "
                f"got {input.type}"
            )
        columns = self._columns(input)
        product = columns.transpose(0, 1) @ self.weight
        y = product.permute((1, 2, 0)).reshape((input.shape[0], self.out_channels, *self.places))
        return y if self.bias is None else y + self.bias

    def _columns(self, x: Tensor) -> Tensor:
        """What each place sees: (N, places, C * kernel)."""
        taps = []
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                rows, columns = (
                    slice(start, start + (n - 1) * stride + 1, stride)
                    for start, n, stride in zip((i, j), self.places, self.stride, strict=True)
                )
                taps.append(x[:, :, rows, columns].unsqueeze(2))
        seen = cat(taps, 2)
        shape = (x.shape[0], self.weight.shape[1], self.weight.shape[0])
        return seen.reshape(shape).transpose(1, 2)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}"
            + ", bias=False"
            * (self.bias is None)
        )
