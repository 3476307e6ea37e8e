"""What is done to modules and their parameters, with the names of torch.nn.utils."""

from __future__ import annotations

from . import rnn

__all__ = ["rnn"]
