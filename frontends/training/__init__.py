"""Training of modules: `Trainer`, and what it takes as loss, metrics and data."""

from __future__ import annotations

from .trainer import Trainer

__all__ = ["Trainer"]
