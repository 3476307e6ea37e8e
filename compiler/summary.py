"""What a network consists of, layer by layer: parameters, work and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .autodiff import differentiate
from .errors import GradientError
from .flops import flops
from .graph import Graph, Node, Phase
from .ops.leaf import Leaf, Parameter
from .ops.movement import Reshape
from .types import TensorType


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, a node of the forward graph as declared.

    Arguments:
        name: of the node.
        type: name of the operation.
        outputs: types of its outputs.
        parameters: elements of the parameters that it is the first to read.
        trainable: those of them that are not frozen.
        shared: names of parameters that other layers read too (tied weights).
        flops: floating-point operations of one run.
        forward_bytes: of its outputs; 0 for a Reshape, which is a view.
        backward_bytes: of the values made in it that the backward pass reads again.
    """

    name: str
    type: str
    outputs: tuple[TensorType, ...]
    parameters: int
    trainable: int
    shared: tuple[str, ...]
    flops: int
    forward_bytes: int
    backward_bytes: int


def summarize(graph: Graph) -> list[LayerRow]:
    """A row for each operation of the forward graph, in order.

    Arguments:
        graph: as declared. What its backward pass keeps is taken from the derivative of all of its
            float outputs by its trainable parameters; nothing when there are none of either.
    """
    kept = _kept_bytes(graph)
    layers = [n for n in graph.nodes() if not isinstance(n.op, Leaf) and n.phase is Phase.FORWARD]
    readers: dict[str, list[str]] = {}
    for node in layers:
        for parameter in _parameters(graph, node):
            readers.setdefault(parameter.name, []).append(node.name)
    return [_row(graph, node, readers, kept.get(node.name, 0)) for node in layers]


def total(rows: Sequence[LayerRow]) -> LayerRow:
    """The sum of all layers; every parameter is counted once."""
    return LayerRow(
        "total",
        "",
        (),
        sum(r.parameters for r in rows),
        sum(r.trainable for r in rows),
        (),
        sum(r.flops for r in rows),
        sum(r.forward_bytes for r in rows),
        sum(r.backward_bytes for r in rows),
    )


HEADINGS = ("layer", "type", "output", "parameters", "trainable", "FLOPs", "forward", "kept")


def summary_cells(row: LayerRow) -> tuple[str, ...]:
    """A row as text, under HEADINGS; `=` after a count marks tied weights."""
    trainable = {0: "no", row.parameters: "yes"}.get(row.trainable, f"{row.trainable:,}")
    shown = [t for t in row.outputs if t.size or len(row.outputs) == 1]
    return (
        row.name,
        row.type,
        ", ".join(str(t).removeprefix("float32") for t in shown[:1]),
        f"{row.parameters:,}{' =' if row.shared else ''}" if row.parameters or row.shared else "",
        trainable if row.parameters else "",
        si_text(row.flops),
        f"{si_text(row.forward_bytes)}B",
        f"{si_text(row.backward_bytes)}B",
    )


def format_summary(rows: Sequence[LayerRow]) -> str:
    """The rows and their total as an aligned table of plain text."""
    table = [HEADINGS, *(summary_cells(r) for r in rows), summary_cells(total(rows))]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    rule = "-" * max(map(len, lines))
    notes = [
        f"= shares {name} with other layers"
        for name in dict.fromkeys(n for r in rows for n in r.shared)
    ]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *notes]) + "\n"


def si_text(number: int) -> str:
    """`61.7 k`: three digits and the unit's prefix, with a space; exact below 1000."""
    value, prefixes = float(number), iter(" kMGTPE")
    prefix = next(prefixes)
    while round(value, 1) >= 1000:
        value, prefix = value / 1000, next(prefixes)
    return f"{number} " if prefix == " " else f"{value:.{_digits(value)}f} {prefix}"


def _digits(value: float) -> int:
    return 0 if value >= 99.95 else 1 if value >= 9.995 else 2


def _parameters(graph: Graph, node: Node) -> list[Node]:
    reads = dict.fromkeys(v.node for v in graph.inputs_of(node.name))
    nodes = [graph.node(name) for name in reads]
    return [n for n in nodes if isinstance(n.op, Parameter)]


def _row(graph: Graph, node: Node, readers: dict[str, list[str]], kept: int) -> LayerRow:
    parameters = _parameters(graph, node)
    own = [p for p in parameters if readers[p.name][0] == node.name]
    return LayerRow(
        name=node.name,
        type=node.op.name,
        outputs=node.types,
        parameters=sum(p.types[0].size for p in own),
        trainable=sum(
            p.types[0].size for p in own if isinstance(p.op, Parameter) and p.op.trainable
        ),
        shared=tuple(p.name for p in parameters if len(readers[p.name]) > 1),
        flops=flops(node.op, [graph.type_of(v) for v in graph.inputs_of(node.name)], node.types),
        forward_bytes=0 if isinstance(node.op, Reshape) else sum(t.nbytes for t in node.types),
        backward_bytes=kept,
    )


def _kept_bytes(graph: Graph) -> dict[str, int]:
    """By layer, the bytes of its values that the backward pass reads; a view keeps its source."""
    try:
        back = differentiate(graph)
    except GradientError:
        return {}
    kept = set()
    for node in back.nodes():
        if node.phase is not Phase.BACKWARD:
            continue
        for value in back.inputs_of(node.name):
            while isinstance(back.producer(value).op, Reshape):
                (value,) = back.inputs_of(value.node)
            kept.add(value)
    result: dict[str, int] = {}
    for value in kept:
        producer = back.producer(value)
        if producer.phase is Phase.FORWARD and not isinstance(producer.op, Leaf):
            layer = producer.origins[0].name if producer.origins else producer.name
            result[layer] = result.get(layer, 0) + back.type_of(value).nbytes
    return result
