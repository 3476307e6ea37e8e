"""Attention of several heads (Vaswani et al., Attention is all you need, 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...compiler.errors import ShapeError, UsageError
from ...compiler.tensor import Tensor
from ...compiler.tensor.promotion import as_tensor
from ...compiler.types import Array, DType
from . import init
from .functional.attention import attention_weights
from .functional.convolution import linear
from .functional.dropout import dropout as dropped
from .linear import Linear, empty
from .module import Module
from .state import Parameter

Mask = Tensor | Array | None


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear layer; the name is PyTorch's."""


class MultiheadAttention(Module):
    """Attention of several heads, each in a part of the features.

    Parameters are in_proj_weight (3 E, E), or q_proj_weight (E, E), k_proj_weight (E, kdim) and
    v_proj_weight (E, vdim) where those differ from E, in_proj_bias (3 E,) and out_proj's.

    Arguments:
        embed_dim: E, features of queries and of results.
        num_heads: divides E.
        dropout: the share of the weights that are dropped in training.
        bias: whether there are in_proj_bias and out_proj.bias.
        kdim: features of keys; E by default.
        vdim: features of values; E by default.
        batch_first: sequences are (N, L, E) in place of (L, N, E).
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise UsageError(f"{num_heads} heads do not divide {embed_dim} features")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        inputs = [embed_dim, kdim or embed_dim, vdim or embed_dim]
        together = inputs == [embed_dim] * 3
        for name, features in zip("qkv", inputs, strict=True):
            weight = None if together else Parameter(empty(embed_dim, features))
            self.register_parameter(f"{name}_proj_weight", weight)
        whole = Parameter(empty(3 * embed_dim, embed_dim)) if together else None
        self.register_parameter("in_proj_weight", whole)
        self.register_parameter("in_proj_bias", Parameter(empty(3 * embed_dim)) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random contents."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if (weight := getattr(self, name)) is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Mask = None,
        need_weights: bool = True,
        attn_mask: Mask = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """
        Arguments:
            query: (L, N, E), or (N, L, E) with batch_first, or (L, E).
            key: (S, N, kdim) alike.
            value: (S, N, vdim) alike.
            key_padding_mask: (N, S), or (S,): True for keys that take no part, or floats that are
                added.
            need_weights: whether the weights are returned.
            attn_mask: (L, S) or (N num_heads, L, S): True for keys that take no part, or floats
                that are added.
            average_attn_weights: weights are the mean over heads.
            is_causal: query i sees keys 0 to i only.

        Returns:
            The results, of the query's shape, and the weights (N, L, S), or (N, num_heads, L, S),
            or None.
        """
        alone = query.rank == 2
        if alone:
            query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        elif self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        if query.rank != 3 or key.shape[:2] != value.shape[:2] or query.size(1) != key.size(1):
            raise ShapeError(
                f"attention takes sequences of one batch, got {query.type}, {key.type} and "
                f"{value.type}; is batch_first={self.batch_first} right?"
            )
        heads = [self._heads(x) for x in self._projected(query, key, value)]
        length, batch, _ = query.shape
        mask = self._mask(attn_mask, key_padding_mask, heads[0], batch)
        scaled = heads[0] * (1 / math.sqrt(self.embed_dim // self.num_heads))
        weights = attention_weights(scaled, heads[1], mask, is_causal)
        result = dropped(weights, self.dropout, self.training) @ heads[2]
        result = self.out_proj(result.permute(2, 0, 1, 3).reshape(length, batch, self.embed_dim))
        shown = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if alone:
            return result.squeeze(1), None if shown is None else shown.squeeze(0)
        return result.transpose(0, 1) if self.batch_first else result, shown

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        if self.in_proj_weight is not None and query.value == key.value == value.value:
            return list(linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1))
        weights: Sequence[Tensor | None]
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None,) * 3
        inputs = zip((query, key, value), weights, biases, strict=True)
        return [linear(x, w, b) for x, w, b in inputs if w is not None]

    def _heads(self, x: Tensor) -> Tensor:
        """(L, N, E) as (N, num_heads, L, E / num_heads)."""
        return x.unflatten(2, (self.num_heads, -1)).permute(1, 2, 0, 3)

    def _mask(self, mask: Mask, padding: Mask, like: Tensor, batch: int) -> Tensor | None:
        """What is added to the scores (N, num_heads, L, S)."""
        terms = []
        if mask is not None:
            given = as_tensor(mask, like)
            shape = (batch, self.num_heads, *given.shape[1:]) if given.rank == 3 else given.shape
            terms.append(given.reshape(shape))
        if padding is not None:
            given = as_tensor(padding, like)
            terms.append(given.reshape(batch, 1, 1, given.shape[-1]))
        added = [
            t.where(-math.inf, like.constant(0)) if t.dtype is DType.BOOL else t for t in terms
        ]
        return sum(added[1:], added[0]) if added else None


def causal_mask(size: int) -> Array:
    """(size, size), -inf above the diagonal: element i sees elements 0 to i only."""
    return np.triu(np.full((size, size), -math.inf, np.float32), 1)
