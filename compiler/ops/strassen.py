"""1x1 convolutions by fewer products: Strassen's algorithm for halves of pixels and channels.

A 1x1 convolution is a product of matrices, of pixels by input channels with input channels by
output channels. With each of the three cut in halves, seven products of sums of quarters take the
place of eight (V. Strassen, Gaussian Elimination is not Optimal, 1969). Sums of the weight's
quarters are had once; those of the inputs and of the results cost little where there are many
channels.

A NaN or an infinity in the input reaches other channels of its pixel, and another pixel of its
image; images know nothing of each other.

The pass `compiler/passes/strassen.py` puts this operation in the place of blocked convolutions
where it pays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from ..errors import ShapeError
from ..types import Array, DType, TensorType
from .base import Op
from .blocked import Block, blocked, is_pointwise, plain, plain_shape
from .conv import Conv
from .linear import in_double
from .toom_cook import Matrix, as_array


def _matrix(*rows: tuple[int, ...]) -> Matrix:
    return tuple(tuple(map(Fraction, row)) for row in rows)


# What is multiplied, of the quarters of either factor: 11, 12, 21, 22; and the quarters of the
# product, of what was multiplied.
INPUTS = _matrix(
    (1, 0, 0, 1),
    (0, 0, 1, 1),
    (1, 0, 0, 0),
    (0, 0, 0, 1),
    (1, 1, 0, 0),
    (-1, 0, 1, 0),
    (0, 1, 0, -1),
)
WEIGHTS = _matrix(
    (1, 0, 0, 1),
    (1, 0, 0, 0),
    (0, 1, 0, -1),
    (-1, 0, 1, 0),
    (0, 0, 0, 1),
    (1, 1, 0, 0),
    (0, 0, 1, 1),
)
RESULTS = _matrix(
    (1, 0, 0, 1, -1, 0, 1),
    (0, 0, 1, 0, 1, 0, 0),
    (0, 1, 0, 1, 0, 0, 0),
    (1, -1, 1, 0, 0, 1, 0),
)
PLACES = len(INPUTS)


@dataclass(frozen=True)
class StrassenWeight(Op):
    """The seven sums of the quarters of a weight (K, C, 1, ...) as (panels, 7, C / 2, panel).

    Neighbouring output channels of a half lie side by side in panels, zeros behind the last.

    Arguments:
        panel: output channels side by side.
    """

    panel: int
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (w,) = inputs
        if w.rank < 2 or w.shape[0] % 2 or w.shape[1] % 2 or math.prod(w.shape[2:]) != 1:
            raise ShapeError(f"Strassen's algorithm takes halves of weights (K, C, 1, 1), got {w}")
        channels, depth = (n // 2 for n in w.shape[:2])
        return (w.with_shape((-(-channels // self.panel), PLACES, depth, self.panel)),)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        (w,) = inputs
        channels, depth = (n // 2 for n in w.shape[:2])
        quarters = in_double(w).reshape(2, channels, 2, depth).transpose(2, 0, 3, 1)
        with np.errstate(all="ignore"):
            u = np.einsum("ia,ack->kic", as_array(WEIGHTS), quarters.reshape(4, depth, channels))
        u = np.pad(u, ((0, -channels % self.panel), (0, 0), (0, 0)))
        u = u.reshape(-1, self.panel, PLACES, depth).transpose(0, 2, 3, 1)
        return (np.ascontiguousarray(u, w.dtype),)


@dataclass(frozen=True)
class StrassenConv(Op):
    """A 1x1 convolution of a value in blocks of channels.

    Inputs are x (N, C / b, *spatial, b) and the weight as `StrassenWeight` gives it; the output is
    in blocks of `block`. The halves of the pixels are those of each image.

    Arguments:
        convolution: what it computes: stride 1, no padding, one group.
        weight: shape of the weight.
        block: channels in a block of the output.
    """

    convolution: Conv
    weight: tuple[int, ...]
    block: int
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, u = inputs
        weight = u.with_shape(self.weight)
        if not is_pointwise(self.convolution, self.weight):
            raise ShapeError(f"{self.convolution} by {weight} is more than a product of matrices")
        (expected,) = StrassenWeight(u.shape[-1]).infer(weight)
        if expected != u:
            raise ShapeError(f"the quarters of weight {weight} have sums {expected}, got {u}")
        (y,) = self.convolution.infer(x.with_shape(plain_shape(x.shape)), weight)
        return Block(self.block).infer(y)

    def evaluate(self, *inputs: Array) -> tuple[Array, ...]:
        x, u = plain(inputs[0]), in_double(inputs[1])
        (y,) = self.infer(*(TensorType(a.shape, DType.of(a.dtype)) for a in inputs))
        n, k, *spatial = plain_shape(y.shape)
        count = math.prod(spatial)
        half = -(-count // 2)
        rows = np.moveaxis(in_double(x), 1, -1).reshape(n, count, x.shape[1])
        rows = np.pad(rows, ((0, 0), (0, count % 2), (0, 0)), "edge")
        quarters = rows.reshape(n, 2, half, 2, -1).transpose(1, 3, 0, 2, 4)
        pairs = n * half
        quarters = quarters.reshape(4, pairs, -1)
        with np.errstate(all="ignore"):
            sums = np.einsum("ia,atc->itc", as_array(INPUTS), quarters)
            products = np.einsum("itc,picj->itpj", sums, u)
            products = products.reshape(PLACES, pairs, -1)[..., : k // 2]
            results = np.einsum("ai,itk->atk", as_array(RESULTS), products)
        results = results.reshape(2, 2, n, half, -1).transpose(2, 0, 3, 1, 4)
        results = results.reshape(n, 2 * half, k)[:, :count]
        whole = np.moveaxis(results.reshape(n, *spatial, k), -1, 1)
        return (blocked(np.ascontiguousarray(whole, x.dtype), self.block),)
