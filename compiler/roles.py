"""How operations take part in kernels.

*Views* (reshape) are other names for memory. *Moves* (transpose, slice, pad …) and *point* nodes
are computed element by element wherever they are asked for. *Reductions* join point nodes over one
iteration space. *Anchors* (products, convolutions, pools, scatters) have a loop nest of their own;
point nodes of their output's shape become their epilogue.
"""

from __future__ import annotations

from enum import Enum

from .ops import movement as mv
from .ops import pointwise as pw
from .ops.base import Op
from .ops.blocked import Block, PackWeight, Unblock
from .ops.indexing import Take, TakeAlongAxis
from .ops.leaf import Leaf
from .ops.random import Philox
from .ops.reduce import Reduction


class Role(Enum):
    """How a node takes part in kernels."""

    LEAF = "leaf"
    VIEW = "view"
    MOVE = "move"
    POINT = "point"
    REDUCE = "reduce"
    ANCHOR = "anchor"


_ROLES: tuple[tuple[type[Op], Role], ...] = (
    (Leaf, Role.LEAF),
    (mv.Reshape, Role.VIEW),
    (pw.Pointwise, Role.POINT),
    (pw.Cast, Role.POINT),
    (pw.Iota, Role.POINT),
    (Philox, Role.POINT),
    (mv.Broadcast, Role.POINT),
    (Reduction, Role.REDUCE),
    (mv.Transpose, Role.MOVE),
    (mv.Slice, Role.MOVE),
    (mv.Unslice, Role.MOVE),
    (mv.Pad, Role.MOVE),
    (Block, Role.MOVE),
    (Unblock, Role.MOVE),
    (PackWeight, Role.MOVE),
    (Take, Role.MOVE),
    (TakeAlongAxis, Role.MOVE),
)
_KNOWN: dict[type[Op], Role] = {}
SILENT = (Role.LEAF, Role.VIEW, Role.MOVE)
_EXPENSIVE = (
    pw.Exp,
    pw.Expm1,
    pw.Log,
    pw.Log1p,
    pw.Sin,
    pw.Cos,
    pw.Tanh,
    pw.Sigmoid,
    pw.Erf,
    pw.Power,
    Philox,
)


def role(op: Op) -> Role:
    """The role of an operation; what is nothing else is an anchor."""
    kind = type(op)
    if kind not in _KNOWN:
        _KNOWN[kind] = next((r for known, r in _ROLES if issubclass(kind, known)), Role.ANCHOR)
    return _KNOWN[kind]


def is_expensive(op: Op) -> bool:
    """Whether computing an element again costs more than reading it from memory."""
    return isinstance(op, _EXPENSIVE)
