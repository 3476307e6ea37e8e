"""How tasks share the rows of a product.

Of few rows each task has its blocks. Many rows are often steps of a sequence: their tasks run the
same code, blocks of one height, as many of them as there are left. So neither the code nor the time
to compile it depends on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..loops import ir
from ..loops.ir import Expr
from .tile import Span, grouped


@dataclass(frozen=True)
class Block:
    """Rows of one tile.

    Arguments:
        kind, number: which span of blocks it is of, and which one of these.
        row, rows: the first row, in the task, and how many there are.
        before: number of blocks of the task that come before it.
    """

    kind: int
    number: Expr
    row: Expr
    rows: int
    before: Expr


@dataclass(frozen=True)
class RowTasks:
    """Tasks of equal code.

    Arguments:
        start: the first row of the first task.
        rows: of a task.
        blocks: of a task, each a tile high.
        count: number of tasks.
        total: blocks of all tasks, which are of one height, where the last task may have fewer than
            there is room for; None: each task has all of its blocks.
    """

    start: int
    rows: int
    blocks: tuple[Span, ...]
    count: int = 1
    total: int | None = None

    @staticmethod
    def balanced(blocks: Sequence[Span], rows: int) -> list[RowTasks]:
        """Tasks of about as many blocks each, of at most so many rows."""
        most = max(1, rows // blocks[0].length) if blocks else 1
        return [
            RowTasks(span.start, span.length, tuple(inside), span.count)
            for span, inside in grouped(blocks, most)
        ]

    @staticmethod
    def equal(blocks: Sequence[Span], rows: int) -> list[RowTasks]:
        """Tasks of at least so many rows, where there are so many left: their code does not depend
        on how many blocks there are.
        """
        tasks = []
        for span in blocks:
            each = -(-rows // span.length)
            block = Span(0, span.length, each)
            count = -(-span.count // each)
            tasks.append(RowTasks(span.start, each * span.length, (block,), count, span.count))
        return tasks

    def first(self, task: Expr) -> Expr:
        """The first row of a task."""
        return task * self.rows + self.start

    def each(
        self, task: Expr, var: Callable[[str], ir.Var], body: Callable[[Block], ir.Block]
    ) -> ir.Block:
        """Loops over the blocks of a task.

        Arguments:
            task: its number.
            var: gives a new variable.
            body: what is done with a block.
        """
        loops: ir.Block = ()
        before = 0
        for kind, span in enumerate(self.blocks):
            number = var("block")
            row = number * span.length + span.start
            inside = body(Block(kind, number, row, span.length, number + before))
            if self.total is not None:
                inside = (ir.If(number < self.total - task * span.count, inside),)
            loops += (ir.For(number, span.count, inside),)
            before += span.count
        return loops

    def each_part(
        self, task: Expr, var: Callable[[str], ir.Var], body: Callable[[Expr, int], ir.Block]
    ) -> ir.Block:
        """Loops over parts of a task, as long as can be.

        Arguments:
            task: its number.
            var: gives a new variable.
            body: what is done with some rows, given the first one, in the task, and how many.
        """
        if self.total is None:
            return body(ir.index(0), self.rows)
        return self.each(task, var, lambda block: body(block.row, block.rows))
