"""The tasks of algorithms that multiply sums of inputs: Winograd's, of tiles, and Strassen's, of
pairs of pixels.

A task takes several blocks of tiles through three steps, `inputs`, products and `outputs`, with
transformed inputs on its stack, or in a slot of its own where they are many; products go to the
stack for a panel of output channels at a time. Where there are few blocks, all inputs are
transformed first, and tasks are blocks of tiles times panels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..cost_model import Blocking
from ..loops import ir
from ..loops.ir import Expr, LoopKind
from .winograd_products import Products


@dataclass(frozen=True)
class ProductTasks:
    """All tasks.

    Arguments:
        products: of a block and a panel.
        blocking: how much is done at a time.
        channels: blocks of input channels of the products.
        inputs: transforms those of a block of tiles and a block of channels, into a slot.
        outputs: transforms the products of a block of tiles and a panel.
        ahead: asks for what `outputs` reads and writes, at each place of each register tile.
    """

    products: Products
    blocking: Blocking
    channels: int
    inputs: Callable[[Expr, Expr, Expr], ir.Block]
    outputs: Callable[[Expr, Expr], ir.Block]
    ahead: Callable[[Expr, Expr, Expr, Expr, int], ir.Block] | None = None

    def all(self) -> ir.Block:
        """The loops."""
        return self._fused() if self.blocking.fused else self._apart()

    def _var(self, hint: str) -> ir.Var:
        return self.products.binding.var(hint)

    @property
    def _panels(self) -> int:
        return self.products.weight.shape[0]

    def _fused(self) -> ir.Block:
        """Each task takes blocks of tiles through all steps, on its stack or in its own slot."""
        task, number = self._var("task"), self._var("block")
        channel, panel = self._var("c"), self._var("panel")
        blocking = self.blocking
        block = task * blocking.repeats + number
        slot = ir.index(0) if blocking.near else task
        body: ir.Block = (
            ir.For(channel, self.channels, self.inputs(slot, block, channel)),
            ir.For(panel, self._panels, self._products_and_outputs(slot, block, panel)),
        )
        if blocking.slots * blocking.repeats != blocking.blocks:
            body = (ir.If(block < blocking.blocks, body),)
        body = (ir.Alloc(self.products.results), ir.For(number, blocking.repeats, body))
        if blocking.near:
            body = (ir.Alloc(self.products.inputs), *body)
        return (ir.For(task, blocking.slots, body, LoopKind.PARALLEL),)

    def _apart(self) -> ir.Block:
        """First all inputs, then the products."""
        block, channel, panel = (self._var(h) for h in ("block", "c", "panel"))
        blocks = block, self.blocking.blocks
        first = self.inputs(block, block, channel)
        last = (ir.Alloc(self.products.results), *self._products_and_outputs(block, block, panel))
        inputs, outputs = (blocks, (channel, self.channels)), (blocks, (panel, self._panels))
        if self.blocking.panels_first:
            inputs, outputs = inputs[::-1], outputs[::-1]
        return (
            *ir.loop_nest(inputs, first, LoopKind.PARALLEL),
            *ir.loop_nest(outputs, last, LoopKind.PARALLEL),
        )

    def _products_and_outputs(self, slot: Expr, block: Expr, panel: Expr) -> ir.Block:
        ahead = partial(self.ahead, block, panel) if self.ahead else None
        return self.products.all(slot, panel, ahead) + self.outputs(block, panel)
