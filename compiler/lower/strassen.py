"""Strassen's algorithm for 1x1 convolutions of values in blocks of channels.

Each pixel in the first half of an image is paired with the one as far behind its middle. Pairs are
numbered over the whole batch, and taken some at a time, as tiles are in Winograd convolution:

    inputs     each pair's seven sums of quarters
    products   for each of the seven: [pairs x C / 2] · [C / 2 x K / 2]
    outputs    the four sums of a pair's products, and the epilogue

Vectors lie along the channels everywhere. Which of this a task does is in `product_tasks.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ..cost_model import Blocking, strassen_blocking
from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..loops.ir import Expr, LoopKind, Space
from ..ops.strassen import INPUTS, PLACES, RESULTS, WEIGHTS, StrassenConv
from ..types import Shape
from .anchored import Anchored
from .binding import Binding, Lowered
from .epilogue import store_results
from .flat import flat_shapes
from .index import Index
from .linear_map import linear_map
from .product_tasks import ProductTasks
from .tile import panels
from .winograd_products import Products
from .winograd_tiles import APART

# Bytes that a prefetch gets.
_LINE = 64


def lower_strassen(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of StrassenConv and its epilogue."""
    assert group.anchor is not None
    binding = Binding(graph, group, target, flat_shapes(graph, group))
    return Strassen(binding, Value(group.anchor)).lower()


@dataclass
class Strassen(Anchored):
    """One convolution.

    Arguments:
        given: how much is done at a time; chosen by the cost model if None.
    """

    given: Blocking | None = None

    @cached_property
    def shape(self) -> Shape:
        """(N, K / d, *spatial, d)"""
        return self.binding.shape(self.result)

    @cached_property
    def read(self) -> Shape:
        """(N, C / b, *spatial, b)"""
        return self.binding.shape(self.inputs[0])

    @cached_property
    def pixels(self) -> int:
        """Of an image."""
        return math.prod(self.shape[2:-1])

    @cached_property
    def half(self) -> int:
        """Pairs of an image."""
        return -(-self.pixels // 2)

    @cached_property
    def pairs(self) -> int:
        return self.shape[0] * self.half

    @cached_property
    def is_odd(self) -> bool:
        """Whether the last pair of an image has one pixel only."""
        return self.pixels % 2 == 1

    @cached_property
    def blocking(self) -> Blocking:
        op = self.binding.graph.node(self.result.node).op
        assert isinstance(op, StrassenConv)
        panel = self.binding.shape(self.inputs[1])[-1]
        return self.given or strassen_blocking(
            self.binding.target, self.dtype, self.pairs, op.weight, panel
        )

    @cached_property
    def products(self) -> Products:
        """The products, from sums of inputs to the stack."""
        blocking, block, weight = self.blocking, self.read[-1], self.inputs[1]
        size = self.read[1] // 2 * blocking.tiles * block + APART
        inputs = (1 if blocking.near else blocking.slots, PLACES, size)
        space = Space.STACK if blocking.near else Space.SCRATCH
        results = (blocking.tiles, PLACES, self.binding.shape(weight)[-1])
        return Products(
            self.binding,
            self.binding.local("sums", inputs, self.dtype, space),
            self.binding.inputs[weight],
            self.binding.local("products", results, self.dtype, Space.STACK),
            block,
            # Large weights come from memory, and then what is asked for besides is in the way.
            unrolled=blocking.panels_first,
        )

    def lower(self) -> Lowered:
        products, blocking = self.products, self.blocking
        channels = self.read[1] // 2
        tasks = ProductTasks(
            products, blocking, channels, self._inputs, self._outputs, self._ask_ahead
        )
        rows = f"{products.spans[0].length}x{products.columns.width}"
        note = f"strassen, {rows}, {blocking.tiles} pairs at a time"
        return self.binding.finish(tasks.all(), note)

    def _over_pairs(self, block: Expr, pair: ir.Var, number: ir.Var, body: ir.Block) -> ir.Block:
        """What is done with each pair of a block."""
        blocking = self.blocking
        if blocking.blocks * blocking.tiles != self.pairs:
            body = (ir.If(pair < self.pairs, body),)
        body = (ir.Let(pair, block * blocking.tiles + number), *body)
        return (ir.For(number, blocking.tiles, body),)

    def _place(self, pair: Expr, second: Expr) -> tuple[Expr, Expr]:
        """The image and the number of a pair's first pixel (0) or its second one (1)."""
        if self.shape[0] == 1:
            return ir.index(0), pair + second * self.half
        return pair // self.half, pair % self.half + second * self.half

    def _index(self, pixel: Expr) -> Index:
        """The place of a pixel in its image."""
        place: Index = ()
        for extent in reversed(self.shape[3:-1]):
            pixel, place = pixel // extent, (pixel % extent, *place)
        return (pixel, *place)

    def _inputs(self, slot: Expr, block: Expr, channel: Expr) -> ir.Block:
        """The sums of a block of pairs, of a block of channels in either half of them."""
        number, pair, lane = (self.binding.var(h) for h in ("t", "pair", "v"))
        elements = self.binding.elements()
        quarters: list[Expr] = []
        for second in range(2):
            image, pixel = self._place(pair, ir.index(second))
            if second and self.is_odd:
                # The last pair has one pixel only: then the image's last one is read again.
                pixel = ir.minimum(pixel, self.pixels - 1)
            place = self._index(pixel)
            for half in (channel, channel + self.read[1] // 2):
                x = elements.at(self.inputs[0], (image, half, *place, lane))
                quarters.append(elements.name(x, "x"))
        sums = linear_map(elements, INPUTS, quarters)
        body = elements.take_block()
        at = self.products.at(channel, number, lane)
        for i, y in enumerate(sums):
            body += (ir.Store(self.products.inputs, (slot, ir.index(i), at), y),)
        vector = ir.For(lane, self.read[-1], body, LoopKind.VECTOR, self.lanes)
        return self._over_pairs(block, pair, number, (vector,))

    def _outputs(self, block: Expr, panel: Expr) -> ir.Block:
        """The results of a block of pairs, of a panel in either half of the output channels."""
        number, pair, vector, lane = (self.binding.var(h) for h in ("t", "pair", "k", "v"))
        size, half = self.shape[-1], self.shape[1] // 2
        products, elements = self.products.results, self.binding.elements()
        column, vectors = vector * size + lane, products.shape[-1] // size
        part = panel * vectors + vector
        places = ((number, ir.index(i), column) for i in range(PLACES))
        terms = [elements.name(ir.Load(products, place), "x") for place in places]
        results = [elements.name(y, "y") for y in linear_map(elements, RESULTS, terms)]
        body = elements.take_block()
        for second in range(2):
            image, pixel = self._place(pair, ir.index(second))
            store: ir.Block = ()
            for first in (0, half):
                index = (image, part + first, *self._index(pixel), lane)
                store += store_results(self.binding, {self.result: results.pop(0)}, index)
            if second and self.is_odd:
                store = (ir.If(pixel < self.pixels, store),)
            body += store
        body = (ir.For(lane, size, body, LoopKind.VECTOR, self.lanes),)
        if half % vectors:
            body = (ir.If(part < half, body),)
        return self._over_pairs(block, pair, number, (ir.For(vector, vectors, body),))

    def _ask_ahead(
        self, block: Expr, panel: Expr, place: Expr, first: Expr, length: int
    ) -> ir.Block:
        """Asks for a quarter of what a register tile's results will be written to and added to.

        They come all at once behind the products, from as many places as there are blocks of
        channels: whoever waits for them then waits for one after the other.
        """
        binding, size = self.binding, self.shape[-1]
        vectors = self.products.columns.width // size
        step = max(1, _LINE // (size * self.dtype.size))
        asked: ir.Block = ()
        for value, buffer in (*binding.inputs.items(), *binding.outputs.items()):
            if binding.shape(value) != self.shape or value == self.inputs[0]:
                continue
            for number in range(0, length, step):
                pair = block * self.blocking.tiles + (first + number)
                image, pixel = self._place(pair, place // 2)
                for vector in range(vectors):
                    channel = panel * vectors + vector + place % 2 * (self.shape[1] // 2)
                    index = (image, channel, *self._index(pixel), ir.index(0))
                    asked += (ir.Prefetch(buffer, index),)
        return (ir.If(place < 4, asked),) if asked else ()


def lower_strassen_weight(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of StrassenWeight."""
    assert group.anchor is not None
    binding, result = Binding(graph, group, target), Value(group.anchor)
    (source,) = graph.inputs_of(group.anchor)
    weight, sums = binding.inputs[source], binding.outputs[result]
    _, places, depth, panel = sums.shape
    number, channel, lane, place = (binding.var(h) for h in ("panel", "c", "v", "p"))
    half, one = weight.shape[0] // 2, (ir.index(0),) * (len(weight.shape) - 2)
    body: ir.Block = ()
    for span in panels(half, panel):
        first = number + span.start // panel
        elements = binding.elements()
        quarters = [
            elements.name(ir.Load(weight, (first * panel + lane + k, channel + c, *one)), "w")
            for c in (0, depth)
            for k in (0, half)
        ]
        us = linear_map(elements, WEIGHTS, quarters)
        inside = elements.take_block()
        inside += tuple(
            ir.Store(sums, (first, ir.index(i), channel, lane), u) for i, u in enumerate(us)
        )
        # Lane by lane: a vector of rows would be many times the code, and hardly faster.
        inside = (ir.For(lane, span.length, inside),)
        if fill := panel - span.length:
            zero = ir.Store(
                sums, (first, place, channel, lane + span.length), ir.Const(0.0, sums.dtype)
            )
            zeros = (ir.For(lane, fill, (zero,), LoopKind.VECTOR, fill),)
            inside += (ir.For(place, places, zeros),)
        nest = ((number, span.count), (channel, depth))
        body += ir.loop_nest(nest, inside, LoopKind.PARALLEL)
    return binding.finish(body, "strassen weights")
