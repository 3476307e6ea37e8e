"""Optimizers and learning-rate schedules, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from ..compiler.training import build_training_step
from ..frontends.optim.optimizer import Optimizer
from ..frontends.optim.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
)
from . import lr_scheduler, swa_utils
from .lr_scheduler import *  # noqa: F403  # its __all__, which is this one's, too

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "build_training_step",
    "lr_scheduler",
    "swa_utils",
    *lr_scheduler.__all__,
]
