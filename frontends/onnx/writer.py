"""ONNX nodes from the nodes of a graph: the table of `writers/`, and what its functions get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ...compiler.errors import OnnxError, QuernError
from ...compiler.graph import Graph, Node, Value
from ...compiler.ops.base import Op, short_name
from ...compiler.ops.composite import expansion
from ...compiler.ops.leaf import Constant, Input, State
from ...compiler.types import Array, DType, TensorType


@dataclass(frozen=True)
class Ref:
    """A value of the ONNX graph.

    Arguments:
        name: a number of its own; what it is called is decided at the end.
        type: its type.
    """

    name: str
    type: TensorType

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def rank(self) -> int:
        return self.type.rank


@dataclass
class Written:
    """An ONNX node.

    Attributes:
        operator: of ONNX.
        inputs: names; "" for what is left out.
        outputs: names; "" for what nothing reads.
        attributes: numbers, texts, sequences of numbers, or blocks.
        name: what the node is called.
    """

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: Mapping[str, Any]
    name: str = ""

    @property
    def blocks(self) -> list[Block]:
        return [v for v in self.attributes.values() if isinstance(v, Block)]


@dataclass
class Block:
    """ONNX nodes with what goes in and comes out: the graph, or the body of a Scan.

    Attributes:
        inputs, outputs: in order.
        nodes: in order.
    """

    inputs: list[Ref] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    nodes: list[Written] = field(default_factory=list)

    def prune(self) -> set[str]:
        """Leaves out what no output needs; gives the names that are read, but not made here."""
        needed = {r.name for r in self.outputs}
        kept = []
        for node in reversed(self.nodes):
            if needed.isdisjoint(node.outputs):
                continue
            # Outputs of a Scan are told apart by their number, those of a TopK are all required.
            if not node.blocks and node.operator != "TopK":
                node.outputs = [o if o in needed else "" for o in node.outputs]
                while not node.outputs[-1]:
                    node.outputs.pop()
            kept.append(node)
            needed.update(i for i in node.inputs if i)
            needed.update(*(block.prune() for block in node.blocks))
        self.nodes = kept[::-1]
        made = {o for node in self.nodes for o in node.outputs} | {r.name for r in self.inputs}
        return needed - made

    def walk(self) -> Iterator[Block]:
        """Itself and the blocks inside, outermost first."""
        yield self
        for node in self.nodes:
            for block in node.blocks:
                yield from block.walk()


Argument: TypeAlias = Ref | str | None
# The outputs; None where ONNX has no operator for these attributes or types.
Outputs: TypeAlias = Ref | str | Sequence[Ref | str] | None
Write: TypeAlias = Callable[..., Outputs]

_Function = TypeVar("_Function", bound=Write)

WRITERS: dict[type[Op], Write] = {}


def writes(*ops: type[Op]) -> Callable[[_Function], _Function]:
    """Registers the function that exports operations of these classes.

    It is called with a Draft, the operation and a Ref for each input, and gives the outputs.
    """

    def register(function: _Function) -> _Function:
        for op in ops:
            WRITERS[op] = function
        return function

    return register


@dataclass(frozen=True, eq=False)
class Draft:
    """One node of the graph as the function that exports it sees it.

    Arguments:
        writer: the export it is part of.
        title: what its outputs are called after.
        outputs: types of its outputs.
    """

    writer: Writer
    title: str
    outputs: tuple[TensorType, ...]

    def node(self, operator: str, *inputs: Argument, **attributes: Any) -> str:
        """An ONNX node with one output; attributes that are None are left out."""
        return self.nodes(1, operator, *inputs, **attributes)[0]

    def nodes(self, count: int, operator: str, *inputs: Argument, **attributes: Any) -> list[str]:
        """An ONNX node with several outputs."""
        names = ["" if i is None else i if isinstance(i, str) else i.name for i in inputs]
        while names and not names[-1]:
            names.pop()
        results = [self.fresh(short_name(operator)) for _ in range(count)]
        given = {k: v for k, v in attributes.items() if v is not None}
        self.writer.block.nodes.append(Written(operator, names, results, given))
        return results

    def fresh(self, title: str) -> str:
        """The name of a new value."""
        return self.writer.fresh(f"{self.title}.{title}")

    def constant(self, value: object, dtype: DType) -> str:
        """A constant."""
        array = np.asarray(value, dtype.numpy)
        return self.writer.constant(f"{self.title}.constant", array)

    def integers(self, *values: int) -> str:
        """A list of int64."""
        return self.constant(np.array(values, np.int64), DType.INT64)

    def like(self, value: object, x: Ref) -> str:
        """A constant of x's dtype."""
        return self.constant(value, x.type.dtype)

    def reshaped(self, x: Argument, shape: Sequence[int]) -> str:
        """X under another shape."""
        zeros = 1 if 0 in shape else None
        return self.node("Reshape", x, self.integers(*shape), allowzero=zeros)

    def missing(self, type: TensorType, reason: str) -> Ref:
        """A value that is refused, for this reason, when something reads it."""
        name = self.fresh("missing")
        self.writer.missing[name] = reason
        return Ref(name, type)


@dataclass
class Writer:
    """An export in progress.

    Attributes:
        contents: of parameters and buffers, by name.
        table: what exports operations of each class.
        block: where nodes are written.
        arrays: contents of the initializers.
        titles: what each value would like to be called.
        outputs: what those that are outputs are called in any case.
        missing: values that do not exist, and why.
        places: positions of a max-pooling -> ONNX's indices of the same pooling.
    """

    contents: Mapping[str, Array]
    table: Mapping[type[Op], Write]
    block: Block = field(default_factory=Block)
    arrays: dict[str, Array] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    _shared: dict[tuple[object, ...], str] = field(default_factory=dict)

    def fresh(self, title: str) -> str:
        """The name of a new value, which would like to be called `title`."""
        name = f"%{len(self.titles)}"
        self.titles[name] = title
        return name

    def constant(self, title: str, array: Array) -> str:
        """The name of an initializer; equal small ones are one."""
        key = (array.dtype, array.shape, array.tobytes()) if array.size <= 64 else ()
        if key and key in self._shared:
            return self._shared[key]
        name = self.fresh(title)
        self.arrays[name] = array
        if key:
            self._shared[key] = name
        return name

    def graph(self, graph: Graph, inputs: Mapping[str, Ref], prefix: str = "") -> list[Ref]:
        """Writes what the outputs of a graph need; gives these outputs.

        Raises:
            OnnxError: what cannot be exported: node, operation and reason.
        """
        values: dict[Value, Ref] = {}
        live = replace(graph, updates={}).live()
        for node in graph.nodes():
            if node.name not in live:
                continue
            title = f"{prefix}.{node.name}" if prefix else node.name
            try:
                if isinstance(node.op, Input):
                    results = [inputs[node.name]]
                elif isinstance(node.op, State | Constant):
                    results = [self._leaf(graph, node, title)]
                else:
                    given = [values[v] for v in graph.inputs_of(node.name)]
                    results = self._operation(node.op, title, given, node.types)
            except QuernError as error:
                if prefix:
                    raise
                raise OnnxError(f"{node.op.name}: {error}").at(node.name, node.source) from None
            values.update(zip(graph.outputs_of(node.name), results, strict=True))
        return [values[v] for v in graph.outputs.values()]

    def _leaf(self, graph: Graph, node: Node, title: str) -> Ref:
        if isinstance(node.op, Constant):
            return Ref(self.constant(title, graph.data[node.name]), node.types[0])
        name = self.fresh(title)
        if node.name in self.contents:
            self.arrays[name] = np.asarray(self.contents[node.name])
        else:
            self.missing[name] = f"{node.name} has no contents"
        return Ref(name, node.types[0])

    def _operation(
        self, op: Op, title: str, inputs: Sequence[Ref], types: Sequence[TensorType]
    ) -> list[Ref]:
        """One operation: by its own function, else by what it expands to."""
        write = self.table.get(type(op))
        outputs = write(Draft(self, title, tuple(types)), op, *inputs) if write else None
        if outputs is None:
            outputs = self._expanded(op, title, inputs)
        listed = [outputs] if isinstance(outputs, Ref | str) else list(outputs)
        results = [
            r if isinstance(r, Ref) else Ref(r, t) for r, t in zip(listed, types, strict=True)
        ]
        handed_on = {r.name for r in inputs} | set(self.arrays)
        for port, ref in enumerate(results):
            if ref.name not in handed_on:
                self.titles[ref.name] = title if port == 0 else f"{title}:{port}"
        return results

    def _expanded(self, op: Op, title: str, inputs: Sequence[Ref]) -> list[Ref]:
        try:
            graph = expansion(op, tuple(r.type for r in inputs))
        except NotImplementedError:
            raise OnnxError("ONNX has no operator for it") from None
        return self.graph(graph, {f"input{i}": r for i, r in enumerate(inputs)}, title)

    @contextmanager
    def inside(self, block: Block) -> Iterator[None]:
        """Nodes are written into another block."""
        outer, self.block = self.block, block
        try:
            yield
        finally:
            self.block = outer

    def close(self, block: Block, names: Sequence[str], results: Sequence[Ref]) -> None:
        """Makes results the outputs of a block, each a value of its own that is made there.

        Arguments:
            block: a body, or the graph; it is complete but for its outputs.
            names: what the outputs would like to be called; "" to leave that to the values.
            results: any values, also of outside.
        """
        made = {o for node in block.nodes for o in node.outputs}
        for name, ref in zip(names, results, strict=True):
            if ref.name in made and ref not in block.outputs:
                block.outputs.append(ref)
            else:
                copy = Ref(self.fresh(name or self.titles[ref.name]), ref.type)
                block.nodes.append(Written("Identity", [ref.name], [copy.name], {}))
                block.outputs.append(copy)
            if name:
                self.outputs[block.outputs[-1].name] = name
