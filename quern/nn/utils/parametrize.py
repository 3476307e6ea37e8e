"""Weights that are computed from other parameters, with PyTorch's names."""

from __future__ import annotations

from ...frontends.nn.parametrize import (
    ParametrizationList,
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
)

__all__ = [
    "ParametrizationList",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
]
