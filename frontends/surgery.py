"""Networks taken apart and put together again: layers removed, blocks reordered, trunks reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..compiler.errors import QuernError, UsageError
from ..compiler.graph import Graph, Node, Value
from ..compiler.ops.base import Op
from ..compiler.ops.conv import Conv
from ..compiler.ops.leaf import Leaf, Parameter, State
from ..compiler.ops.linear import Linear
from ..compiler.ops.movement import Reshape
from ..compiler.ops.norm import BatchNorm, BatchNormInference
from ..compiler.rewrite import Rewriter, rewrite
from ..compiler.tensor import Tensor
from ..compiler.types import Array, Shape, TensorType
from .nn import init
from .nn.module import Module
from .nn.state import Parameter as Contents
from .suggest import unknown


def remove(graph: Graph, *names: str) -> Graph:
    """A network without some of its layers: what read them reads what they have read.

    Layers that then get another number of channels or features have new weights, with PyTorch's
    initial contents; all others keep theirs. This is how ablations are made (Zeiler and Fergus,
    2014, table 3) and residual blocks are dropped (Veit et al., 2016).

    Arguments:
        graph: of a network, without its gradient.
        names: nodes (`features.6`), or modules whose nodes all go (`layer2.1`).

    Raises:
        UsageError: for a name that there is none of, or a part with several ways in or out.
        ShapeError: where what is left does not fit together.
    """
    bridges = {}
    for name in names:
        inside = _inside(graph, name)
        bridges[_way_out(graph, inside, name)] = _way_in(graph, inside, name)
    return _Refit(graph, bridges).run()


def reorder(graph: Graph, names: Sequence[str]) -> Graph:
    """A network whose blocks of equal structure run in another order.

    Arguments:
        graph: of a network.
        names: all modules to be moved, in their new order.

    Raises:
        UsageError: when two of them do not hold the same states.
    """
    places = sorted(names, key=lambda name: _first(graph, name))
    moved: dict[str, str] = {}
    for place, name in zip(places, names, strict=True):
        here, there = (_states(graph, n) for n in (place, name))
        if here != there:
            raise UsageError(
                f"{name} cannot stand in the place of {place}: their parameters and buffers differ"
            )
        moved |= {f"{place}.{key}": f"{name}.{key}" for key in here}

    def rule(rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if node.name not in moved:
            return None
        (value,) = rewriter.keep(graph.node(moved[node.name]))
        return [rewriter.new.tensor(value)]

    return rewrite(graph, rule)


def transplant(network: Module, states: Mapping[str, Array], prefix: str = "") -> list[str]:
    """Gives a network the contents of another one, wherever name and shape are the same.

    Arguments:
        network: gets them.
        states: a state dict.
        prefix: only keys that start with it, such as `features.`.

    Returns:
        The keys that were taken.

    Raises:
        UsageError: when none fits.
    """
    own = network.state_dict()
    taken = [
        key
        for key, array in states.items()
        if key.startswith(prefix) and key in own and own[key].shape == array.shape
    ]
    if not taken:
        raise UsageError(
            f"no state called {prefix}… is the same in both; {type(network).__name__} has "
            f"{', '.join(list(own)[:4])} …"
        )
    network.load_state_dict({key: states[key] for key in taken}, strict=False)
    return taken


def freeze(network: Module, *names: str) -> Module:
    """Keeps modules as they are while the rest is trained; all of the network without names."""
    for name in names or ("",):
        network.get_submodule(name).requires_grad_(False)
    return network


# -- parts of a network ---------------------------------------------------------------------------


def _inside(graph: Graph, name: str) -> list[Node]:
    """The operations of a node or module."""
    found = [
        n
        for n in graph.nodes()
        if (n.name == name or n.name.startswith(f"{name}.")) and not isinstance(n.op, Leaf)
    ]
    if not found:
        have = [n.name for n in graph.nodes() if not isinstance(n.op, Leaf)]
        raise UsageError(unknown("layer", name, have, graph.name))
    return found


def _way_in(graph: Graph, inside: Sequence[Node], name: str) -> Value:
    members = {n.name for n in inside}
    read = [v for n in inside for v in graph.inputs_of(n.name)]
    ways = {
        v for v in read if v.node not in members and not isinstance(graph.node(v.node).op, State)
    }
    if len(ways) != 1:
        raise UsageError(f"{name} reads {len(ways)} values, so it cannot be taken out; name less")
    return ways.pop()


def _way_out(graph: Graph, inside: Sequence[Node], name: str) -> Value:
    members = {n.name for n in inside}
    results = set(graph.outputs.values())
    ways = [
        v
        for n in inside
        for v in graph.outputs_of(n.name)
        if v in results or any(user not in members for user, _ in graph.uses_of(v))
    ]
    if len(ways) != 1:
        raise UsageError(f"{name} gives {len(ways)} values, so it cannot be taken out; name less")
    return ways[0]


def _first(graph: Graph, name: str) -> int:
    first = _inside(graph, name)[0]
    return next(i for i, n in enumerate(graph.nodes()) if n.name == first.name)


def _states(graph: Graph, name: str) -> dict[str, Op]:
    """The states of a module by their names in it."""
    start = f"{name}."
    return {
        n.name.removeprefix(start): n.op for n in graph.leaves(State) if n.name.startswith(start)
    }


# -- layers that fit ------------------------------------------------------------------------------


@dataclass
class _Refit:
    """A graph in which some values stand for others.

    Attributes:
        graph: the old graph.
        bridges: value -> what is read in its place.
        types: of all values in the new graph.
        states: types of those that have to change.
    """

    graph: Graph
    bridges: Mapping[Value, Value]
    types: dict[Value, TensorType] = field(default_factory=dict)
    states: dict[str, TensorType] = field(default_factory=dict)

    def run(self) -> Graph:
        for node in self.graph.nodes():
            self._find_types(node)
        return rewrite(rewrite(self.graph, self._rule))  # once more, without what is removed

    def _find_types(self, node: Node) -> None:
        inputs = self.graph.inputs_of(node.name)
        types = node.types
        if not isinstance(node.op, Leaf) and self._changes(inputs):
            wanted = _fitting(node.op, [self.types[v] for v in inputs])
            for value, type in zip(inputs, wanted, strict=True):
                if type != self.types[value]:
                    self._change(node, value, type)
            try:
                types = self._op(node).infer(*wanted)
            except QuernError as error:
                raise error.at(node.name, node.source) from None
        for value, type in zip(self.graph.outputs_of(node.name), types, strict=True):
            self.types[value] = self.types[self.bridges[value]] if value in self.bridges else type

    def _changes(self, inputs: Sequence[Value]) -> bool:
        return any(self.types[v] != self.graph.type_of(v) for v in inputs)

    def _change(self, node: Node, value: Value, type: TensorType) -> None:
        if not isinstance(self.graph.node(value.node).op, State):
            raise UsageError(
                f"{node.name} would have to read {value} as {type}, but that is computed"
            )
        self.types[value] = self.states[value.node] = type

    def _op(self, node: Node) -> Op:
        """The operation; a reshape to rows takes as many features as there are."""
        (x, *_) = (self.types[v] for v in self.graph.inputs_of(node.name))
        if isinstance(node.op, Reshape) and len(node.op.shape) == 2:
            rows = node.op.shape[0]
            return Reshape((rows, x.size // rows))
        return node.op

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        new = rewriter.new
        outputs = self.graph.outputs_of(node.name)
        if any(v in self.bridges for v in outputs):
            return [new.tensor(rewriter.values[self.bridges[v]]) for v in outputs]
        if node.name in self.states:
            return [self._state(rewriter, node)]
        inputs = self.graph.inputs_of(node.name)
        if isinstance(node.op, Leaf) or not self._changes(inputs):
            return None
        types = tuple(self.types[v] for v in outputs)
        changed = replace(node, op=self._op(node), types=types)
        values = new.add_node(changed, tuple(rewriter.values[v] for v in inputs))
        return [new.tensor(v) for v in values]

    def _state(self, rewriter: Rewriter, node: Node) -> Tensor:
        """A state of another shape, with new contents."""
        assert isinstance(node.op, State)
        type = self.states[node.name]
        op = replace(node.op, type=type)
        (value,) = rewriter.new.add_node(replace(node, op=op, types=(type,)), ())
        if node.name in self.graph.data:
            contents = Contents(self.graph.data[node.name].ravel()[:1].repeat(type.size))
            contents.data = contents.data.reshape(type.shape)
            if isinstance(node.op, Parameter) and len(type.shape) > 1:
                init.default_weight_and_bias(contents, None)
            rewriter.new.data[node.name] = contents.data
        return rewriter.new.tensor(value)


def _fitting(op: Op, types: Sequence[TensorType]) -> list[TensorType]:
    """Types of what an operation reads such that they fit the first one."""
    x, *others = types
    if isinstance(op, Conv):
        w, *bias = others
        depth = x.shape[1] // op.groups
        return [x, w.with_shape((w.shape[0], depth, *w.shape[2:])), *bias]
    if isinstance(op, Linear):
        w, *bias = others
        return [x, w.with_shape((w.shape[0], x.shape[-1])), *bias]
    if isinstance(op, BatchNorm | BatchNormInference):
        channels: Shape = (x.shape[1],)
        return [x, *(t.with_shape(channels) if t.rank == 1 else t for t in others)]
    return [x, *others]
