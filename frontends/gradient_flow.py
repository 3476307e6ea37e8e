"""How far back in time gradients reach: their norms by the states of recurrences, step by step.

In a recurrence s[t+1] = f(s[t], x[t]) the gradient by an early state is a product of as many
Jacobians as there are steps behind it. Where these shrink what they are multiplied by it vanishes,
and nothing is learnt of what was long ago; where they stretch it, it explodes (Bengio, Simard and
Frasconi, Learning long-term dependencies with gradient descent is difficult, 1994; Pascanu, Mikolov
and Bengio, On the difficulty of training recurrent neural networks, 2013).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.autodiff import differentiate
from ..compiler.errors import InputError, UsageError
from ..compiler.evaluate import evaluate
from ..compiler.files import replacing
from ..compiler.graph import Graph, Node
from ..compiler.ops.leaf import Input, Parameter
from ..compiler.probe import with_probes
from ..compiler.types import Array, DType, TensorType
from ..runtime.profile_plot import check
from .source import source_of

_DISTANCES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class GradientFlow:
    """Norms of gradients through time.

    Attributes:
        norms: for each state, `lstm.l0.h`, an array (steps,): the Euclidean norm of d loss / d
            state, over all rows and elements, of the state that step t reads.
        parameters: the norm of d loss / d w by name of parameter.
    """

    norms: Mapping[str, Array]
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The norm of the gradient by all parameters together: what clipping looks at."""
        return float(np.sqrt(sum(n * n for n in self.parameters.values())))

    def clipped(self, max_norm: float) -> GradientFlow:
        """The same with all gradients scaled so that `total` is no more than a number, as
        `clip_grad_norm` of the optimizers does. All steps shrink by one factor: an explosion is
        tamed, what has vanished does not come back.
        """
        scale = min(1.0, max_norm / self.total) if self.total else 1.0
        return GradientFlow(
            {name: scale * norms for name, norms in self.norms.items()},
            {name: scale * norm for name, norm in self.parameters.items()},
        )

    @staticmethod
    def beside(flows: Mapping[str, GradientFlow]) -> GradientFlow:
        """Several in one, to be compared; their names come before those of the states."""
        return GradientFlow(
            {
                f"{k} {name}": norms
                for k, flow in flows.items()
                for name, norms in flow.norms.items()
            }
        )

    def table(self, distances: Sequence[int] = _DISTANCES) -> str:
        """The norms at some distances from the end.

        Arguments:
            distances: steps back; 1 is the state that the last step reads.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("steps back", justify="right")
        for name in self.norms:
            table.add_column(name, justify="right")
        longest = max(map(len, self.norms.values()), default=0)
        for back in [d for d in distances if d <= longest]:
            cells = (f"{n[-back]:.2e}" if back <= len(n) else "" for n in self.norms.values())
            table.add_row(f"{back}", *cells)
        text = io.StringIO()
        width = 14 + sum(max(len(name), 8) + 3 for name in self.norms)
        Console(file=text, width=width, color_system=None).print(table)
        lines = (line.rstrip() for line in text.getvalue().splitlines())
        return "\n".join(("norms of d loss / d state", *filter(None, lines)))

    def __str__(self) -> str:
        if not self.parameters:
            return self.table()
        return f"{self.table()}\nnorm of the gradient by all parameters: {self.total:.3g}"

    def plot(self, path: str | Path) -> Path:
        """Writes a picture of all norms, with a logarithmic scale: .png, .svg or .pdf.

        Raises:
            UsageError: Matplotlib is not installed, or does not know the suffix.
        """
        target = check(path)
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for name, norms in self.norms.items():
            axes.plot(-np.arange(len(norms), 0, -1), np.where(norms > 0, norms, np.nan), label=name)
        axes.set(yscale="log", xlabel="steps from the end", ylabel="‖d loss / d state‖")
        axes.grid(alpha=0.2)
        axes.legend(fontsize=8)
        with replacing(target) as file:
            figure.savefig(file, format=target.suffix[1:].lower(), dpi=120)
        return target


def gradient_flow(source: Any, *arrays: Any, of: str | Sequence[str] | None = None) -> GradientFlow:
    """Norms of the gradients by the states of all recurrences of a network, computed by NumPy.

        flow = qn.gradient_flow(lambda x: lstm(x)[0][-1], x)
        print(flow)
        flow.plot("flow.png")

    Arguments:
        source: a module, a function of tensors, a Graph, or whatever `quern.compile` takes.
        arrays: its inputs.
        of: names of outputs; the sum of all their elements is the loss. All float outputs by
            default.

    Raises:
        UsageError: there is no recurrence.
        GradientError: there is no such output.
        InputError: arrays that are not what the network takes.
    """
    given = [np.asarray(a) for a in arrays]
    types = [TensorType(a.shape, DType.of(a.dtype)) for a in given]
    graph = source_of(source).graph(*types)
    inputs = [n.name for n in graph.leaves(Input)]
    if len(inputs) != len(given):
        raise InputError(f"{graph.name} takes {len(inputs)} inputs, got {len(given)}")
    probed, probes = with_probes(graph)
    if not probes:
        raise UsageError(f"{graph.name} has no recurrence with a state to look at")
    reached = _ancestors(probed, [of] if isinstance(of, str) else of or probed.outputs)
    weights = [n.name for n in probed.leaves(Parameter) if _is_trainable(n) and n.name in reached]
    by = [*(name for name in probes.values() if name in reached), *weights]
    gradient = differentiate(probed, of, by)
    feeds = dict(zip(inputs, given, strict=True))
    for name in probes.values():
        type = probed.node(name).types[0]
        feeds[name] = np.zeros(type.shape, type.dtype.numpy)
    found = evaluate(gradient, feeds).outputs

    def norms(name: str) -> Array:
        signal = found.get(f"grad.{name}", feeds[name])
        squares = np.square(signal.reshape(len(signal), -1), dtype=np.float64)
        lengths: Array = np.sqrt(squares.sum(1))
        return lengths

    sizes = {name: float(np.linalg.norm(found[f"grad.{name}"])) for name in weights}
    return GradientFlow({state: norms(name) for state, name in probes.items()}, sizes)


def _is_trainable(node: Node) -> bool:
    return isinstance(node.op, Parameter) and node.op.trainable


def _ancestors(graph: Graph, outputs: Iterable[str]) -> set[str]:
    """Names of the nodes that some outputs depend on."""
    found = set[str]()
    stack = [graph.outputs[name].node for name in outputs if name in graph.outputs]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(v.node for v in graph.inputs_of(name))
    return found
