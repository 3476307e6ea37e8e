"""The loss of labels whose places in a sequence are not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import DTypeError, ShapeError
from ...types import DType
from ..base import apply
from ..composite import Composite
from ..indexing import TakeAlongAxis, own_indices
from ..movement import Concat, Pad
from ..pointwise import require_float
from ..recurrence import recur
from .base import Reduction

if TYPE_CHECKING:
    from ...tensor import Tensor

# The logarithm of no probability: sums with it stay finite, and so do their derivatives.
_NEVER = -1e30


@dataclass(frozen=True)
class CTC(Composite):
    """Minus the log-probability of labels, over all ways to spread them over the steps of a
    sequence with blanks and repetitions (Graves et al., Connectionist temporal classification,
    2006).

    Inputs are log-probabilities (T, N, C), labels (N, S), and the lengths (N,) of both.

    Arguments:
        blank: the class that is no label.
        reduction: NONE gives (N,); MEAN divides each loss by the number of its labels before the
            mean over the batch.
        zero_infinity: labels for which there are too few steps count for nothing; else their loss
            is infinite.
    """

    blank: int = 0
    reduction: Reduction = Reduction.MEAN
    zero_infinity: bool = False
    arity: ClassVar[tuple[int, int | None]] = (4, 4)

    def expand(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        log_probs, labels, steps, lengths = inputs
        require_float(self, log_probs)
        self._check(*inputs)
        states = self._states(labels)
        before = apply(Pad(((0, 0), (2, 0)), value=-1.0), states)[:, : states.shape[1]]
        # A label may follow on the label before it if the two differ.
        skips = states.not_equal(self.blank) & states.not_equal(before)
        count = log_probs.shape[0]
        where = states.unsqueeze(0).broadcast_to(count, *states.shape)
        scores = apply(TakeAlongAxis(2), log_probs, where)
        times = own_indices(where, 0, count, DType.INT64)
        running = times < steps.cast(DType.INT64).reshape(1, -1, 1)

        def step(
            alpha: Tensor, score: Tensor, runs: Tensor, skips: Tensor
        ) -> tuple[list[Tensor], list[Tensor]]:
            skipped = skips.where(_shifted(alpha, 2), _NEVER)
            total = _log_sum(alpha, _shifted(alpha, 1), skipped) + score
            return [runs.where(total, alpha)], []

        # As if a blank stood in front of the first step.
        start = np.full(states.shape, _NEVER)
        start[:, 0] = 0.0
        first = log_probs.graph.constant(start, log_probs.dtype)
        (alpha,), _ = recur(step, [first], [scores, running], [skips])
        return (self._reduced(self._loss(alpha, lengths), lengths),)

    def _states(self, labels: Tensor) -> Tensor:
        """Labels with blanks before, between and behind them, (N, 2 S + 1)."""
        n, s = labels.shape
        blanks = labels.graph.constant(np.full((n, s, 1), self.blank), DType.INT64)
        pairs = apply(Concat(2), blanks, labels.cast(DType.INT64).unsqueeze(2))
        return apply(Pad(((0, 0), (0, 1)), value=float(self.blank)), pairs.reshape(n, 2 * s))

    def _loss(self, alpha: Tensor, lengths: Tensor) -> Tensor:
        """Of each sequence: it ends with its last label or the blank behind that."""
        end = 2 * lengths.cast(DType.INT64).unsqueeze(1)
        blank = apply(TakeAlongAxis(1), alpha, end)
        label = (end > 0).where(apply(TakeAlongAxis(1), alpha, (end - 1).maximum(0)), _NEVER)
        loss = -_log_sum(blank, label).squeeze(1)
        is_possible = loss < -0.5 * _NEVER
        return is_possible.where(loss, 0.0 if self.zero_infinity else float("inf"))

    def _reduced(self, loss: Tensor, lengths: Tensor) -> Tensor:
        if self.reduction is Reduction.NONE:
            return loss
        if self.reduction is Reduction.SUM:
            return loss.sum()
        return (loss / lengths.maximum(1).cast(loss.dtype)).mean()

    def _check(self, log_probs: Tensor, labels: Tensor, steps: Tensor, lengths: Tensor) -> None:
        fits = log_probs.rank == 3 and log_probs.shape[0] > 0 and labels.rank == 2
        n = log_probs.shape[1] if fits else 0
        if not fits or labels.shape[0] != n or steps.shape != (n,) or lengths.shape != (n,):
            raise ShapeError(
                f"CTC takes log-probabilities (T, N, C), labels (N, S) and two lengths (N,), got "
                f"{log_probs.type}, {labels.type}, {steps.type} and {lengths.type}"
            )
        if not 0 <= self.blank < log_probs.shape[2]:
            raise ShapeError(f"the blank {self.blank} is no class of {log_probs.type}")
        for whole in (labels, steps, lengths):
            if not whole.dtype.is_integer:
                raise DTypeError(f"labels and lengths of CTC are integers, got {whole.type}")


def _shifted(alpha: Tensor, by: int) -> Tensor:
    """Each state has what the one `by` places before it has."""
    padded = apply(Pad(((0, 0), (by, 0)), value=_NEVER), alpha)
    return padded[:, : alpha.shape[1]]


def _log_sum(*terms: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials."""
    top = terms[0]
    for x in terms[1:]:
        top = top.maximum(x)
    top = top.detach()
    parts = [(x - top).exp() for x in terms]
    return sum(parts[1:], parts[0]).log() + top
