"""The network that a command runs: a compiled file as it is, any other compiled now."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ...compiler.errors import UsageError
from ...compiler.types import Array, DType, TensorType
from ...runtime.executable import Executable
from .arrays import Given, fill, read_inputs
from .options import ALGORITHMS, is_type


def network_of(options: argparse.Namespace, given: Given) -> Executable:
    """The network of SOURCE, for inputs of the types of what is given.

    The compiler is only imported where something has to be compiled.
    """
    as_it_is = not (options.target or options.tune) and options.algorithms == ALGORITHMS[0]
    if options.source.endswith(".qn") and as_it_is:
        return _from_file(options)
    from ..source import source_of
    from .build import compile_network, specs_of

    source = source_of(options.source)
    specs, types = specs_of(given, source.content)
    return compile_network(source.graph(*specs, **types), options)


def runnable_of(options: argparse.Namespace) -> tuple[Executable, dict[str, Array]]:
    """The network that SOURCE, --input and --training ask for, and contents of its inputs.

    Inputs without contents are standard normal.
    """
    given = read_inputs(options.input)
    if options.backward or options.training or options.loss:
        executable = _differentiated(options)
    else:
        executable = network_of(options, given)
    return executable, fill(executable.inputs, given, "random", options.seed)


def _differentiated(options: argparse.Namespace) -> Executable:
    """The network with its gradients or as a training step; files stand for their types."""
    from .build import compile_network
    from .network import graph_of

    types = [text for text in options.input if is_type(text)]
    files = read_inputs([text for text in options.input if not is_type(text)])
    types += [_type_text(array) for array in files.placed]
    types += [f"{name}={_type_text(array)}" for name, array in files.named.items()]
    asked = argparse.Namespace(**{**vars(options), "input": types})
    return compile_network(graph_of(asked), options)


def _type_text(array: Array) -> str:
    """`16x3x224x224:float32`"""
    type = TensorType(array.shape, DType.of(array.dtype))
    return f"{'x'.join(map(str, type.shape)) or 'scalar'}:{type.dtype}"


def _from_file(options: argparse.Namespace) -> Executable:
    from ...runtime.artifact import load

    if not Path(options.source).is_file():
        raise UsageError(f"{options.source} does not exist")
    begin = time.perf_counter()
    executable = load(options.source, options.threads)
    if options.verbose:
        from .console import note

        note(f"loaded {options.source} in {1e3 * (time.perf_counter() - begin):.1f} ms")
        note(str(executable.memory))
    return executable
