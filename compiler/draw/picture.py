"""What a picture shows: boxes and arrows, before any of it is Graphviz text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import chain, takewhile

from ..errors import UsageError
from ..graph import Graph, Node, Phase, Value
from ..layout_blocks import channel_blocks
from ..ops.base import family
from ..ops.leaf import Buffer, Constant, Input, Leaf, Parameter
from ..ops.recurrence import Recurrence
from ..printer import location
from .fold import Fold, origin_name
from .labels import count_text, number_text, op_text, shape_text

# They compute nothing: drawn small, so that what computes stands out.
_MINOR = frozenset({"Reshape", "Broadcast", "Transpose", "Cast"})
_SEPARATE_ENDS = 3  # outputs of one folded box that are drawn one by one
_NAMED_OPS = 4  # distinct operations that a folded box lists


class Kind(Enum):
    """What a box stands for."""

    OP = "op"
    MINOR = "minor"
    FOLD = "fold"
    INPUT = "input"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    OUTPUT = "output"
    UPDATE = "update"

    @property
    def is_leaf(self) -> bool:
        return self in (Kind.INPUT, Kind.PARAMETER, Kind.BUFFER, Kind.CONSTANT)


@dataclass(frozen=True)
class Box:
    """One shape of the picture.

    Arguments:
        key: unique.
        kind: what it stands for.
        title: its name.
        lines: smaller text below.
        family: of its operation, which gives the colour: the module that defines it.
        phase: the cluster it is in.
        tooltip: shown by browsers: all names, and the user's line.
    """

    key: str
    kind: Kind
    title: str
    lines: tuple[str, ...] = ()
    family: str = ""
    phase: Phase = Phase.FORWARD
    tooltip: str = ""


@dataclass(frozen=True)
class Arrow:
    """A value on its way from box to box."""

    tail: str
    head: str
    label: str = ""


@dataclass
class Picture:
    """Boxes by key, arrows, pairs (box, its gradient's box), kernels as boxes around boxes."""

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)


def make_picture(
    graph: Graph, folds: Mapping[str, Fold], groups: Mapping[str, Sequence[str]]
) -> Picture:
    """The picture of a graph.

    Arguments:
        graph: the graph.
        folds: node name -> the box it is folded into.
        groups: kernel -> names of its nodes.

    Raises:
        UsageError: a group names a node that does not exist.
    """
    return _Maker(graph, folds).make(groups)


class _Maker:
    """Collects what the boxes of one graph need to know of each other."""

    def __init__(self, graph: Graph, folds: Mapping[str, Fold]) -> None:
        self.graph = graph
        self.inlined = _inlined(graph)
        self.block = {name: fold.block for name, fold in folds.items()}
        self.key = {n.name: _key(n, folds.get(n.name)) for n in graph.nodes()}
        self.fold = {self.key[name]: fold for name, fold in folds.items()}
        self.members: dict[str, list[Node]] = {}
        for node in graph.nodes():
            if node.name not in self.inlined:
                self.members.setdefault(self.key[node.name], []).append(node)
        self.hidden = {n.name for n in graph.leaves(Leaf) if self._is_hidden(n)}
        self.picture = Picture()
        self.drawn: set[Arrow] = set()

    def make(self, groups: Mapping[str, Sequence[str]]) -> Picture:
        for key, members in self.members.items():
            if members[0].name not in self.hidden:
                self.picture.boxes[key] = self._box(key, members)
        self._add_arrows()
        self._add_ends()
        self._add_pairs()
        for name, nodes in groups.items():
            unknown = [n for n in nodes if n not in self.graph]
            if unknown:
                raise UsageError(f"kernel {name} has the node {unknown[0]}, which does not exist")
            self.picture.groups[name] = [
                n for n in nodes if n in self.picture.boxes and not _is_leaf(self.graph.node(n))
            ]
        return self.picture

    def _users(self, node: Node) -> list[Node]:
        return [self.graph.node(u) for u in self.graph.users_of(node.name)]

    def _is_hidden(self, leaf: Node) -> bool:
        """State and constants that one folded box alone has are part of it."""
        if isinstance(leaf.op, Input):
            return False
        users = self._users(leaf)
        readers = [u for u in users if u.phase is Phase.FORWARD] or users
        blocks = {self.block.get(u.name) for u in readers}
        return len(blocks) == 1 and all(
            self.key[u.name] in self.fold and len(self.members.get(self.key[u.name], ())) > 1
            for u in readers
        )

    # -- boxes ------------------------------------------------------------------------------------

    def _box(self, key: str, members: list[Node]) -> Box:
        node = members[0]
        if isinstance(node.op, Leaf):
            return self._leaf_box(node)
        if len(members) > 1:
            return self._fold_box(key, members)
        minor = node.op.name in _MINOR
        inputs = [self.graph.type_of(v) for v in self.graph.inputs_of(node.name)]
        text = op_text(node, inputs, self._inlined_texts(node))
        title = node.name
        if node.phase is not Phase.FORWARD:
            title = f"{_SIGNS[node.phase]}{origin_name(node)}"
        if minor:
            named = node.phase is Phase.FORWARD and node.op.short_name not in node.name
            title, text = (node.name if named else node.op.short_name), ""
        return Box(
            key,
            Kind.MINOR if minor else Kind.OP,
            title,
            (text,) if text else (),
            family(node.op),
            node.phase,
            _tooltip(node),
        )

    def _leaf_box(self, node: Node) -> Box:
        kinds = {Parameter: Kind.PARAMETER, Buffer: Kind.BUFFER, Constant: Kind.CONSTANT}
        kind = next((k for cls, k in kinds.items() if isinstance(node.op, cls)), Kind.INPUT)
        users = self._users(node)
        phases = {u.phase for u in users} or {Phase.FORWARD}
        title = node.name
        # Inside of its own layer a weight needs no more than its last name.
        prefix, _, last = title.rpartition(".")
        if prefix and kind is not Kind.INPUT and _all_inside(users, prefix):
            title = last
        frozen = isinstance(node.op, Parameter) and not node.op.trainable
        lines = (shape_text(node.types[0]) or "scalar", *(("frozen",) if frozen else ()))
        phase = next(p for p in Phase if p in phases)
        return Box(node.name, kind, title, lines, "leaf", phase, _tooltip(node))

    def _fold_box(self, key: str, members: list[Node]) -> Box:
        fold, first = self.fold[key], members[0]
        many = f" ×{fold.count}" if fold.count > 1 else ""
        ops = Counter(n.op.name for n in members if n.op.name not in _MINOR)
        listed = [f"{c} {name}" if c > 1 else name for name, c in ops.items()]
        more = [f"{len(listed) - _NAMED_OPS} more"] if len(listed) > _NAMED_OPS else []
        lines = [" · ".join([*listed[:_NAMED_OPS], *more])]
        names = {n.name for n in members}
        elements = sum(
            p.types[0].size
            for p in self.graph.leaves(Parameter)
            if p.name in self.hidden and names & set(self.graph.users_of(p.name))
        )
        if elements and first.phase is Phase.FORWARD:
            lines.append(f"{count_text(elements)} parameters")
        main = max(members, key=lambda n: _WEIGHT.get(family(n.op), 0))
        tooltip = "\n".join(n.name for n in members)
        title = f"{_SIGNS[first.phase]}{fold.name}{many}"
        return Box(key, Kind.FOLD, title, tuple(lines), family(main.op), first.phase, tooltip)

    def _inlined_texts(self, node: Node) -> list[str]:
        reads = (v.node for v in self.graph.inputs_of(node.name))
        return [self.inlined[name] for name in reads if name in self.inlined]

    # -- arrows -----------------------------------------------------------------------------------

    def _add_arrows(self) -> None:
        boxes = self.picture.boxes
        for node in self.graph.nodes():
            head = self.key[node.name]
            for value in self.graph.inputs_of(node.name):
                tail = self.key[value.node]
                if tail in boxes and head in boxes and tail != head:
                    state = boxes[tail].kind.is_leaf
                    label = "" if state else self._shape_text(value)
                    self._add_arrow(Arrow(tail, head, label))
            if isinstance(node.op, Recurrence) and head in boxes and boxes[head].kind is Kind.OP:
                kept = node.types[: node.op.states]
                self._add_arrow(Arrow(head, head, ", ".join(map(shape_text, kept))))

    def _shape_text(self, value: Value) -> str:
        return shape_text(self.graph.type_of(value), self._blocks.get(value, 1))

    @cached_property
    def _blocks(self) -> Mapping[Value, int]:
        return channel_blocks(self.graph)

    def _add_arrow(self, arrow: Arrow) -> None:
        """Folded boxes have many values in common; arrows that look the same are drawn once."""
        if arrow not in self.drawn:
            self.drawn.add(arrow)
            self.picture.arrows.append(arrow)

    def _add_ends(self) -> None:
        """Outputs and updates; those of one folded box together when they are many."""
        for kind, ends in ((Kind.OUTPUT, self.graph.outputs), (Kind.UPDATE, self.graph.updates)):
            by_box: dict[str, list[tuple[str, Value]]] = {}
            for name, value in ends.items():
                tail = self.key[value.node]
                if tail not in self.picture.boxes:
                    tail = self._show(value.node)
                by_box.setdefault(tail, []).append((name, value))
            for tail, members in by_box.items():
                if len(members) > _SEPARATE_ENDS and self.picture.boxes[tail].kind is Kind.FOLD:
                    prefix = _common_prefix([name for name, _ in members])
                    title = f"{prefix}.*" if prefix else f"{members[0][0]} …"
                    names = "\n".join(name for name, _ in members)
                    self._add_end(kind, tail, title, f"{len(members)} {kind.value}s", "", names)
                    continue
                for name, value in members:
                    title = name if kind is Kind.OUTPUT else f"new {name}"
                    label = self._shape_text(value) if kind is Kind.OUTPUT else ""
                    self._add_end(kind, tail, title, "", label, name)

    def _add_end(
        self, kind: Kind, tail: str, title: str, line: str, label: str, tooltip: str
    ) -> None:
        key = f"{kind.value}:{tail}:{title}"
        phase = self.picture.boxes[tail].phase
        if kind is Kind.UPDATE and phase is Phase.BACKWARD:
            phase = Phase.UPDATE
        lines = (line,) if line else ()
        self.picture.boxes[key] = Box(key, kind, title, lines, "", phase, tooltip)
        self._add_arrow(Arrow(tail, key, label))

    def _show(self, name: str) -> str:
        """A box for something that is left out elsewhere, because an output needs it."""
        node = self.graph.node(name)
        key = self.key[name]
        self.picture.boxes[key] = self._box(key, [node])
        return key

    def _add_pairs(self) -> None:
        """Each forward box with the box that its gradient's way back starts in."""
        forward: dict[str, str] = {}
        for key, box in self.picture.boxes.items():
            for node in self.members.get(key, ()):
                if box.phase is Phase.FORWARD and not box.kind.is_leaf:
                    forward.setdefault(origin_name(node), key)
        taken: set[str] = set()
        backward = [b for b in self.picture.boxes.values() if b.phase is Phase.BACKWARD]
        for box in sorted(backward, key=lambda b: b.kind is Kind.MINOR):  # stable
            for node in self.members.get(box.key, ()):
                partner = forward.get(origin_name(node))
                if partner is not None and partner not in taken:
                    taken.add(partner)
                    self.picture.pairs.append((partner, box.key))
                    break


_SIGNS = {Phase.FORWARD: "", Phase.BACKWARD: "∂ ", Phase.UPDATE: "update "}
# Of several families in one folded box, the one that says most gives the colour.
_WEIGHT = {"conv": 6, "linear": 5, "loss": 4, "norm": 3, "pool": 2, "reduce": 1}


def _key(node: Node, fold: Fold | None) -> str:
    return node.name if fold is None else f"{node.phase.value}:{fold.name}"


def _is_leaf(node: Node) -> bool:
    return isinstance(node.op, Leaf)


def _tooltip(node: Node) -> str:
    return " ".join(part for part in (node.name, str(node.op), location(node)) if part)


def _common_prefix(names: Sequence[str]) -> str:
    """The dotted parts that all names begin with."""
    levels = zip(*(name.split(".") for name in names), strict=False)
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, levels))


def _all_inside(users: Iterable[Node], prefix: str) -> bool:
    owners = {origin_name(u) for u in users}
    return bool(owners) and all(o == prefix or o.startswith(f"{prefix}.") for o in owners)


def _inlined(graph: Graph) -> dict[str, str]:
    """Constants of one element, and what repeats or reshapes only them, as text."""
    texts: dict[str, str] = {}
    shown = {v.node for v in chain(graph.outputs.values(), graph.updates.values())}
    for node in graph.nodes():
        reads = {v.node for v in graph.inputs_of(node.name)}
        if isinstance(node.op, Constant) and node.types[0].size == 1 and node.name in graph.data:
            texts[node.name] = number_text(graph.data[node.name].item())
        elif node.op.name in _MINOR and reads and reads <= texts.keys():
            texts[node.name] = texts[next(iter(reads))]
    return {name: text for name, text in texts.items() if name not in shown}
