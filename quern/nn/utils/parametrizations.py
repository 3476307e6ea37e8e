"""Parametrizations that there are, with PyTorch's names."""

from __future__ import annotations

from ...frontends.nn.parametrize import (
    spectral_norm,
    weight_norm,
)

__all__ = [
    "spectral_norm",
    "weight_norm",
]
