"""Gradients checked against central differences, in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .autodiff import gradients
from .body import Body
from .errors import GradientError
from .evaluate import Evaluation, evaluate
from .graph import Graph, Node, Value
from .ops.base import Op
from .ops.leaf import Constant, Input, Leaf, Parameter
from .passes.expand import Expand
from .rewrite import rewrite
from .types import Array, DType, TensorType

# A wrong gradient is wrong at every step; rounding or a kink nearby spoils only some.
_RETRIES = (1.0, 0.1, 10.0, 0.01)


@dataclass(frozen=True)
class GradientCheck:
    """How well one gradient agrees.

    Arguments:
        name: the parameter or input.
        error: largest |analytic - numeric| over the largest of either, or over 1e-3 where both are
            smaller.
        index: the element of the largest error.
        analytic: the gradient there.
        numeric: the central difference there.
        checked: number of elements that were compared.
        size: number of elements there are.
    """

    name: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    checked: int
    size: int

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f"{self.name}{place}: gradient {self.analytic:.9g}, central difference "
            f"{self.numeric:.9g}, relative error {self.error:.2g} "
            f"({self.checked} of {self.size} elements)"
        )


@dataclass(frozen=True)
class GradientReport:
    """The gradients that agree, one check a parameter or input."""

    checks: tuple[GradientCheck, ...]

    @property
    def error(self) -> float:
        """The largest relative error."""
        return max((c.error for c in self.checks), default=0.0)

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))


def check_gradients(
    graph: Graph,
    feeds: Mapping[str, Array] | None = None,
    of: str | Sequence[str] | None = None,
    wrt: Sequence[str] | None = None,
    seed: int = 0,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    samples: int = 32,
) -> GradientReport:
    """Compares gradients with central differences, in float64 whatever the graph's own floats are.

    What is differentiated is a randomly weighted sum of all elements of the outputs: a plain sum
    would not notice errors that cancel.

    Arguments:
        graph: stays as it is.
        feeds: contents of inputs, parameters and buffers. Contents that neither they nor the graph
            give are random: floats between 0.25 and 1.25 away from 0 (of either sign, buffers
            positive), integers and bools 0 or 1.
        of: names of outputs; all float outputs by default.
        wrt: names of parameters, buffers or inputs; by default all trainable parameters and all
            float inputs that are in use.
        seed: of the random numbers.
        step: of the differences, times the magnitude of the element where that is above 1.
        tolerance: relative error that is allowed.
        samples: elements checked of each parameter or input, chosen at random when it has more.

    Raises:
        GradientError: when a gradient is wrong or not finite, with the numbers.
    """
    rng = np.random.default_rng(seed)
    wide = Expand(for_gradient=True).apply(as_float64(graph))
    names, sources = _asked_for(wide, of, wrt)
    contents = _contents(wide, feeds or {}, rng)
    wide.outputs, wide.updates = {n: wide.outputs[n] for n in names}, {}
    wide = rewrite(wide)
    values = [wide.outputs[n] for n in names]
    seeds = [_spread(rng, wide.type_of(v).shape) for v in values]
    problem = _Problem(wide, values, seeds, contents, step)
    analytic = problem.gradients(sources)
    checks = [
        problem.check(name, g, _chosen(rng, g.size, samples), tolerance)
        for name, g in zip(sources, analytic, strict=True)
    ]
    for found in checks:
        if not found.error <= tolerance:
            node = graph.node(found.name)
            raise GradientError(f"{found}, allowed {tolerance:.2g}").at(node.name, node.source)
    return GradientReport(tuple(checks))


@dataclass(frozen=True)
class _Problem:
    """The sum of seeds * values, as a function of the contents of leaves."""

    graph: Graph
    values: list[Value]
    seeds: list[Array]
    contents: dict[str, Array]
    step: float

    def gradients(self, sources: list[str]) -> list[Array]:
        graph = self.graph.copy()
        signals = gradients(
            graph,
            [graph.tensor(v) for v in self.values],
            [graph.tensor(Value(n)) for n in sources],
            [graph.constant(s) for s in self.seeds],
        )
        graph.outputs = {n: s.value for n, s in zip(sources, signals, strict=True) if s is not None}
        found = self._run(rewrite(graph), {}).outputs
        return [found.get(n, np.zeros(self.contents[n].shape)) for n in sources]

    def check(
        self, name: str, analytic: Array, chosen: list[int], tolerance: float
    ) -> GradientCheck:
        """One leaf: differences of the chosen elements, by other steps where they disagree."""
        exact = analytic.ravel()[chosen]
        numeric = np.array([self._difference(name, i, self.step) for i in chosen])
        scale = np.max(np.abs([exact, numeric]), initial=1e-3)
        for place, i in enumerate(chosen):
            for factor in _RETRIES[1:]:
                gap = abs(exact[place] - numeric[place])
                if not np.isfinite(exact[place]) or gap <= tolerance * scale:
                    break
                again = self._difference(name, i, self.step * factor)
                if not abs(exact[place] - again) >= gap:
                    numeric[place] = again
        errors = np.abs(exact - numeric) / scale
        errors = np.where(np.isnan(errors), np.inf, errors)
        worst = int(np.argmax(errors)) if chosen else 0
        if not chosen:
            return GradientCheck(name, 0.0, (), 0.0, 0.0, 0, 0)
        index = tuple(int(n) for n in np.unravel_index(chosen[worst], analytic.shape))
        return GradientCheck(
            name, float(errors[worst]), index, float(exact[worst]), float(numeric[worst]),
            len(chosen), analytic.size,
        )  # fmt: skip

    def _difference(self, name: str, element: int, step: float) -> float:
        """The central difference by one element; outputs are subtracted before they are summed."""
        x = self.contents[name]
        size = step * max(1.0, abs(float(x.flat[element])))
        above, below = x.copy(), x.copy()
        above.flat[element] += size
        below.flat[element] -= size
        width = float(above.flat[element] - below.flat[element])
        ahead, behind = (self._run(self.graph, {name: v}).values for v in (above, below))
        with np.errstate(all="ignore"):
            change = sum(
                float(np.sum(s * (ahead[v] - behind[v])))
                for v, s in zip(self.values, self.seeds, strict=True)
            )
        return change / width

    def _run(self, graph: Graph, changed: dict[str, Array]) -> Evaluation:
        return evaluate(graph, self.contents | changed)


def _chosen(rng: np.random.Generator, size: int, samples: int) -> list[int]:
    if size <= samples:
        return list(range(size))
    return sorted(int(i) for i in rng.choice(size, samples, replace=False))


# -- a graph in float64 ---------------------------------------------------------------------------


def as_float64(graph: Graph) -> Graph:
    """The same graph with every float32 in it, of leaves and of attributes, made float64."""
    wide = Graph(graph.name)
    for node in graph.nodes():
        inputs = graph.inputs_of(node.name)
        op = _widened_op(node.op)
        types = op.infer(*(wide.type_of(v) for v in inputs))
        wide.add_node(replace(node, op=op, types=types), inputs)
    wide.outputs, wide.updates = dict(graph.outputs), dict(graph.updates)
    wide.data = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in graph.data.items()
    }
    return wide


def _widened_op(op: Op) -> Op:
    return dataclasses.replace(op, **{k: _widened(v) for k, v in op.attributes().items()})


def _widened(attribute: Any) -> Any:
    if isinstance(attribute, tuple):
        return tuple(_widened(a) for a in attribute)
    if isinstance(attribute, TensorType):
        return attribute.with_dtype(_widened(attribute.dtype))
    if isinstance(attribute, Body):
        return Body.of(as_float64(attribute.graph))
    return DType.FLOAT64 if attribute is DType.FLOAT32 else attribute


# -- contents -------------------------------------------------------------------------------------


def _contents(
    graph: Graph, feeds: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """Contents of every leaf but constants, of the graph's types."""
    result = {}
    for node in graph.leaves(Leaf):
        if isinstance(node.op, Constant):
            continue
        given = feeds.get(node.name, graph.data.get(node.name))
        if given is None:
            given = _random(node, rng)
        (type,) = node.types
        wrong = np.shape(given) != type.shape
        kind = np.asarray(given).dtype
        if wrong or (kind != type.dtype.numpy and not (type.dtype.is_float and kind.kind == "f")):
            raise GradientError(f"{node.name} is {type}, got {kind}{list(np.shape(given))}")
        result[node.name] = np.asarray(given, type.dtype.numpy)
    return result


def _random(node: Node, rng: np.random.Generator) -> Array:
    (type,) = node.types
    if not type.dtype.is_float:
        return np.asarray(rng.integers(0, 2, type.shape)).astype(type.dtype.numpy)
    values = _spread(rng, type.shape)
    return values if isinstance(node.op, Input | Parameter) else np.abs(values)


def _spread(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers of either sign, away from 0, where many operations have a kink."""
    return np.asarray(rng.uniform(0.25, 1.25, shape) * rng.choice([-1.0, 1.0], shape))


def _asked_for(
    graph: Graph, of: str | Sequence[str] | None, wrt: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Names of the outputs and of the leaves whose gradients are checked."""
    names = [of] if isinstance(of, str) else list(of or _float_outputs(graph))
    sources = list(wrt) if wrt is not None else _float_sources(graph)
    missing = [n for n in names if n not in graph.outputs]
    missing += [n for n in sources if n not in graph or not graph.node(n).types[0].dtype.is_float]
    if missing or not names or not sources:
        what = f"no float called {', '.join(missing)}" if missing else "nothing to check"
        raise GradientError(f"{what} in {graph.name}; its outputs are {', '.join(graph.outputs)}")
    return names, sources


def _float_outputs(graph: Graph) -> list[str]:
    return [n for n, v in graph.outputs.items() if graph.type_of(v).dtype.is_float]


def _float_sources(graph: Graph) -> list[str]:
    live = graph.live()
    return [
        n.name
        for n in graph.nodes()
        if n.name in live
        and n.types[0].dtype.is_float
        and (isinstance(n.op, Input) or (isinstance(n.op, Parameter) and n.op.trainable))
    ]
