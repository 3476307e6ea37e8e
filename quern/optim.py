"""Optimizers and learning-rate schedules, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from .compiler.training import build_training_step
from .frontends.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .frontends.optim.schedules import (
    Constant,
    CosineAnnealingLR,
    ExponentialLR,
    InverseDecay,
    LinearWarmup,
    MultiStepLR,
    OneCycleLR,
    Schedule,
    StepLR,
)

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "CosineAnnealingLR",
    "ExponentialLR",
    "InverseDecay",
    "LinearWarmup",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepLR",
    "build_training_step",
]
