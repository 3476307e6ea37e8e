"""Convolution, and its transpose by x, which is also the transposed convolution.

Both gather: out[n, k, o] = sum over c and taps t of in[n, c, place(o, t)] * w(k, c, t), where k is
an output channel, c an input channel, and `slide.py` has the places. In the lanes of vectors are
neighbouring pixels (`conv.py`) or neighbouring channels (`blocked_conv.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from ..graph import Value
from ..ops.conv import Conv, Convolution
from ..types import Shape
from .anchored import Anchored
from .contraction import Axis, Contraction
from .slide import Slide, forward_slides, transposed_slides


@dataclass(frozen=True)
class Part:
    """The outputs that share their taps.

    Arguments:
        slides: one a spatial axis.
        outputs, taps: their axes.
        form: the sum.
    """

    slides: tuple[Slide, ...]
    outputs: tuple[Axis, ...]
    taps: tuple[Axis, ...]
    form: Contraction

    @property
    def note(self) -> str:
        lanes = "pixels" if self.form.lane is self.outputs[-1] else "channels"
        return f"direct {self.form.size}, {lanes}"


@dataclass
class Gather(Anchored, ABC):
    """One convolution or transposed convolution; `shape` is (N, K, *spatial)."""

    @cached_property
    @abstractmethod
    def op(self) -> Convolution:
        """What it computes."""

    @property
    def source(self) -> Value:
        return self.inputs[0]

    @property
    def weight(self) -> Value:
        return self.inputs[1]

    @cached_property
    def group(self) -> Axis:
        return Axis("g", self.op.groups, 1)

    @cached_property
    def batch(self) -> Axis:
        return Axis("n", self.shape[0])

    @cached_property
    def channel(self) -> Axis:
        """Output channels of a group."""
        return Axis("k", self.shape[1] // self.group.extent)

    def slides_of(self, kernel: Shape, source: Shape) -> list[tuple[Slide, ...]]:
        """The slides of each part, for a kernel of these extents over a plain shape."""
        window = self.op.window(kernel)
        if isinstance(self.op, Conv):
            return [forward_slides(window, source[2:])]
        return list(product(*transposed_slides(window, self.shape[2:])))

    def outputs(self, slides: Sequence[Slide]) -> tuple[Axis, ...]:
        """The spatial axes of the result."""
        names = "dhw"[-len(slides) :]
        return tuple(Axis(h, s.count) for h, s in zip(names, slides, strict=True))
