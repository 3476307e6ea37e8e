"""Finished groups: what they are called, what they read, and their order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..graph import Graph, Phase, Value
from ..group import Group
from ..ops.blocked import Block, PackWeight, Unblock
from ..ops.strassen import StrassenWeight
from ..ops.winograd import WinogradWeight
from ..roles import SILENT, role
from .draft import Draft

_MAX_NAME = 72
# Operations that rewrite a layout; their kernels are named after them.
_LAYOUT = (Block, Unblock, PackWeight, WinogradWeight, StrassenWeight)


def finished(
    graph: Graph, drafts: Sequence[Draft], stored: Mapping[int, Sequence[Value]]
) -> tuple[Group, ...]:
    """The groups, each after its sources.

    Arguments:
        graph: of primitives.
        drafts: groups in the making.
        stored: what each of them gives, by its number; drafts that give nothing are left out.
    """
    names: dict[str, int] = {}
    order = {node.name: i for i, node in enumerate(graph.nodes())}
    groups = []
    for draft in _sorted(drafts):
        nodes = tuple(sorted(draft.members, key=order.__getitem__))
        outputs = tuple(stored.get(draft.number, ()))
        if not outputs:
            continue  # dead nodes
        name = _name(graph, nodes, draft.phase)
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}_{names[name]}"
        groups.append(
            Group(
                unique,
                nodes,
                draft.anchor,
                draft.pool,
                draft.space,
                draft.axes or (),
                _inputs(graph, draft),
                outputs,
                draft.phase,
            )
        )
    return tuple(groups)


def _inputs(graph: Graph, draft: Draft) -> tuple[Value, ...]:
    """What a group reads."""
    found: dict[Value, None] = {}
    for name in draft.members:
        for value in graph.inputs_of(name):
            if value.node not in draft.members:
                found[value] = None
    return tuple(found)


def _sorted(drafts: Sequence[Draft]) -> list[Draft]:
    """Groups in an order in which each comes after its sources, else as they were begun."""
    begun: set[int] = set()
    done: set[int] = set()
    result: list[Draft] = []
    for start in drafts:
        stack = [start.number]
        while stack:
            number = stack[-1]
            waiting = sorted(drafts[number].sources - done - {number}, reverse=True)
            if number in done or not waiting:
                stack.pop()
                if number not in done:
                    begun.discard(number)
                    done.add(number)
                    result.append(drafts[number])
            else:
                begun.add(number)
                assert begun.isdisjoint(waiting), f"groups {begun} wait for each other"
                stack.extend(waiting)
    return result


def _name(graph: Graph, nodes: tuple[str, ...], phase: Phase) -> str:
    """What a group is called: after the user's nodes that it computes."""
    origins = dict.fromkeys(o.name for n in nodes for o in graph.node(n).origins)
    text = "_".join(origins)
    if len(text) > _MAX_NAME:
        first, last = next(iter(origins)), next(reversed(origins))
        text = f"{first}_to_{last}"[:_MAX_NAME]
    ops = [graph.node(n).op for n in nodes]
    layout = [op for op in ops if isinstance(op, _LAYOUT)]
    if layout and all(role(op) in SILENT or op in layout for op in ops):
        text += f".{layout[-1].short_name}"
    prefix = {Phase.FORWARD: "", Phase.BACKWARD: "grad_", Phase.UPDATE: "update_"}[phase]
    return prefix + re.sub(r"[^A-Za-z0-9_.]", "_", text)
