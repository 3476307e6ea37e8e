"""Pictures as Graphviz text.

The forward graph runs down. The arrows of the backward graph are given to Graphviz the other way
round (`dir=back`), so that it runs up, beside the nodes it belongs to: both then have the same
order of ranks. What joins the two is kept out of the layout.
"""

from __future__ import annotations

from html import escape

import graphviz

from ..graph import Phase
from .picture import Arrow, Box, Kind, Picture
from .style import CLUSTER_LINE, CLUSTERS, EDGE, FAINT, FONT, GREY, INK, KERNEL_LINE, paint

_SMALL = {Kind.MINOR, Kind.PARAMETER, Kind.BUFFER, Kind.CONSTANT, Kind.UPDATE}
_MAIN = "12"  # weight of the arrows that Graphviz keeps short and straight


def to_dot(picture: Picture, title: str) -> str:
    """The Graphviz text of a picture; the same for equal pictures."""
    dot = graphviz.Digraph(
        graph_attr={
            "rankdir": "TB",
            "newrank": "true",
            "nodesep": "0.22",
            "ranksep": "0.32",
            "pad": "0.2",
            "fontname": FONT,
            "fontsize": "15",
            "fontcolor": INK,
            "label": _html(f"<b>{_text(title)}</b>"),
            "labelloc": "t",
            "tooltip": _plain(title),
        },
        node_attr={"fontname": FONT, "fontcolor": INK, "shape": "box", "penwidth": "1.2"},
        edge_attr={
            "fontname": FONT,
            "fontsize": "9",
            "fontcolor": GREY,
            "color": EDGE,
            "arrowsize": "0.6",
        },
    )
    ids = {key: f"n{i}" for i, key in enumerate(picture.boxes)}
    phases = [p for p in Phase if any(b.phase is p for b in picture.boxes.values())]
    for phase in phases:
        members = [b for b in picture.boxes.values() if b.phase is phase]
        _add_cluster(dot, phase, members, picture, ids, alone=len(phases) == 1)
    for arrow in picture.arrows:
        _add_arrow(dot, arrow, picture, ids)
    for box, gradient in picture.pairs:
        _add_pair(dot, picture.boxes[box], ids[box], ids[gradient])
    return str(dot.source)


# -- boxes ----------------------------------------------------------------------------------------


def _add_cluster(
    dot: graphviz.Digraph,
    phase: Phase,
    boxes: list[Box],
    picture: Picture,
    ids: dict[str, str],
    alone: bool,
) -> None:
    name, colour = CLUSTERS[phase]
    with dot.subgraph(name=f"cluster_{name}") as cluster:
        if not alone:
            cluster.attr(
                label=_html(f"<b>{name}</b>"),
                labeljust="l",
                fontsize="12",
                fontcolor=GREY,
                style="filled,rounded",
                fillcolor=colour,
                color=CLUSTER_LINE,
                margin="14",
                tooltip=name,
            )
        else:
            cluster.attr(style="invis", label="")
        grouped = {key: name for name, keys in picture.groups.items() for key in keys}
        for box in boxes:
            if box.key not in grouped:
                _add_box(cluster, box, ids)
        for index, kernel in enumerate(picture.groups):
            inside = [b for b in boxes if grouped.get(b.key) == kernel]
            if inside:
                _add_kernel(cluster, f"cluster_{name}_{index}", kernel, inside, ids)


def _add_kernel(
    dot: graphviz.Digraph, name: str, kernel: str, boxes: list[Box], ids: dict[str, str]
) -> None:
    with dot.subgraph(name=name) as cluster:
        cluster.attr(
            label=_html(_text(kernel)),
            labeljust="l",
            fontsize="10",
            fontcolor=KERNEL_LINE,
            style="filled,rounded",
            fillcolor="#FFFFFF",
            color=KERNEL_LINE,
            margin="9",
            tooltip=_plain(kernel),
        )
        for box in boxes:
            _add_box(cluster, box, ids)


def _add_box(dot: graphviz.Digraph, box: Box, ids: dict[str, str]) -> None:
    colours = paint(box.kind, box.family)
    # The backward graph's outputs are many, and say the name of a weight once more.
    small = box.kind in _SMALL or (box.kind is Kind.OUTPUT and box.phase is not Phase.FORWARD)
    attributes = {
        "label": _label(box, small),
        "style": "filled,rounded",
        "fillcolor": colours.fill,
        "color": colours.line,
        "margin": "0.08,0.03" if small else "0.14,0.07",
        "height": "0.2" if small else "0.4",
        "width": "0.3" if small else "0.9",
        "tooltip": _plain(box.tooltip or box.title),
    }
    if box.kind is Kind.MINOR:
        attributes |= {"fillcolor": "#FFFFFF", "color": FAINT, "fontcolor": GREY, "penwidth": "0.8"}
    if box.kind is Kind.FOLD:
        attributes |= {"peripheries": "2"}
    if box.kind is Kind.BUFFER:
        attributes |= {"style": "filled,rounded,dashed"}
    dot.node(ids[box.key], **attributes)


def _label(box: Box, small: bool) -> str:
    if small:
        inline = "".join(f'<font color="{GREY}"> {_text(line)}</font>' for line in box.lines)
        return _html(f'<font point-size="9">{_text(box.title)}{inline}</font>')
    title = f'<font point-size="12"><b>{_text(box.title)}</b></font>'
    details = (f'<font point-size="9.5" color="{GREY}">{_text(line)}</font>' for line in box.lines)
    rows = "".join(f"<tr><td>{row}</td></tr>" for row in (title, *details))
    return _html(f'<table border="0" cellspacing="0" cellpadding="1">{rows}</table>')


# -- arrows ---------------------------------------------------------------------------------------


def _add_arrow(dot: graphviz.Digraph, arrow: Arrow, picture: Picture, ids: dict[str, str]) -> None:
    tail, head = picture.boxes[arrow.tail], picture.boxes[arrow.head]
    attributes = {"label": f" {arrow.label} "} if arrow.label else {}
    attributes["edgetooltip"] = _plain(f"{tail.title} → {head.title} {arrow.label}".strip())
    if tail.phase is not head.phase:
        faint = {"color": FAINT, "constraint": "false", "penwidth": "0.8", "label": ""}
        dot.edge(ids[tail.key], ids[head.key], **attributes | faint)
    elif tail.phase is Phase.BACKWARD:
        weight = "1" if head.kind is Kind.OUTPUT else _MAIN
        dot.edge(ids[head.key], ids[tail.key], dir="back", weight=weight, **attributes)
    elif tail.kind in (Kind.PARAMETER, Kind.BUFFER, Kind.CONSTANT):
        colour = paint(tail.kind, tail.family).line
        dot.edge(ids[tail.key], ids[head.key], color=colour, arrowsize="0.4", **attributes)
    else:
        dot.edge(ids[tail.key], ids[head.key], weight=_MAIN, **attributes)


def _add_pair(dot: graphviz.Digraph, box: Box, forward: str, backward: str) -> None:
    """The dotted line between a node and its gradient, which stand side by side."""
    with dot.subgraph() as row:
        row.attr(rank="same")
        row.node(forward)
        row.node(backward)
    dot.edge(
        forward,
        backward,
        style="dotted",
        dir="none",
        constraint="false",
        color=paint(box.kind, box.family).line,
        penwidth="1.4",
        edgetooltip=_plain(f"gradient of {box.title}"),
    )


# -- text -----------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    """Control characters, which XML cannot hold, as a mark."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _text(text: str) -> str:
    return escape(_printable(text))


def _html(inside: str) -> str:
    return f"<{inside}>"


def _plain(text: str) -> str:
    """Text in which Graphviz finds no escapes and no markup."""
    return str(graphviz.escape(_printable(text)))
