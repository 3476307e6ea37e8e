"""Colours and lines of the pictures: few, calm, and told apart in print and by the colour-blind."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Phase
from .picture import Kind

FONT = "Helvetica,Arial,sans-serif"
INK = "#1F2933"
GREY = "#6B7785"
EDGE = "#7B8794"
FAINT = "#C3CBD5"


@dataclass(frozen=True)
class Paint:
    """Fill and border of a box."""

    fill: str
    line: str


_PLAIN = Paint("#EEF0F3", "#9AA5B1")

_FAMILIES = {
    "conv": Paint("#DCE9F7", "#4F81BD"),
    "linear": Paint("#DDF0EA", "#3E9C83"),
    "pool": Paint("#E9E3F5", "#8A6FC0"),
    "adaptive": Paint("#E9E3F5", "#8A6FC0"),
    "norm": Paint("#FBEBD3", "#CF9440"),
    "pointwise": Paint("#FBE5E1", "#CE7667"),
    "activation": Paint("#FBE5E1", "#CE7667"),
    "loss": Paint("#F7DFEA", "#BE5E8F"),
    "reduce": Paint("#F7DFEA", "#BE5E8F"),
}

_KINDS = {
    Kind.PARAMETER: Paint("#FFF8DC", "#CDB75A"),
    Kind.BUFFER: Paint("#F1F1E2", "#A5A57F"),
    Kind.CONSTANT: Paint("#F7F7F7", "#B8B8B8"),
    Kind.INPUT: Paint("#FFFFFF", "#323F4B"),
    Kind.OUTPUT: Paint("#FFFFFF", "#323F4B"),
    Kind.UPDATE: Paint("#FFF8DC", "#CDB75A"),
}

CLUSTERS = {
    Phase.FORWARD: ("forward", "#F8FAFC"),
    Phase.BACKWARD: ("backward", "#FBF9F5"),
    Phase.UPDATE: ("update", "#F6FAF6"),
}
CLUSTER_LINE = "#DDE3EA"
KERNEL_LINE = "#52606D"


def paint(kind: Kind, family: str) -> Paint:
    """The colours of a box."""
    return _KINDS.get(kind) or _FAMILIES.get(family, _PLAIN)
