"""Convolutions and transposed convolutions over 1 to 3 spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import Shape
from . import init
from .functional import convolution, shape
from .functional.arguments import Size, per_axis
from .linear import empty
from .module import Layer
from .state import Parameter

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Windowed(Layer):
    """Base of what has a kernel."""

    rank: ClassVar[int]
    weight: Parameter
    bias: Parameter | None
    padding: str | Shape
    output_padding: Shape

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        transposed: bool,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{type(self).__name__}: groups={groups} must divide in_channels={in_channels} "
                f"and out_channels={out_channels}"
            )
        if padding_mode not in _PADDING_MODES:
            raise UsageError(
                f"padding_mode is one of {', '.join(_PADDING_MODES)}, not {padding_mode!r}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_axis(kernel_size, self.rank, "kernel_size")
        self.stride = per_axis(stride, self.rank, "stride")
        self.dilation = per_axis(dilation, self.rank, "dilation")
        self.output_padding = (0,) * self.rank
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            # Found out here rather than in a forward far away.
            convolution.conv_padding(padding, self.kernel_size, self.stride, self.dilation)
            self.padding = padding
        else:
            self.padding = per_axis(padding, self.rank, "padding")
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = Parameter(empty(first, second // groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(empty(out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random contents."""
        init.default_weight_and_bias(self.weight, self.bias)

    def extra_repr(self) -> str:
        ones, zeros = (1,) * self.rank, (0,) * self.rank
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}, stride={self.stride}",
            f"padding={self.padding}" * (self.padding != zeros),
            f"dilation={self.dilation}" * (self.dilation != ones),
            f"output_padding={self.output_padding}" * (self.output_padding != zeros),
            f"groups={self.groups}" * (self.groups != 1),
            "bias=False" * (self.bias is None),
            f"padding_mode={self.padding_mode}" * (self.padding_mode != "zeros"),
        ]
        return ", ".join(p for p in parts if p)


class Conv(Windowed):
    """Base of the convolutions: (N, C, *spatial) or (C, *spatial) gives (N, K, *windows).

    Parameters are weight (K, C / groups, *kernel_size) and bias (K,), uniform in ±1 / sqrt(fan_in).

    Arguments:
        in_channels, out_channels: C and K.
        kernel_size, stride, dilation: one number, or one an axis.
        padding: on both sides of each axis; or "valid" for none, "same" to keep the extents.
        groups: the channels are cut into this many independent convolutions.
        bias: whether there is a bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            transposed=False,
        )

    def forward(self, input: Tensor) -> Tensor:
        x = input
        padding: Size | str = self.padding
        if self.padding_mode != "zeros":
            pairs = convolution.conv_padding(padding, self.kernel_size, self.stride, self.dilation)
            flat = [p for pair in reversed(pairs) for p in pair]
            x, padding = shape.unnamed_pad(x, flat, self.padding_mode), 0
        return convolution.conv(
            self.rank, x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv1d(Conv):
    """Convolution over one spatial axis; see Conv for arguments and parameters."""

    rank = 1


class Conv2d(Conv):
    """Convolution over two spatial axes; see Conv for arguments and parameters."""

    rank = 2


class Conv3d(Conv):
    """Convolution over three spatial axes; see Conv for arguments and parameters."""

    rank = 3


class ConvTranspose(Windowed):
    """Base of the transposed convolutions: the gradient of Conv with respect to its input.

    Parameters are weight (C, K / groups, *kernel_size) and bias (K,).

    Arguments:
        output_padding: further rows at the end of each axis, to tell apart the extents from which a
            convolution gives the same.
        others: as of Conv.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode != "zeros":
            raise UsageError(f"{type(self).__name__} knows padding_mode 'zeros' only")
        if isinstance(padding, str):
            raise UsageError(f"the padding of {type(self).__name__} is a number, not {padding!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            transposed=True,
        )
        self.output_padding = per_axis(output_padding, self.rank, "output_padding")

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        assert not isinstance(self.padding, str)
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return convolution.conv_transpose(
            self.rank,
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )

    def _extra(self, x: Tensor, output_size: Sequence[int]) -> Shape:
        """The output padding that gives these spatial extents."""
        assert not isinstance(self.padding, str)
        wanted = tuple(int(n) for n in output_size)[-self.rank :]
        axes = zip(
            x.shape[-self.rank :],
            self.stride,
            self.padding,
            self.dilation,
            self.kernel_size,
            strict=True,
        )
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in axes]
        return tuple(w - m for w, m in zip(wanted, least, strict=True))


class ConvTranspose1d(ConvTranspose):
    """Transposed convolution over one spatial axis; see ConvTranspose."""

    rank = 1


class ConvTranspose2d(ConvTranspose):
    """Transposed convolution over two spatial axes; see ConvTranspose."""

    rank = 2


class ConvTranspose3d(ConvTranspose):
    """Transposed convolution over three spatial axes; see ConvTranspose."""

    rank = 3
