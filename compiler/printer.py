"""Graphs as text that fits a terminal: one node a line, grouped into leaves and phases.

    conv1 = Conv(x, conv1.weight; stride=(2, 2)) : float32[64, 6, 14, 14]   lenet.py:12

Attributes at their default, and those that the result's type tells already, are left out. The text
is the same for equal graphs, whatever machine they were built on (golden files rely on it). A value
whose 64 channels lie in blocks of 8 is a `float32[1, 64/8, 14, 14, 8]`.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .body import Body
from .graph import Graph, Node, Phase, Value
from .layout_blocks import channel_blocks
from .ops.base import format_attribute
from .ops.leaf import Constant, Leaf, Parameter
from .types import Array, Shape, TensorType

if TYPE_CHECKING:
    from .group import Group

_MARGIN = "  "
_INLINE_ELEMENTS = 6
_BOUND = "\N{NO-BREAK SPACE}"  # a line is not broken inside a shape or an attribute
_SEPARATORS = re.compile(r"[\\/]")  # a path may come from another system


def print_graph(graph: Graph, width: int = 100) -> str:
    """The whole graph as text.

    Arguments:
        graph: need not be valid.
        width: columns; longer lines go on, further indented, in the next one.
    """
    nodes, blocks = list(graph.nodes()), channel_blocks(graph)
    leaves = [n for n in nodes if isinstance(n.op, Leaf)]
    rest = [n for n in nodes if not isinstance(n.op, Leaf)]
    sections = [("leaves", [_leaf_line(graph, n) for n in leaves])]
    for phase in Phase:
        members = [n for n in rest if n.phase is phase]
        sections.append((phase.value, [_node_line(graph, n, blocks) for n in members]))
    sections.append(("outputs", [(f"{k} = {v}", "") for k, v in graph.outputs.items()]))
    sections.append(("updates", [(f"{k} <- {v}", "") for k, v in graph.updates.items()]))
    lines = [_title(graph, leaves, rest)]
    for heading, entries in sections:
        if entries:
            lines += ["", f"{heading}:", *_layout(entries, width)]
    for body, owners in _bodies(nodes).items():
        text = print_graph(body.graph, width - len(_MARGIN)).splitlines()
        inside = (f"{_MARGIN}{line}" if line else "" for line in text)
        lines += ["", f"body of {', '.join(owners)}:", *inside]
    return "\n".join(lines) + "\n"


def _bodies(nodes: Iterable[Node]) -> dict[Body, list[str]]:
    """The graphs inside of operations, and the names of the nodes that have them."""
    found: dict[Body, list[str]] = {}
    for node in nodes:
        for value in node.op.attributes().values():
            if isinstance(value, Body):
                found.setdefault(value, []).append(node.name)
    return found


def print_group(graph: Graph, group: Group, width: int = 100) -> str:
    """A kernel to be: its nodes, what it reads from memory and what it writes, without a newline
    at the end.

    Arguments:
        graph: that was partitioned.
        group: the kernel.
        width: columns.
    """
    space = f"over ({', '.join(map(str, group.space))})"
    axes = f", reduces axes {', '.join(map(str, group.axes))}" if group.axes else ""
    anchor = f", around {group.anchor}" if group.anchor else ""
    nodes, blocks = [graph.node(name) for name in group.nodes], channel_blocks(graph)
    lines = [f"kernel {group.name}: {group.phase.value} {space}{axes}{anchor}"]
    lines += _layout((_node_line(graph, n, blocks) for n in nodes), width)
    for verb, values in (("reads", group.inputs), ("writes", group.outputs)):
        if values:
            shown = ((v, type_text(graph.type_of(v), blocks.get(v, 1))) for v in values)
            listed = ", ".join(f"{v} : {text}" for v, text in shown)
            lines += textwrap.wrap(
                f"{verb} {listed.replace(' : ', _BOUND + ':' + _BOUND)}",
                width,
                initial_indent=_MARGIN,
                subsequent_indent=_MARGIN * 3,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(line.replace(_BOUND, " ") for line in lines)


def type_text(type: TensorType, block: int = 1) -> str:
    """`float32[1, 64/8, 14, 14, 8]` for 64 channels in blocks of 8."""
    return f"{type.dtype}[{', '.join(extents(type.shape, block))}]" if block > 1 else str(type)


def extents(shape: Shape, block: int = 1) -> list[str]:
    """The extents along all axes, of a value with so many channels in a block."""
    found = list(map(str, shape))
    if block > 1:
        found[1] = f"{shape[1] * block}/{block}"
    return found


def shown_attributes(node: Node) -> dict[str, Any]:
    """The attributes worth showing: neither at their default nor said by the node's types."""
    result = {}
    for field in dataclasses.fields(node.op):
        value = getattr(node.op, field.name)
        type = node.types[0]
        if value == field.default or any(value is told for told in (type, type.dtype)):
            continue
        if value == type or (field.name == "shape" and value == type.shape):
            continue
        result[field.name] = value
    return result


def location(node: Node) -> str:
    """`lenet.py:12`, or nothing where the user's line is not known."""
    source = node.source
    return f"{_SEPARATORS.split(source.file)[-1]}:{source.line}" if source else ""


def constant_text(array: Array) -> str | None:
    """The contents of a constant of a few elements; None for larger ones."""
    return _array_text(array) if array.size <= _INLINE_ELEMENTS else None


def _array_text(array: Array) -> str:
    # NumPy's scalars print as the shortest text that reads back to the same number.
    if array.ndim == 0:
        return str(array[()])
    return f"[{', '.join(_array_text(part) for part in array)}]"


def _title(graph: Graph, leaves: list[Node], rest: list[Node]) -> str:
    parameters = [n for n in leaves if isinstance(n.op, Parameter)]
    elements = sum(n.types[0].size for n in parameters)
    counts = [_count(len(leaves) + len(rest), "node")]
    if parameters:
        counts.append(f"{_count(len(parameters), 'parameter')} of {_count(elements, 'element')}")
    return f"graph {graph.name}: {', '.join(counts)}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _leaf_line(graph: Graph, node: Node) -> tuple[str, str]:
    notes = [f"{k}={format_attribute(v)}" for k, v in shown_attributes(node).items()]
    if isinstance(node.op, Constant) and node.name in graph.data:
        text = constant_text(graph.data[node.name])
        notes += [text] if text is not None else []
    inside = f"({', '.join(notes)})" if notes else ""
    return f"{node.name} = {node.op.name}{inside} :{_BOUND}{_bound(node.types[0])}", location(node)


def _node_line(graph: Graph, node: Node, blocks: Mapping[Value, int]) -> tuple[str, str]:
    inputs = ", ".join(str(v) for v in graph.inputs_of(node.name))
    shown = shown_attributes(node).items()
    attributes = ", ".join(_bound(f"{k}={format_attribute(v)}") for k, v in shown)
    inside = "; ".join(part for part in (inputs, attributes) if part)
    results = zip(graph.outputs_of(node.name), node.types, strict=True)
    types = ", ".join(_bound(type_text(t, blocks.get(v, 1))) for v, t in results)
    return f"{node.name} = {node.op.name}({inside}) :{_BOUND}{types}", location(node)


def _bound(what: object) -> str:
    return str(what).replace(" ", _BOUND)


def _layout(entries: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    """Lines of at most `width`, with the location at the right edge."""
    for text, place in entries:
        wrapped = textwrap.wrap(
            text,
            width,
            initial_indent=_MARGIN,
            subsequent_indent=_MARGIN * 3,
            break_long_words=False,
            break_on_hyphens=False,
        )
        *lines, last = (line.replace(_BOUND, " ") for line in wrapped)
        yield from lines
        room = width - len(last) - len(place)
        if place and room < 2:
            yield last
            yield place.rjust(width)
        else:
            yield (last + " " * room + place) if place else last
