"""Convolutions that also read their own previous output."""

from __future__ import annotations

from ...compiler.errors import ShapeError, UsageError
from ...compiler.ops.indexing import split
from ...compiler.tensor import Tensor
from .convolution import Conv2d
from .functional.activation import relu
from .functional.recurrent import recurrence
from .module import Module


class RecurrentConv2d(Module):
    """x[t] = relu(conv(u) + conv'(x[t-1])), x[0] = relu(conv(u)): (N, C, H, W) gives (N, K, H, W)
    (Liang and Hu, Recurrent convolutional neural network for object recognition, 2015).

    Parameters are feedforward.weight (K, C, k, k), feedforward.bias and recurrent.weight
    (K, K, k, k).

    Arguments:
        in_channels: C.
        out_channels: K.
        kernel_size: k, odd; the extents stay as they are.
        iterations: how often the layer reads its own output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, iterations: int = 3
    ) -> None:
        super().__init__()
        if iterations < 0:
            raise UsageError(f"iterations is from 0, got {iterations}")
        padding = _same(kernel_size)
        self.iterations = iterations
        self.feedforward = Conv2d(in_channels, out_channels, kernel_size, padding=padding)
        self.recurrent = Conv2d(
            out_channels, out_channels, kernel_size, padding=padding, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        given = self.feedforward(input)

        def step(x: Tensor, given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            return [relu(given + self.recurrent(x))], []

        (last,), _ = recurrence(step, [relu(given)], invariants=[given], steps=self.iterations)
        return last

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}"


class ConvLSTM2d(Module):
    """An LSTM whose products are convolutions: (T, N, C, H, W) gives the output
    (T, N, K, H, W) and the final states h and c (N, K, H, W) (Shi et al., Convolutional LSTM
    network, 2015, without peepholes).

    Parameters are input.weight (4 K, C, k, k), input.bias and recurrent.weight (4 K, K, k, k), rows
    in the order i, f, g, o.

    Arguments:
        in_channels: C.
        out_channels: K.
        kernel_size: k, odd; the extents stay as they are.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        padding = _same(kernel_size)
        self.out_channels = out_channels
        self.input = Conv2d(in_channels, 4 * out_channels, kernel_size, padding=padding)
        self.recurrent = Conv2d(
            out_channels, 4 * out_channels, kernel_size, padding=padding, bias=False
        )

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next h and c, from x = input(…), (N, 4 K, H, W)."""
        i, f, g, o = split(x + self.recurrent(h), self.out_channels, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if input.rank != 5:
            raise ShapeError(f"ConvLSTM2d takes (T, N, C, H, W), got {input.type}")
        steps, batch, channels, *extents = input.shape
        x = self.input(input.reshape(steps * batch, channels, *extents))
        x = x.reshape(steps, batch, *x.shape[1:])
        if hx is None:
            zeros = x.constant(0).broadcast_to((batch, self.out_channels, *extents))
            hx = zeros, zeros

        def step(h: Tensor, c: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            h, c = self.step(x, h, c)
            return [h, c], [h]

        (h, c), (output,) = recurrence(step, hx, [x])
        return output, (h, c)


def _same(kernel_size: int) -> int:
    """Padding that keeps the extents."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UsageError(f"the kernel_size of a recurrent convolution is odd, got {kernel_size}")
    return kernel_size // 2
