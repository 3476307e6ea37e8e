"""Softmax over many classes, the rare ones in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from .container import ModuleList, Sequential
from .functional.shape import cat
from .linear import Linear
from .module import Module


class ASMoutput(NamedTuple):
    """What AdaptiveLogSoftmaxWithLoss gives.

    Attributes:
        output: the log-probability of each target, (N,).
        loss: minus their mean.
    """

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of classes sorted by how frequent they are: frequent ones have an output of
    the head each, clusters of rare ones share one, and have fewer features (Grave et al.,
    Efficient softmax approximation for GPUs, 2017).

    Which clusters a batch needs is not known before it runs: all are computed, so that this saves
    weights, and less time than there.

    Arguments:
        in_features: I.
        n_classes: C.
        cutoffs: where clusters begin, below C and increasing.
        div_value: each cluster has so many times fewer features than the one before.
        head_bias: whether the head has a bias.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        ends = [int(c) for c in cutoffs]
        if not ends or ends != sorted(set(ends)) or not 0 < ends[0] <= ends[-1] < n_classes:
            raise UsageError(f"cutoffs {ends} increase, from 1 to below {n_classes} classes")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*ends, n_classes]
        self.div_value = div_value
        self.shortlist_size = ends[0]
        self.n_clusters = len(ends)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            size = int(in_features // div_value ** (i + 1))
            count = self.cutoffs[i + 1] - self.cutoffs[i]
            parts = Linear(in_features, size, bias=False), Linear(size, count, bias=False)
            self.tail.append(Sequential(*parts))

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities (N, C) of all classes, for input (N, I)."""
        head = self.head(input).log_softmax(-1)
        parts = [head[..., : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            place = self.shortlist_size + i
            parts.append(cluster(input).log_softmax(-1) + head[..., place : place + 1])
        return cat(parts, -1)

    def predict(self, input: Tensor) -> Tensor:
        """The most likely class of each row, (N,)."""
        return self.log_prob(input).argmax(-1)

    def forward(self, input: Tensor, target: Tensor) -> ASMoutput:
        if target.shape != input.shape[:-1]:
            raise ShapeError(f"targets {target.type} are one for each row of {input.type}")
        output = self.log_prob(input).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return ASMoutput(output, -output.mean())
