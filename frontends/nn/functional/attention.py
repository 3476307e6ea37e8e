"""Attention: values looked up by how well keys fit queries."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ops.linear import matmul
from ....compiler.tensor import Tensor
from ....compiler.tensor.promotion import as_tensor
from ....compiler.types import Array, DType
from .activation import softmax
from .dropout import dropout


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value (Vaswani et al., Attention is all you need, 2017).

    Arguments:
        query: (…, L, E).
        key: (…, S, E).
        value: (…, S, V).
        attn_mask: what broadcasts to (…, L, S): True where a key takes part, or floats that are
            added.
        dropout_p: the share of the weights that are dropped.
        is_causal: query i sees keys 0 to i only.
        scale: 1 / sqrt(E) by default.

    Returns:
        (…, L, V).
    """
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    weights = attention_weights(query * factor, key, attn_mask, is_causal)
    return matmul(dropout(weights, dropout_p), value)


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | Array | None, is_causal: bool = False
) -> Tensor:
    """How much each query (…, L, E) takes of each key (…, S, E): (…, L, S)."""
    scores = matmul(query, key.mT)
    if is_causal:
        scores = _masked(scores, np.tril(np.ones(scores.shape[-2:], bool)))
    return softmax(_masked(scores, mask), -1)


def _masked(scores: Tensor, mask: Tensor | Array | None) -> Tensor:
    if mask is None:
        return scores
    mask = as_tensor(mask, scores)
    return mask.where(scores, -math.inf) if mask.dtype is DType.BOOL else scores + mask


__all__ = ["scaled_dot_product_attention"]
