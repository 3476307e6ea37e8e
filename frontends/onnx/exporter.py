"""`to_onnx`: a network as an ONNX file.

What is exported is the declared graph, so that a convolution with its bias, a normalisation or a
pooling is one ONNX node: by the table of `writers/`, and what is not in it by its expansion. The
network is the one of inference: dropout is left out, and batch normalisation uses the running
statistics.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...compiler.errors import OnnxError, UsageError
from ...compiler.files import replacing
from ...compiler.graph import Graph
from ...compiler.ops.leaf import Input, State
from ...compiler.types import Array, TensorType
from .proto import ModelProto, element_type, onnx_package
from .writer import Block, Ref, Writer, Written
from .writers import WRITERS

OPERATOR_SET = 21  # ONNX 1.16, ONNX Runtime 1.18
IR_VERSION = 10  # of the file format that came with it

_MOST_INSIDE = 1_900_000_000  # bytes of contents; protobuf writes no more than 2 GB
_LEAST_OUTSIDE = 1024  # smaller contents stay inside: they may be shapes, which readers look at
_ALIGNMENT = 4096  # of contents in a file of their own, so that they can be mapped


def to_onnx(
    source: Any,
    path: str | os.PathLike[str],
    *specs: TensorType,
    external_data: bool | None = None,
    **named: TensorType,
) -> Path:
    """Writes a network to an ONNX file (operator set 21), for ONNX Runtime and others.

    Parameters and buffers keep their names, those of the state dict; inputs, outputs and nodes
    theirs. A module is exported as it computes in inference, an Executable with the contents its
    parameters have now. The file takes the place of an older one when it is complete.

    Arguments:
        source: an Executable, a module, a function of tensors, a Graph, a networkx graph, the name
            of a network of the zoo, `FILE.py:NAME`, a `.qn` or an `.onnx` file.
        path: of the file.
        specs: types of the inputs (`qn.spec(1, 3, 224, 224)`), where the source does not know them.
        external_data: put contents of parameters into a second file, PATH.data; by default where
            they are too large for one.
        named: types of inputs by name.

    Returns:
        The path.

    Raises:
        OnnxError: what cannot be exported: node, operation and reason.
        UsageError: the source is no network, or its inputs have no types.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file")
    graph, contents = _network(source, specs, named)
    block, arrays = written(graph, contents)
    onnx_graph = _graph_proto(block, graph.name)
    if external_data is None:
        external_data = sum(a.nbytes for a in arrays.values()) > _MOST_INSIDE
    data = target.with_name(target.name + ".data")
    with (
        replacing(target) as file,
        replacing(data) if external_data else nullcontext() as data_file,
    ):
        for name, array in arrays.items():
            onnx_graph.initializer.append(_tensor(name, array, data.name, data_file))
        file.write(_model(onnx_graph).SerializeToString())
    return target


def to_model(graph: Graph, contents: Mapping[str, Array] | None = None) -> ModelProto:
    """The graph as an `onnx.ModelProto`, its contents inside; as `to_onnx`."""
    block, arrays = written(graph, graph.data if contents is None else contents)
    onnx_graph = _graph_proto(block, graph.name)
    onnx_graph.initializer.extend(_tensor(name, array) for name, array in arrays.items())
    return _model(onnx_graph)


def _network(
    source: Any, specs: tuple[TensorType, ...], named: Mapping[str, TensorType]
) -> tuple[Graph, Mapping[str, Array]]:
    """A graph, and the contents of its states."""
    from ...runtime.executable import Executable
    from ..nn.module import Module
    from ..nn.trace import trace_call
    from ..source import source_of

    if isinstance(source, str | os.PathLike) and Path(source).suffix == ".qn":
        from ...runtime.artifact import load

        source = load(Path(source))
    if isinstance(source, Executable):
        if specs or named:
            raise UsageError("an Executable has fixed types; give no types of inputs")
        return source.graph, source.state
    if isinstance(source, Module):
        graph = trace_call(source, specs, named, training=False).graph
    else:
        graph = source_of(source).graph(*specs, **named)
    return graph, graph.data


def written(graph: Graph, contents: Mapping[str, Array]) -> tuple[Block, dict[str, Array]]:
    """The ONNX nodes for what the outputs of a graph need, and the initializers.

    Raises:
        OnnxError: what cannot be exported: node, operation and reason.
    """
    writer = Writer(contents, WRITERS)
    inputs = {n.name: Ref(writer.fresh(n.name), n.types[0]) for n in graph.leaves(Input)}
    block = writer.block
    block.inputs = list(inputs.values())
    results = writer.graph(graph, inputs)
    writer.close(block, list(graph.outputs), results)
    read = block.prune()
    for inner in block.walk():
        for node in inner.nodes:
            _check_there(writer, node)
    states = {n.name for n in graph.leaves(State)}
    used = [name for name in writer.arrays if name in read]
    first = [r.name for r in block.inputs]
    first += [name for name in used if writer.titles[name] in states]
    first += [r.name for r in block.outputs]
    _name_nodes(writer, block)
    names = _named({**writer.titles, **writer.outputs}, first, block)
    _rename(block, names)
    return block, {names[name]: writer.arrays[name] for name in used}


def _check_there(writer: Writer, node: Written) -> None:
    for name in node.inputs:
        if name in writer.missing:
            who = writer.titles[next(o for o in node.outputs if o)]
            raise OnnxError(
                f"{who}: {node.operator} reads {writer.titles[name]}: {writer.missing[name]}"
            )


def _name_nodes(writer: Writer, block: Block) -> None:
    """Each after its first output."""
    taken: dict[str, int] = {}
    for inner in block.walk():
        for node in inner.nodes:
            title = writer.titles[next(o for o in node.outputs if o)]
            node.name = _unique(title, taken)


def _unique(title: str, taken: dict[str, int]) -> str:
    """The title, with a number behind it where it is taken."""
    name = title
    while name in taken:
        taken[title] += 1
        name = f"{title}_{taken[title]}"
    taken[name] = 0
    return name


def _named(titles: Mapping[str, str], first: Iterable[str], block: Block) -> dict[str, str]:
    """What each value is called; the `first` ones choose first."""
    names: dict[str, str] = {"": ""}
    taken: dict[str, int] = {}

    def call(name: str) -> None:
        if name not in names:
            names[name] = _unique(titles[name], taken)

    for name in first:
        call(name)
    for inner in block.walk():
        for ref in inner.inputs:
            call(ref.name)
        for node in inner.nodes:
            for name in (*node.inputs, *node.outputs):
                call(name)
    return names


def _rename(block: Block, names: Mapping[str, str]) -> None:
    for inner in block.walk():
        inner.inputs = [Ref(names[r.name], r.type) for r in inner.inputs]
        inner.outputs = [Ref(names[r.name], r.type) for r in inner.outputs]
        for node in inner.nodes:
            node.inputs = [names[i] for i in node.inputs]
            node.outputs = [names[o] for o in node.outputs]


# -- protobuf -------------------------------------------------------------------------------------


def _model(graph: Any) -> ModelProto:
    from ... import __version__

    onnx = onnx_package()
    return onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPERATOR_SET)],
        ir_version=IR_VERSION,
        producer_name="quern",
        producer_version=__version__,
    )


def _graph_proto(block: Block, name: str) -> Any:
    helper = onnx_package().helper
    return helper.make_graph(
        [_node_proto(node) for node in block.nodes],
        name,
        [_value_info(r) for r in block.inputs],
        [_value_info(r) for r in block.outputs],
    )


def _node_proto(node: Written) -> Any:
    attributes = {
        name: _graph_proto(value, node.name) if isinstance(value, Block) else value
        for name, value in node.attributes.items()
    }
    return onnx_package().helper.make_node(
        node.operator, node.inputs, node.outputs, name=node.name, **attributes
    )


def _value_info(ref: Ref) -> Any:
    element = element_type(ref.type.dtype.numpy)
    return onnx_package().helper.make_tensor_value_info(ref.name, element, ref.shape)


def _tensor(name: str, array: Array, location: str = "", file: IO[bytes] | None = None) -> Any:
    """An initializer, its contents inside, or behind what is in a file of their own."""
    onnx = onnx_package()
    contents = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    tensor = onnx.TensorProto(name=name, data_type=element_type(array.dtype), dims=np.shape(array))
    if file is None or array.nbytes < _LEAST_OUTSIDE:
        tensor.raw_data = contents.tobytes()
        return tensor
    file.write(bytes(-file.tell() % _ALIGNMENT))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": location, "offset": file.tell(), "length": contents.nbytes}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    file.write(contents.data)
    return tensor
