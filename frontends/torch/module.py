"""A PyTorch module as a module of this project, with the same keys in its state dict."""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...compiler.errors import QuernError, UsageError
from ...compiler.graph import Origin
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from ..nn.context import require_trace
from ..nn.module import Layer, Module
from ..nn.state import Buffer, Parameter
from ..nn.structure import hashable, map_structure
from . import operators as operators
from .program import Program, export, module_path, source_of
from .table import OPERATORS, graph


def is_torch_module(what: object) -> bool:
    """Whether it is a `torch.nn.Module`; PyTorch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(what, torch.nn.Module)


def from_torch(module: Any) -> Module:
    """A PyTorch module as a module of this project.

    It can be compiled, trained, drawn and saved as any other. Its parameters and buffers begin as
    copies of PyTorch's, under the same keys: `module.load_state_dict` takes them back. It is in the
    same mode, training or inference, as are the modules in it.

    What it computes is exported by PyTorch when it is traced, for the shapes it is traced with, so
    `forward` may branch on shapes, but not on numbers in its inputs.

    Arguments:
        module: a `torch.nn.Module`.

    Returns:
        The module; `qn.trace(qn.from_torch(module), qn.spec(1, 3, 224, 224))` is its graph.

    Raises:
        UsageError: it is no PyTorch module.
    """
    if not is_torch_module(module):
        raise UsageError(f"from_torch takes a torch.nn.Module, this is {type(module).__name__}")
    result = TorchModule(module)
    _mirror(module, result)
    return result


class _Part(Module):
    """Stands for a module of PyTorch, whose name it has."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        object.__setattr__(self, "_original", original)

    def _get_name(self) -> str:
        return type(self._original).__name__

    def extra_repr(self) -> str:
        text: str = self._original.extra_repr()
        return text


class _LayerPart(_Part, Layer):
    """Stands for one of the layers that PyTorch itself has."""


class TorchModule(_Part):
    """A PyTorch module with all that is in it; see `from_torch`."""

    def __init__(self, original: Any) -> None:
        super().__init__(original)
        object.__setattr__(self, "_programs", {})
        object.__setattr__(self, "forward", self._forward())

    def _forward(self) -> Callable[..., Any]:
        """`forward` with the arguments that PyTorch's takes, after which inputs are named."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            program = self._program(args, kwargs)
            given = [t for t in _leaves((args, kwargs)) if isinstance(t, Tensor)]
            return _Run(self, program).result(given)

        vars(forward)["__signature__"] = inspect.signature(self._original.forward)
        return forward

    def _program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """What PyTorch exports for arguments of these types, in the modes the modules are in."""
        types = map_structure((args, kwargs), lambda _, v: v.type if isinstance(v, Tensor) else v)
        modes = tuple(part.training for part in self.modules())
        key = hashable(types), modes
        if key not in self._programs:
            for path, part in self.named_modules():
                self._original.get_submodule(path).training = part.training
            examples = map_structure((args, kwargs), lambda _, v: _example(v))
            self._programs[key] = export(self._original, *examples)
        program: Program = self._programs[key]
        return program


class _Run:
    """The calls of a program, one after the other, on symbolic tensors.

    Arguments:
        module: whose parameters and buffers are meant.
        program: the calls.
    """

    def __init__(self, module: TorchModule, program: Program) -> None:
        self.module = module
        self.program = program
        self.values: dict[Any, Any] = {}

    def result(self, given: Iterable[Tensor]) -> Any:
        """What the module returns for these inputs; buffers are assigned."""
        signature = self.program.exported.graph_signature
        inputs = iter(given)
        specs = {spec.arg.name: spec for spec in signature.input_specs}
        for node in self.program.nodes:
            if node.op == "placeholder":
                self.values[node] = self._leaf(specs[node.name], inputs)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
        (last,) = (node for node in self.program.nodes if node.op == "output")
        outputs = []
        for spec, value in zip(signature.output_specs, last.args[0], strict=True):
            kind = spec.kind.name
            if kind == "BUFFER_MUTATION":
                state = self.module.get_buffer(spec.target)
                require_trace(spec.target).assign(state, self._known(value))
            elif kind == "USER_OUTPUT":
                outputs.append(self._known(value))
                if outputs[-1] is None and value is not None:
                    made = value.args[0] if value.target is operator.getitem else value
                    raise UsageError(
                        f"{self.module._get_name()} returns a result of PyTorch's operator "
                        f"{made.target} that is not supported"
                    )
            else:
                raise UsageError(f"{self.module._get_name()} changes its input {spec.target}")
        return self.program.result(outputs)

    def _leaf(self, spec: Any, inputs: Any) -> Any:
        kind, arg = spec.kind.name, spec.arg
        if kind == "PARAMETER":
            return self.module.get_parameter(spec.target)
        if kind == "BUFFER":
            return self.module.get_buffer(spec.target)
        if kind == "CONSTANT_TENSOR":
            return graph().constant(_array(self.program.constants[spec.target]))
        if kind == "USER_INPUT" and type(arg).__name__ == "TensorArgument":
            return next(inputs)
        return getattr(arg, "value", None)

    def _call(self, node: Any) -> Any:
        args = [self._known(a) for a in node.args]
        if node.target is operator.getitem:
            return args[0][args[1]]
        part = self.module.get_submodule(module_path(node))
        with require_trace(node.name).inside(part) as path:
            place, source = path or node.name, source_of(node)
            function = OPERATORS.get(str(node.target))
            try:
                if function is None:
                    raise UsageError(f"PyTorch's operator {node.target} is not supported")
                with graph().scope(origins=(Origin(place, source),)):
                    return function(*args, **{k: self._known(a) for k, a in node.kwargs.items()})
            except QuernError as error:
                raise error.unlocated().at(place, source) from None

    def _known(self, argument: Any) -> Any:
        """An argument of a call with values in place of nodes."""
        if isinstance(argument, list | tuple):
            return [self._known(a) for a in argument]
        return self.values.get(argument, argument) if _is_node(argument) else argument


def _is_node(argument: Any) -> bool:
    return isinstance(argument, sys.modules["torch"].fx.Node)


# -- states ---------------------------------------------------------------------------------------


def _mirror(module: Any, root: TorchModule) -> None:
    """The same tree of modules with copies of the same states; what is tied stays tied."""
    parts: dict[int, Module] = {id(module): root}
    states: dict[int, Any] = {}
    for path, original in module.named_modules(remove_duplicate=False):
        outer, _, name = path.rpartition(".")
        known = id(original) in parts
        part = parts.setdefault(id(original), _part(original))
        if path:
            root.get_submodule(outer).add_module(name, part)
        if not known or not path:
            _copy_states(original, part, states)


def _part(original: Any) -> Module:
    is_layer = type(original).__module__.startswith("torch.nn.") and not [*original.children()]
    return _LayerPart(original) if is_layer else _Part(original)


def _copy_states(original: Any, part: Module, states: dict[int, Any]) -> None:
    part.__dict__["training"] = original.training
    for key, tensor in original._parameters.items():
        if tensor is not None and id(tensor) not in states:
            states[id(tensor)] = Parameter(_array(tensor), tensor.requires_grad)
        part.register_parameter(key, None if tensor is None else states[id(tensor)])
    for key, tensor in original._buffers.items():
        if tensor is not None and id(tensor) not in states:
            persistent = key not in original._non_persistent_buffers_set
            states[id(tensor)] = Buffer(_array(tensor), persistent)
        part.register_buffer(key, None if tensor is None else states[id(tensor)])


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().cpu().numpy().copy()
    return array


# -- arguments ------------------------------------------------------------------------------------


def _example(value: Any) -> Any:
    """A PyTorch tensor of the type of a symbolic one; anything else is handed on."""
    if not isinstance(value, Tensor):
        return value
    import torch

    return torch.zeros(value.shape, dtype=getattr(torch, value.dtype.value))


def _leaves(structure: Any) -> Iterable[Any]:
    """What is in tuples, lists and dictionaries, in PyTorch's order."""
    if isinstance(structure, Mapping):
        structure = structure.values()
    elif not isinstance(structure, tuple | list):
        yield structure
        return
    for part in structure:
        yield from _leaves(part)
