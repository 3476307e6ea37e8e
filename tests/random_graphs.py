"""Random graphs of point nodes, reductions, moves, products, pools, scatters: for hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply, apply_all
from quern.compiler.ops.indexing import ScatterAdd, Take
from quern.compiler.ops.movement import Concat, Pad, PadMode
from quern.compiler.ops.pool import MaxPool, SumPool
from quern.compiler.ops.random import Philox
from quern.compiler.tensor import Tensor
from quern.compiler.types import Array, DType, TensorType, broadcast_shapes


@dataclass
class Builder:
    """Adds random nodes to a graph; all floats are float64 and stay within a few thousands."""

    draw: Any
    graph: Graph = field(default_factory=Graph)
    tensors: list[Tensor] = field(default_factory=list)
    feeds: dict[str, Array] = field(default_factory=dict)

    def any(self) -> Tensor:
        tensor: Tensor = self.draw(st.sampled_from(self.tensors))
        return tensor

    def input(self) -> Tensor:
        shape = tuple(self.draw(st.lists(st.sampled_from([1, 2, 3, 5, 9]), max_size=4)))
        x = self.graph.input(TensorType(shape, DType.FLOAT64), f"x{len(self.feeds)}")
        seed = len(self.feeds)
        self.feeds[x.value.node] = np.random.default_rng(seed).standard_normal(shape)
        return x

    def unary(self) -> Tensor:
        x = self.any()
        kind = self.draw(st.sampled_from(["relu", "tanh", "abs", "negate", "sigmoid", "half"]))
        if kind == "negate":
            return -x
        return x * 0.5 if kind == "half" else getattr(x, kind)()

    def binary(self) -> Tensor:
        a, b = self.any(), self.any()
        try:
            broadcast_shapes(a.shape, b.shape)
        except Exception:
            b = b.sum(keepdims=False) * 0.01
        kind = self.draw(st.sampled_from(["add", "subtract", "bounded", "maximum", "where"]))
        if kind == "add":
            return a + b
        if kind == "subtract":
            return a - b
        if kind == "maximum":
            return a.maximum(b)
        return (a < b).where(a, b * 0.5) if kind == "where" else a.tanh() * b

    def reduction(self) -> Tensor:
        x = self.any()
        axes = tuple(d for d in range(x.rank) if self.draw(st.booleans()))
        kind = self.draw(st.sampled_from(["mean", "amax", "amin"]))
        y: Tensor = getattr(x, kind)(axes, self.draw(st.booleans()))
        return y

    def centered(self) -> Tensor:
        """A row less its mean: a reduction and what follows from it."""
        x = self.any()
        axes = tuple(d for d in range(x.rank) if self.draw(st.booleans()))
        return x - x.mean(axes, keepdims=True)

    def reshape(self) -> Tensor:
        x = self.any()
        return x.reshape(-1) if x.rank != 1 else x.reshape(1, -1, 1)

    def transpose(self) -> Tensor:
        x = self.any()
        return x.permute(*self.draw(st.permutations(range(x.rank)))) if x.rank else x.unsqueeze(0)

    def slice(self) -> Tensor:
        x = self.any()
        if not x.rank:
            return x.broadcast_to(3)
        axis = self.draw(st.integers(0, x.rank - 1))
        step = self.draw(st.sampled_from([1, 2, -1, -2]))
        size = (x.shape[axis] - 1) // abs(step) + 1
        start = 0 if step > 0 else (size - 1) * -step
        return x.slice_axis(axis, start, size, step)

    def pad(self) -> Tensor:
        x = self.any()
        modes = list(PadMode) if 0 not in x.shape else [PadMode.CONSTANT]
        mode = self.draw(st.sampled_from(modes))
        most = {PadMode.REFLECT: 1, PadMode.WRAP: 0}
        pairs = tuple(
            tuple(
                self.draw(st.integers(0, max(0, min(2, n - most[mode]) if mode in most else 2)))
                for _ in range(2)
            )
            for n in x.shape
        )
        y = apply(Pad(pairs, mode, 0.25), x)
        return y if np.prod(y.shape) < 5000 else x

    def concat(self) -> Tensor:
        x = self.any()
        if not x.rank:
            return x.unsqueeze(0)
        same = [t for t in self.tensors if t.shape == x.shape]
        axis = self.draw(st.integers(0, x.rank - 1))
        return apply(Concat(axis), x, self.draw(st.sampled_from(same)))

    def matmul(self) -> Tensor:
        x = self.any()
        if x.rank < 2:
            return x.unsqueeze(0)
        return x.tanh() @ x.transpose(-1, -2).tanh()

    def take(self) -> Tensor:
        x = self.any()
        if not x.rank:
            return x + 1.0
        indices = x.graph.constant(np.array([0, -1, 2, 0, 99]), DType.INT64)
        return apply(Take(x.rank - 1), x, indices)

    def scatter(self) -> Tensor:
        x = self.any()
        if not x.rank or not x.shape[0]:
            return x.abs()
        indices = x.graph.constant(np.arange(x.shape[0]) * 7 % 3, DType.INT64)
        return apply(ScatterAdd((4, *x.shape[1:])), indices, x)

    def pool(self) -> Tensor:
        x = self.any()
        if x.rank != 3 or x.shape[-1] < 2:
            return x.relu()
        window = ((2,), (1,), ((1, 0),), (1,))
        if self.draw(st.booleans()):
            return apply_all(MaxPool(*window), x)[0]
        return apply(SumPool(*window), x) * 0.5

    def philox(self) -> Tensor:
        x = self.any()
        seed = x.graph.constant(7, DType.INT64)
        (mask,) = x.graph.apply(Philox(x.type), seed, seed)
        return (mask < 0.5).where(x, 0.0)

    def step(self) -> Tensor:
        kinds = (
            ["unary"] * 3 + ["binary"] * 5 + ["reduction", "centered"] * 2
            + ["reshape", "transpose", "slice", "pad", "concat", "matmul", "take", "scatter"]
            + ["pool", "philox"]
        )  # fmt: skip
        y: Tensor = getattr(self, self.draw(st.sampled_from(kinds)))()
        return y if int(np.prod(y.shape)) <= 5000 else y.mean(tuple(range(1, y.rank)))


@st.composite
def graphs(draw: Any, most: int = 14) -> tuple[Graph, dict[str, Array]]:
    """A graph and its feeds."""
    builder = Builder(draw)
    builder.tensors = [builder.input() for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(1, most))):
        builder.tensors.append(builder.step())
    inputs = len(builder.feeds)
    results = draw(st.lists(st.sampled_from(builder.tensors[inputs:]), min_size=1, max_size=3))
    named = {f"y{i}": t.value for i, t in enumerate(results)}
    named["last"] = builder.tensors[-1].value
    builder.graph.outputs = named
    return builder.graph, builder.feeds
