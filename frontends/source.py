"""Sources of networks: what `qn.compile`, `qn.draw` and every command take.

    resnet18            a network of the zoo
    nets.py:LeNet       from a Python file: a module class without arguments, a module, a function
                        of tensors, a Graph, or a networkx graph
    lenet.qn            the graph of a compiled file
    model.onnx

In Python also a module (of PyTorch, too), a function of tensors, a Graph or a networkx graph
itself.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

import networkx as nx

from ..compiler.errors import QuernError, UsageError
from ..compiler.graph import Graph
from ..compiler.ops.leaf import Input
from ..compiler.types import TensorType
from .networkx import from_networkx
from .nn.init import skipped
from .nn.module import Module
from .nn.trace import trace_call
from .onnx import OnnxFile
from .suggest import listing, unknown
from .torch import from_torch, is_torch_module

Content = Module | Callable[..., Any] | Graph | OnnxFile


class UserCodeError(QuernError):
    """Code of the user's own file raised an exception."""


@dataclass(frozen=True)
class Source:
    """A network whose inputs may still have no types.

    Arguments:
        name: what messages call it.
        content: a module, a function of tensors, or a graph.
        inputs: types of the inputs, in order, where they need not be told.
        file: the user's, that it comes from.
        training: mode that modules are traced in; None leaves them in the mode they are in.
    """

    name: str
    content: Content
    inputs: tuple[TensorType, ...] = ()
    file: Path | None = None
    training: bool | None = field(default=None, kw_only=True)

    def graph(self, *specs: TensorType, **named: TensorType) -> Graph:
        """The graph of the network.

        Arguments:
            specs: types of the inputs, in order; the known ones by default.
            named: types of inputs by name.

        Raises:
            UsageError: the type of an input is missing, or there is no such input.
            QuernError: what does not fit in the network, with node and line.
        """
        if isinstance(self.content, Graph):
            return _with_types(self.content, specs, named)
        if isinstance(self.content, OnnxFile):
            return self.content.graph(*specs, **named)
        args, kwargs = self.arguments(*specs, **named)
        with users_code(self.file):
            return trace_call(self.content, args, kwargs, training=self.training).graph

    def arguments(
        self, *specs: TensorType, **named: TensorType
    ) -> tuple[tuple[TensorType, ...], dict[str, TensorType]]:
        """Types by place and by name, as the module or function takes them; like `graph`."""
        signature = inspect.signature(_function(self.content))
        names = list(signature.parameters)
        if not specs:
            known = dict(zip(names, self.inputs, strict=False))
            specs, named = (self.inputs, {}) if not named else ((), {**known, **named})
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            for name in named:
                if name not in names:
                    raise UsageError(unknown("input", name, names, self.name))
        try:
            signature.bind(*specs, **named)
        except TypeError as error:
            raise UsageError(
                f"{self.name} takes {', '.join(names) or 'no inputs'}: {error}; give the type of "
                "each: qn.spec(1, 3, 224, 224), on the command line --input NAME=1x3x224x224"
            ) from None
        return specs, named


def _function(content: Content) -> Callable[..., Any]:
    if isinstance(content, Graph | OnnxFile):
        raise UsageError("this network is a graph; a module or a function is wanted here")
    return content.forward if isinstance(content, Module) else content


def source_of(what: Any, contents: bool = True) -> Source:
    """The source that a text names, or that a Python object is.

    Arguments:
        what: a text or object as above.
        contents: False leaves the parameters of a network of the zoo undefined, which is much
            faster where only its structure matters.

    Raises:
        UsageError: it names or is no network.
        UserCodeError: the user's file raised an exception.
    """
    if isinstance(what, Source):
        return what
    if isinstance(what, str | os.PathLike):
        return _named(os.fspath(what), contents)
    if is_torch_module(what):
        what = from_torch(what)
    if isinstance(what, Module):
        return Source(what._get_name(), what)
    if isinstance(what, nx.DiGraph):
        what = from_networkx(what)
    if isinstance(what, Graph):
        return Source(what.name, what)
    if inspect.isclass(what) or not callable(what):
        kind = f"the class {what.__name__}" if inspect.isclass(what) else type(what).__name__
        raise UsageError(
            f"{kind} is no network; give a module, a function of tensors, a Graph, "
            "the name of a network of the zoo, or FILE.py:NAME"
        )
    return Source(getattr(what, "__name__", "graph"), what)


def _with_types(graph: Graph, specs: tuple[TensorType, ...], named: Types) -> Graph:
    """The graph, when its inputs are of the types that were told."""
    inputs = {n.name: n.types[0] for n in graph.leaves(Input)}
    if len(specs) > len(inputs):
        raise UsageError(f"{graph.name} has {len(inputs)} inputs, {len(specs)} types were given")
    for name, type in {**dict(zip(inputs, specs, strict=False)), **named}.items():
        if name not in inputs:
            raise UsageError(unknown("input", name, inputs, graph.name))
        if inputs[name] != type:
            raise UsageError(
                f"input {name} of {graph.name} is {inputs[name]}, it cannot become {type}: a graph "
                "has fixed types; give the module it was made from"
            )
    return graph


Types = Mapping[str, TensorType]


# -- names ----------------------------------------------------------------------------------------


def _named(text: str, contents: bool) -> Source:
    python = re.fullmatch(r"(.*\.py)(?::(.*))?", text, re.DOTALL)
    if python:
        return _from_python(_existing(python[1]), python[2])
    reader = _READERS.get(Path(text).suffix.lower())
    if reader is not None:
        return reader(_existing(text))
    return _from_zoo(text, contents)


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"{text} {'is no file' if path.exists() else 'does not exist'}")
    return path


def _from_zoo(name: str, contents: bool) -> Source:
    from .zoo import entries, find

    entry = find(name)
    if entry is None:
        told = unknown("network", name, entries())
        raise UsageError(
            f"{told}{' ' if told.endswith('?') else '; '}`quern models` lists them, a network of "
            "your own is FILE.py:NAME"
        )
    with nullcontext() if contents else skipped():
        network = entry.build()
    return Source(entry.name, network, (entry.input,), training=False)


def _from_artifact(path: Path) -> Source:
    from ..runtime.artifact import load_graph

    graph = load_graph(path)
    return Source(graph.name, graph)


def _from_onnx(path: Path) -> Source:
    return Source(path.stem, OnnxFile(path))


_READERS: dict[str, Callable[[Path], Source]] = {".qn": _from_artifact, ".onnx": _from_onnx}


# -- Python files ---------------------------------------------------------------------------------


def _from_python(path: Path, name: str | None) -> Source:
    module = _run_file(path)
    public = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    networks = [k for k, v in public.items() if _is_network_of(v, module)]
    if not name:
        raise UsageError(f"say which network of {path}: {path}:NAME with {listing(networks)}")
    found = vars(module).get(name)
    if found is None:
        raise UsageError(unknown("network", name, networks, str(path)))
    if isinstance(found, type) and issubclass(found, Module):
        found = _called(found, path, name)
    elif callable(found) and not isinstance(found, Module) and not _parameters(found):
        found = _called(found, path, name)  # a function that makes the network
    if isinstance(found, str | os.PathLike):
        raise UsageError(f"{path}:{name} is a text, no network")
    try:
        source = source_of(found)
    except UsageError as error:
        raise UsageError(f"{path}:{name}: {error}") from None
    return Source(source.name, source.content, file=path, training=False)


def _is_network_of(value: Any, module: ModuleType) -> bool:
    if isinstance(value, Module | Graph | nx.DiGraph):
        return True
    own = getattr(value, "__module__", None) == module.__name__
    return own and (
        inspect.isfunction(value) or (isinstance(value, type) and issubclass(value, Module))
    )


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise UsageError(f"{function!r} is no network") from None


def _called(make: Callable[[], Any], path: Path, name: str) -> Any:
    needed = [k for k, p in _parameters(make).items() if p.default is p.empty and _is_single(p)]
    if needed:
        raise UsageError(
            f"{path}:{name} needs the arguments {', '.join(needed)}; "
            f"add a line to the file, such as net = {name}(…), and give {path}:net"
        )
    with users_code(path):
        return make()


def _is_single(parameter: inspect.Parameter) -> bool:
    return parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _run_file(path: Path) -> ModuleType:
    """The file as a module, run as `python FILE` would, but not under the name `__main__`."""
    name = f"quern_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # stays: functions may import when they are called
    with users_code(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def users_code(file: Path | None) -> Iterator[None]:
    """Exceptions of the user's own code inside, in one line with the place.

    Raises:
        UserCodeError: in place of everything but the errors of this package.
    """
    try:
        yield
    except QuernError:
        raise
    except SyntaxError as error:
        raise UserCodeError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        if file is None:
            raise
        folder = str(file.resolve().parent)
        lines = [f for f in extract_tb(error.__traceback__) if f.filename.startswith(folder)]
        place = f"{lines[-1].filename}:{lines[-1].lineno}" if lines else str(file)
        text = " ".join(str(error).split())
        raise UserCodeError(f"{place}: {type(error).__name__}: {text}") from error
