"""Normalisation over all samples of a batch, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import ShapeError
from ..composite import Composite
from ..pointwise import Gradients, Signals, Tensors, require_float

if TYPE_CHECKING:
    from ...tensor import Tensor
from .moments import Moments, affine_gradient, extent_of


@dataclass(frozen=True)
class BatchNorm(Composite):
    """Batch normalisation in training (Ioffe and Szegedy, 2015; torch.nn.BatchNorm).

    Inputs are x (N, C, *), weight (C,) and bias (C,) where `affine`, running_mean (C,) and
    running_var (C,); outputs are y = (x - mean) / sqrt(var + eps) * weight + bias with the biased
    variance of each channel, and the next running_mean and running_var, the latter of the unbiased
    variance.

    Arguments:
        momentum: share of this batch in the next running statistics.
        eps: added to the variance.
        affine: whether weight and bias are given.
    """

    momentum: float = 0.1
    eps: float = 1e-5
    affine: bool = True
    arity: ClassVar[tuple[int, int | None]] = (3, 5)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, *parameters = inputs
        _check_channels(self, x, parameters, expected=4 if self.affine else 2)
        moments, scale = self._normalizer(x, parameters)
        y = moments.centered * scale
        if self.affine:
            y = y + _per_channel(parameters[1], x)
        assert moments.mean is not None
        count = extent_of(x, moments.axes)
        new = moments.mean, moments.variance * (count / (count - 1))
        return y, *(
            old * (1.0 - self.momentum) + value.reshape(old.shape) * self.momentum
            for old, value in zip(parameters[-2:], new, strict=True)
        )

    def gradient(self, inputs: Tensors, outputs: Tensors, signals: Signals) -> Gradients:
        x, *parameters = inputs
        moments, scale = self._normalizer(x, parameters)
        signal, *running = signals
        dx: Tensor | None = None
        affine: list[Tensor | None] = [None] * (len(parameters) - 2)
        if signal is not None:
            dx = moments.gradient(signal, scale)
            if self.affine:
                affine = affine_gradient(signal, moments, parameters[0].shape)
        for part in self._through_statistics(moments, running):
            dx = part if dx is None else dx + part
        kept = [s * (1.0 - self.momentum) if s is not None else None for s in running]
        return dx, *affine, *kept

    def _normalizer(self, x: Tensor, parameters: list[Tensor]) -> tuple[Moments, Tensor]:
        moments = Moments.over_samples(x, _all_but_channels(x), self.eps)
        if not self.affine:
            return moments, moments.inverse
        return moments, _per_channel(parameters[0], x) * moments.inverse

    def _through_statistics(self, moments: Moments, signals: list[Tensor | None]) -> list[Tensor]:
        """What reaches x by the running statistics; nothing in a network that only keeps them."""
        x = moments.centered
        count = extent_of(x, moments.axes)
        to_mean, to_variance = signals
        parts = []
        if to_mean is not None:
            part = _per_channel(to_mean, x) * (self.momentum / count)
            parts.append(part.broadcast_to(x.shape))
        if to_variance is not None:
            parts.append(x * (_per_channel(to_variance, x) * (2.0 * self.momentum / (count - 1))))
        return parts


@dataclass(frozen=True)
class BatchNormInference(Composite):
    """Batch normalisation by known statistics (ONNX: BatchNormalization).

    Inputs are x (N, C, *), mean (C,), var (C,) and, where `affine`, weight (C,) and bias (C,); the
    output is (x - mean) / sqrt(var + eps) * weight + bias.

    Arguments:
        eps: added to the variance.
        affine: whether weight and bias are given.
    """

    eps: float = 1e-5
    affine: bool = True
    arity: ClassVar[tuple[int, int | None]] = (3, 5)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, *parameters = inputs
        _check_channels(self, x, parameters, expected=4 if self.affine else 2)
        mean, variance, *affine = (_per_channel(p, x) for p in parameters)
        scale = 1.0 / (variance + self.eps).sqrt()
        if not affine:
            return ((x - mean) * scale,)
        weight, bias = affine
        return ((x - mean) * (weight * scale) + bias,)


def _check_channels(op: Composite, x: Tensor, parameters: list[Tensor], expected: int) -> None:
    require_float(op, x, *parameters)
    if x.rank < 2:
        raise ShapeError(f"{op.name} takes x of (N, C, *), got {x.type}")
    if len(parameters) != expected:
        raise ShapeError(f"{op} takes x and {expected} values a channel, got {len(parameters)}")
    for p in parameters:
        if p.shape != (x.shape[1],):
            raise ShapeError(f"{op.name} of {x.type} takes values of {(x.shape[1],)}, got {p.type}")
    if isinstance(op, BatchNorm) and extent_of(x, _all_but_channels(x)) < 2:
        raise ShapeError(
            f"BatchNorm in training takes at least 2 values a channel, {x.type} has "
            f"{extent_of(x, _all_but_channels(x))}; use a larger batch or inference statistics"
        )


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.rank))


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """(C,) as (1, C, 1, …) in the rank of x."""
    return parameter.reshape((1, *parameter.shape) + (1,) * (x.rank - 2))
