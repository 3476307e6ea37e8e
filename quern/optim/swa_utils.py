"""Means of weights, with the names and arguments of torch.optim.swa_utils."""

from __future__ import annotations

from ..frontends.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

__all__ = ["AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn"]
