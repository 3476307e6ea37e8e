"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...compiler.errors import ShapeError
from ...compiler.graph import Phase
from ...compiler.tensor import Tensor
from . import init
from .context import require_trace
from .functional import normalization
from .functional.arguments import Size
from .linear import empty
from .module import Layer, Module
from .state import Parameter


class ChannelNorm(Layer):
    """Base of the layers that normalise channels and may keep running statistics.

    Parameters are weight and bias (num_features,), ones and zeros; buffers are running_mean and
    running_var (num_features,), zeros and ones, and num_batches_tracked (int64).

    Arguments:
        num_features: number of channels.
        eps: added to the variance.
        momentum: share of a batch in the running statistics; None weighs all batches alike.
        affine: whether there are weight and bias.
        track_running_stats: whether running statistics are kept, and used in inference.
        bias: whether there is a bias when there is a weight.
    """

    ranks: ClassVar[tuple[int, ...]]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        one = init.ones_(empty(num_features))
        zero = one * 0
        self.register_parameter("weight", Parameter(one) if affine else None)
        self.register_parameter("bias", Parameter(zero) if affine and bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", zero.copy() if tracked else None)
        self.register_buffer("running_var", one.copy() if tracked else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if tracked else None)

    def reset_running_stats(self) -> None:
        """Running statistics as they were at first."""
        for (_, buffer), value in zip(self.named_buffers(), (0, 1, 0), strict=False):
            buffer.data = np.full_like(buffer.data, value)

    def reset_parameters(self) -> None:
        """Everything as it was at first."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def check(self, x: Tensor) -> None:
        """
        Raises:
            ShapeError: when x has not the channels or the rank that the layer is for.
        """
        if x.rank not in self.ranks:
            ranks = " or ".join(map(str, self.ranks))
            raise ShapeError(f"{type(self).__name__} takes values of rank {ranks}, got {x.type}")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm(ChannelNorm):
    """Base of batch normalisation (Ioffe and Szegedy, 2015); see ChannelNorm for arguments.

    In training, channels are normalised by mean and variance of the batch, and the running
    statistics move towards them; in inference the running statistics are used.
    """

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        affine = self.weight, self.bias
        if not self.training and self.running_mean is not None:
            return normalization.batch_norm(
                input, self.running_mean, self.running_var, *affine, eps=self.eps
            )
        statistics = self.running_mean, self.running_var
        if not self.training or self.running_mean is None:
            return normalization.batch_norm(
                input, *statistics, *affine, training=True, eps=self.eps
            )
        momentum = self.share_of_batch()
        # A share that is only known at run time is applied here, the op gives the batch's own.
        fixed = momentum if isinstance(momentum, float) else 1.0
        result = normalization.batch_norm_training(
            input, *statistics, *affine, momentum=fixed, eps=self.eps
        )
        for name, new in zip(("running_mean", "running_var"), result[1:], strict=True):
            old: Tensor = getattr(self, name)
            mixed = new if isinstance(momentum, float) else old + (new - old) * momentum
            setattr(self, name, mixed)
        return result.output

    def share_of_batch(self) -> float | Tensor:
        """The share of this batch in the running statistics; counts the batch."""
        count = self.num_batches_tracked
        assert count is not None
        with require_trace("batch norm").graph.scope(phase=Phase.UPDATE):
            counted = count + 1
            self.num_batches_tracked = counted
            return self.momentum if self.momentum is not None else 1.0 / counted.cast("float32")


class BatchNorm1d(BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); see BatchNorm."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of (N, C, H, W); see BatchNorm."""

    ranks = (4,)


class BatchNorm3d(BatchNorm):
    """Batch normalisation of (N, C, D, H, W); see BatchNorm."""

    ranks = (5,)


class SyncBatchNorm(BatchNorm):
    """Batch normalisation of (N, C, *); see BatchNorm. There is one process, so that the batch is
    whole without others.
    """

    ranks = (2, 3, 4, 5)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: object = None) -> Module:
        """The module, with a SyncBatchNorm of the same states in place of each BatchNorm below, or
        one in its own place.

        Arguments:
            process_group: there is one process, whatever this is.
        """
        if isinstance(module, BatchNorm) and not isinstance(module, cls):
            made = cls(module.num_features, module.eps, module.momentum)
            made.__dict__.update(module.__dict__)
            return made
        for name, child in module.named_children():
            module.add_module(name, cls.convert_sync_batchnorm(child))
        return module


class InstanceNorm(ChannelNorm):
    """Base of instance normalisation (Ulyanov et al., 2016): each channel of each sample by itself.

    Arguments are those of ChannelNorm, but that affine and track_running_stats are False by
    default and that, as in PyTorch, batches are not counted and a momentum of None tracks nothing.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        batched = input.unsqueeze(0) if input.rank == self.ranks[0] else input
        if batched.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} is for {self.num_features} channels, got {input.type}"
            )
        own = self.training or self.running_mean is None
        result = normalization.instance_norm(
            batched, self.running_mean, self.running_var, self.weight, self.bias, own, eps=self.eps
        )
        if self.training and self.running_mean is not None and self.momentum is not None:
            self._track(batched, self.momentum)
        return result.reshape(input.shape)

    def _track(self, x: Tensor, share: float) -> None:
        with x.graph.scope(phase=Phase.UPDATE):
            statistics = normalization.instance_statistics(x)
            for name, new in zip(("running_mean", "running_var"), statistics, strict=True):
                old: Tensor = getattr(self, name)
                setattr(self, name, old * (1.0 - share) + new * share)


class InstanceNorm1d(InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L); see InstanceNorm."""

    ranks = (2, 3)


class InstanceNorm2d(InstanceNorm):
    """Instance normalisation of (N, C, H, W) or (C, H, W); see InstanceNorm."""

    ranks = (3, 4)


class InstanceNorm3d(InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W); see InstanceNorm."""

    ranks = (4, 5)


class LayerNorm(Layer):
    """Normalises each sample over its last axes (Ba et al., 2016).

    Parameters are weight and bias of the normalised shape, ones and zeros.

    Arguments:
        normalized_shape: extents of the last axes.
        eps: added to the variance.
        elementwise_affine: whether there are weight and bias.
        bias: whether there is a bias when there is a weight.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        one = init.ones_(empty(*self.normalized_shape))
        affine = elementwise_affine
        self.register_parameter("weight", Parameter(one) if affine else None)
        self.register_parameter("bias", Parameter(one * 0) if affine and bias else None)

    def forward(self, input: Tensor) -> Tensor:
        return normalization.layer_norm(
            input, self.normalized_shape, self.weight, self.bias, self.eps
        )

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Layer):
    """Divides each sample by its root mean square over its last axes (Zhang and Sennrich, 2019).

    The parameter is weight of the normalised shape, ones.

    Arguments:
        normalized_shape: extents of the last axes.
        eps: added to the mean square; None is the spacing of floats at 1.
        elementwise_affine: whether there is a weight.
    """

    weight: Parameter | None

    def __init__(
        self, normalized_shape: Size, eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        one = init.ones_(empty(*self.normalized_shape))
        self.register_parameter("weight", Parameter(one) if elementwise_affine else None)

    def forward(self, input: Tensor) -> Tensor:
        return normalization.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Layer):
    """Normalises each sample of (N, C, *) over groups of channels (Wu and He, 2018).

    Parameters are weight and bias (num_channels,), ones and zeros.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(f"num_groups={num_groups} does not divide num_channels={num_channels}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        one = init.ones_(empty(num_channels))
        self.register_parameter("weight", Parameter(one) if affine else None)
        self.register_parameter("bias", Parameter(one * 0) if affine and bias else None)

    def forward(self, input: Tensor) -> Tensor:
        return normalization.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Layer):
    """Divides by (k + alpha / size * the sum of squares over `size` channels) ** beta.

    Krizhevsky et al., 2012, section 3.3, with alpha divided by size.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return normalization.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class LocalContrastNorm(Layer):
    """Subtracts the mean of a Gaussian window of all channels, and divides by its deviation.

    Jarrett et al., 2009, section 2.1.

    Arguments:
        kernel_size: extent of the window along each spatial axis, odd.
        sigma: standard deviation of the window in pixels.
        threshold: least standard deviation that is divided by.
    """

    def __init__(self, kernel_size: int = 9, sigma: float = 1.591, threshold: float = 1e-4) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return normalization.local_contrast_norm(
            input, self.kernel_size, self.sigma, self.threshold
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, sigma={self.sigma}, threshold={self.threshold}"


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(normalized_shape, int):
        return (normalized_shape,)
    return tuple(int(n) for n in normalized_shape)
