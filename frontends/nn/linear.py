"""Fully connected layers, and looking up rows."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from . import init
from .functional import convolution, shape
from .functional.embedding import embedding_bag
from .module import Layer
from .state import Parameter


def empty(*extents: int) -> Array:
    """An array (float32) to be filled.

    Raises:
        UsageError: for extents below 0, or far beyond any memory.
    """
    try:
        return np.empty(extents, np.float32)
    except (ValueError, MemoryError):
        raise UsageError(f"a parameter cannot have the shape {extents}") from None


class Linear(Layer):
    """y = x Wᵀ + b over the last axis: (…, in_features) gives (…, out_features).

    Parameters are weight (out_features, in_features) and bias (out_features,), both uniform in
    ±1 / sqrt(in_features).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features))
        self.register_parameter("bias", Parameter(empty(out_features)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random contents."""
        init.default_weight_and_bias(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return convolution.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Bilinear(Layer):
    """y = x1ᵀ W x2 + b for each output.

    Parameters are weight (out_features, in1_features, in2_features) and bias (out_features,).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in1_features, in2_features))
        self.register_parameter("bias", Parameter(empty(out_features)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random contents."""
        bound = 1 / math.sqrt(self.in1_features) if self.in1_features else 0.0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return convolution.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Embedding(Layer):
    """A row of the weight for each index: (…,) of an integer dtype gives (…, embedding_dim).

    The parameter is weight (num_embeddings, embedding_dim), standard normal.

    Arguments:
        padding_idx: this row starts as zeros and gets no gradient.
        sparse: the gradient is the same, whether or not.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise UsageError(f"padding_idx {padding_idx} is none of {num_embeddings} embeddings")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(empty(num_embeddings, embedding_dim))
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: object, freeze: bool = True, padding_idx: int | None = None, **others: Any
    ) -> Self:
        """An embedding with these rows, (num_embeddings, embedding_dim).

        Arguments:
            freeze: they are not learned.
            padding_idx: this row gets no gradient; it stays what it is.
            others: further arguments of the class.
        """
        weight = np.array(embeddings, np.float32)
        if weight.ndim != 2:
            raise ShapeError(f"pretrained embeddings are the rows of a matrix, got {weight.shape}")
        if padding_idx is not None:
            others["padding_idx"] = padding_idx
        made = cls(*weight.shape, **others)
        made.weight = Parameter(weight, requires_grad=not freeze)
        return made

    def reset_parameters(self) -> None:
        """New random contents."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        return shape.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class EmbeddingBag(Embedding):
    """The mean, sum or largest elements of the rows of each bag of indices: (bags, N) of an integer
    dtype, or (N,) and where each bag begins, give (bags, embedding_dim).

    Arguments:
        mode: "mean", "sum" or "max".
        sparse: the gradient is the same, whether or not.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        mode: str = "mean",
        *,
        sparse: bool = False,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, sparse=sparse)
        if mode not in ("mean", "sum", "max"):
            raise UsageError(f"mode is mean, sum or max, not {mode!r}")
        self.mode = mode

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        return embedding_bag(
            input, self.weight, offsets, mode=self.mode, per_sample_weights=per_sample_weights
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode!r}"
