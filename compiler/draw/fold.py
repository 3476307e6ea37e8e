"""Folding: which nodes of a long graph become one box.

Modules name their nodes with dots (`layer1.0.conv1`), and every node, backward and update ones too,
remembers the user's node it came from. So the first parts of that name say which box a node is in,
and the forward and the backward graph fold alike. Boxes of equal structure that follow each other,
as the blocks of a stage do, become one box with a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import UsageError
from ..graph import Graph, Node, Phase
from ..ops.leaf import Leaf

_LONG = 30  # operations from which on a picture is folded unasked
_READABLE = 30  # boxes a folded picture should stay below


@dataclass(frozen=True)
class Fold:
    """A box that stands for several nodes.

    Arguments:
        name: what it is called.
        count: how many blocks of equal structure follow each other in it.
        block: which of these blocks the node is in; boxes are equal without regard to it.
    """

    name: str
    count: int = 1
    block: str = field(default="", compare=False)


def origin_name(node: Node) -> str:
    """The user's name for what a node belongs to."""
    return node.origins[0].name if node.origins else node.name


def fold_nodes(graph: Graph, fold: bool | int | None) -> dict[str, Fold]:
    """The box of each node that is folded, by node name; leaves stay apart.

    Arguments:
        graph: the graph.
        fold: see `draw`.

    Raises:
        UsageError: a depth below 1.
    """
    nodes = [n for n in graph.nodes() if not isinstance(n.op, Leaf)]
    if fold is None:
        fold = len(nodes) > _LONG
    if fold is False:
        return {}
    if fold is not True and fold < 1:
        raise UsageError(f"fold is {fold}; give the parts of names that stay apart, 1 or more")
    if fold is not True:
        return _with_repeats(graph, _by_prefix(nodes, fold))
    deepest = max((origin_name(n).count(".") + 1 for n in nodes), default=1)
    for depth in range(deepest, 0, -1):
        folds = _with_repeats(graph, _by_prefix(nodes, depth))
        if len(set(folds.values())) <= _READABLE:
            break
    return folds


def _by_prefix(nodes: list[Node], depth: int) -> dict[str, str]:
    return {n.name: ".".join(origin_name(n).split(".")[:depth]) for n in nodes}


def _with_repeats(graph: Graph, boxes: Mapping[str, str]) -> dict[str, Fold]:
    """Boxes as folds, those that repeat in a row as one."""
    folds = {name: Fold(name) for name in boxes.values()}
    signatures = _signatures(graph, boxes)
    for chain in _chains(graph, boxes):
        for start, period, count in _repeats([signatures[box] for box in chain]):
            members = chain[start : start + period * count]
            repeated = Fold(f"{members[0]} … {members[-1]}", count)
            folds |= dict.fromkeys(members, repeated)
    return {node: replace(folds[box], block=box) for node, box in boxes.items()}


def _forward(graph: Graph, boxes: Mapping[str, str]) -> list[Node]:
    return [n for n in graph.nodes() if n.name in boxes and n.phase is Phase.FORWARD]


def _chains(graph: Graph, boxes: Mapping[str, str]) -> list[list[str]]:
    """Runs of forward boxes each of which reads the one before and nothing else."""
    after: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for node in _forward(graph, boxes):
        head = boxes[node.name]
        before.setdefault(head, set())
        for value in graph.inputs_of(node.name):
            tail = boxes.get(value.node)
            if tail is not None and tail != head:
                before[head].add(tail)
                after.setdefault(tail, set()).add(head)
    chains: list[list[str]] = []
    for box, reads in before.items():
        follows = chains and reads == {chains[-1][-1]} and after[chains[-1][-1]] == {box}
        if follows:
            chains[-1].append(box)
        else:
            chains.append([box])
    return chains


def _signatures(graph: Graph, boxes: Mapping[str, str]) -> dict[str, int]:
    """A number for each forward box, the same for boxes of equal structure.

    Structure is operations, types and the edges between them.
    """
    members: dict[str, list[Node]] = {}
    for node in _forward(graph, boxes):
        members.setdefault(boxes[node.name], []).append(node)
    numbers: dict[tuple[object, ...], int] = {}
    return {
        box: numbers.setdefault(_structure(graph, nodes), len(numbers))
        for box, nodes in members.items()
    }


def _structure(graph: Graph, nodes: list[Node]) -> tuple[object, ...]:
    position = {n.name: i for i, n in enumerate(nodes)}
    return tuple(
        (
            node.op,
            node.types,
            tuple(
                (position.get(v.node), v.port, graph.type_of(v)) for v in graph.inputs_of(node.name)
            ),
        )
        for node in nodes
    )


def _repeats(signatures: list[int]) -> list[tuple[int, int, int]]:
    """(start, period, count) of repetitions, the ones that cover most first, without overlaps."""
    found: list[tuple[int, int, int]] = []
    start = 0
    while start < len(signatures):
        period, count = _longest_at(signatures, start)
        if count > 1:
            found.append((start, period, count))
        start += period * count
    return found


def _longest_at(signatures: list[int], start: int) -> tuple[int, int]:
    """Period and count of the longest repetition that begins here; (1, 1) when there is none."""
    best = (1, 1)
    for period in range(1, (len(signatures) - start) // 2 + 1):
        block = signatures[start : start + period]
        count = 1
        while signatures[start + count * period : start + (count + 1) * period] == block:
            count += 1
        if count > 1 and period * count > best[0] * best[1]:
            best = (period, count)
    return best
