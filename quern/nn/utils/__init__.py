"""What is done to modules and their parameters, with the names of torch.nn.utils."""

from __future__ import annotations

from ...frontends.nn.parameters import (
    clip_grad_norm_,
    clip_grad_value_,
    fuse_conv_bn_eval,
    fuse_linear_bn_eval,
    parameters_to_vector,
    vector_to_parameters,
)
from . import parametrizations, parametrize, prune, rnn
from .parametrizations import spectral_norm, weight_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "prune",
    "rnn",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]
