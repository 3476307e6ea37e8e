"""When each value of a group of point nodes and reductions is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from ..graph import Graph, Value
from ..group import Group
from ..roles import Role, is_expensive, role


@dataclass
class Stages:
    """When each value of a group is known.

    A value's level is the number of reductions that must be finished before it: what has level s
    is computed in stage s. Reductions over operands of level s are done in stage s; their results
    are of level s + 1.
    """

    graph: Graph
    group: Group
    level: dict[Value, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.group.nodes:
            inputs = self.graph.inputs_of(name)
            level = max((self.level.get(v, 0) for v in inputs), default=0)
            is_reduction = role(self.graph.node(name).op) is Role.REDUCE
            for value in self.graph.outputs_of(name):
                self.level[value] = level + is_reduction

    @cached_property
    def reductions(self) -> list[Value]:
        """Results of the reductions, in order."""
        nodes = (self.graph.node(n) for n in self.group.nodes)
        return [Value(n.name) for n in nodes if role(n.op) is Role.REDUCE]

    @cached_property
    def aligned(self) -> set[Value]:
        """Members that are asked for where the loops stand, not only through moves."""
        roots = [*self.group.outputs, *self.reductions]
        return self._below(roots, lambda value: True)

    def _below(self, roots: list[Value], wanted: Callable[[Value], bool]) -> set[Value]:
        """The wanted members that are read, at the same place, for what is asked for."""
        found: set[Value] = set()
        while roots:
            value = roots.pop()
            if value in self.level and value not in found and wanted(value):
                found.add(value)
                if role(self.graph.producer(value).op) is not Role.MOVE:
                    roots.extend(self.graph.inputs_of(value.node))
        return found

    @property
    def count(self) -> int:
        """Number of stages that walk the reduced axes."""
        last = [self.level[v] for v in self.group.outputs if self.is_full(v)]
        return 1 + max([self.level[v] - 1 for v in self.reductions] + last, default=-1)

    def is_full(self, value: Value) -> bool:
        """Whether a value has an element for every place on the reduced axes, not one a row."""
        if not self.group.axes:
            return True
        shape = self.graph.type_of(value).shape
        lead = len(self.group.space) - len(shape)
        return any(
            d >= lead and shape[d - lead] != 1 for d in self.group.axes
        ) and not self._is_row_result(value)

    def _is_row_result(self, value: Value) -> bool:
        return value in self.level and role(self.graph.producer(value).op) is Role.REDUCE

    def reduced_in(self, stage: int) -> list[Value]:
        """Reductions done in a stage."""
        return [v for v in self.reductions if self.level[v] == stage + 1]

    def stored_in(self, stage: int) -> list[Value]:
        """Full-size results stored in a stage."""
        return [v for v in self.group.outputs if self.is_full(v) and self.level[v] == stage]

    def row_outputs(self, level: int) -> list[Value]:
        """Results of one element a row that are known from this level on."""
        return [v for v in self.group.outputs if not self.is_full(v) and self.level[v] == level]

    def row_values(self, level: int) -> list[Value]:
        """Point nodes of one element a row that are known from this level on."""
        return [
            v
            for v, at in self.level.items()
            if at == level
            and v in self.aligned
            and not self.is_full(v)
            and role(self.graph.producer(v).op) is Role.POINT
        ]

    def row_level_up_to(self, stage: int) -> list[Value]:
        """Point nodes of one element a row that are known in a stage."""
        return [v for level in range(stage + 1) for v in self.row_values(level)]

    def operand(self, reduction: Value) -> Value:
        """What a reduction reduces."""
        return self.graph.inputs_of(reduction.node)[0]

    def kept_for_later(self, stage: int) -> list[Value]:
        """Expensive full-size values of this stage that a later stage needs too."""
        later: set[Value] = set()
        for s in range(stage + 1, self.count):
            later |= self._demanded(s)
        return [
            v
            for v in self._demanded(stage)
            if v in later
            and self.level[v] == stage
            and is_expensive(self.graph.producer(v).op)
            and v not in self.group.outputs
        ]

    def computes_much(self, stage: int) -> bool:
        """Whether a stage is the first to compute what takes many instructions."""
        return any(
            self.level[value] == stage and is_expensive(self.graph.producer(value).op)
            for value in self._demanded(stage)
        )

    def _demanded(self, stage: int) -> set[Value]:
        """The full-size members that a stage computes."""
        roots = [self.operand(v) for v in self.reduced_in(stage)] + self.stored_in(stage)
        return self._below(roots, self.is_full)
