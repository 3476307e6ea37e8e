"""Pictures of graphs, by Graphviz.

    draw(graph, "lenet.svg")                    # also .png, .pdf, .gv
    draw(graph, "resnet.svg", fold=2)           # one box for each layer1.0, layer1.1, …
    draw(graph, unroll=True)                    # recurrences as copies of their bodies, in time
    draw(graph)                                 # a Drawing, which Jupyter shows

Time runs downwards in the forward graph on the left, upwards in the backward graph on its right, so
that a node and its gradient stand beside each other, in one colour and joined by a dotted line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..errors import UsageError
from ..graph import Graph
from ..passes.unroll import Unroll
from .dot import to_dot
from .drawing import Drawing, RenderWarning
from .fold import fold_nodes
from .picture import make_picture

__all__ = ["Drawing", "RenderWarning", "draw"]

STAGES = ("declared", "optimized", "kernels")


def draw(
    graph: Graph,
    path: str | os.PathLike[str] | None = None,
    stage: str = "declared",
    fold: bool | int | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    unroll: bool = False,
) -> Drawing:
    """A picture of a graph.

    Arguments:
        graph: as it is at that stage.
        path: also saves the picture there, in the format of its suffix.
        stage: what the title says the graph is: declared, optimized or kernels.
        fold: number of parts of dotted names that stay apart: 1 makes one box of everything in
            `layer1`, 2 of `layer1.0`. Boxes of equal structure in a row become one. True chooses
            the depth, False folds nothing; by default long graphs are folded.
        groups: kernel -> the names of its nodes, drawn as a box around them; excludes folding.
        unroll: shows recurrences step by step instead of as one box with an edge back to it.

    Raises:
        UsageError: unknown stage, suffix or node, or a negative fold.
    """
    if stage not in STAGES:
        raise UsageError(f"there is no stage {stage!r} to draw; use one of {', '.join(STAGES)}")
    if groups is not None and fold:
        raise UsageError("a picture with kernels as boxes is not folded; leave out fold or groups")
    graph = Unroll().apply(graph) if unroll else graph
    folds = {} if groups is not None else fold_nodes(graph, fold)
    picture = make_picture(graph, folds, groups or {})
    title = graph.name if stage == "declared" else f"{graph.name} · {stage}"
    drawing = Drawing(to_dot(picture, title), title)
    if path is not None:
        drawing.save(path)
    return drawing
