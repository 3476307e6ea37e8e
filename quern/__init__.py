"""Quern: a graph compiler for neural networks on CPUs.

The public names, nothing else. Each is imported from its home on first use, so that `import quern`
itself loads neither NumPy nor LLVM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> "MODULE" that it lives in; "MODULE:NAME" where it has another name there; "MODULE:"
# for a module itself.
_EXPORTS: dict[str, str] = {
    "ArtifactError": ".compiler.errors",
    "CompileError": ".compiler.errors",
    "DType": ".compiler.types",
    "DTypeError": ".compiler.errors",
    "DataError": ".compiler.errors",
    "Executable": ".runtime.executable",
    "GradientError": ".compiler.errors",
    "Graph": ".compiler.graph",
    "GraphError": ".compiler.errors",
    "InputError": ".compiler.errors",
    "OnnxError": ".compiler.errors",
    "QuernError": ".compiler.errors",
    "ShapeError": ".compiler.errors",
    "Tensor": ".compiler.tensor",
    "TensorType": ".compiler.types",
    "Trainer": ".frontends.training.trainer",
    "TrainingError": ".compiler.errors",
    "UsageError": ".compiler.errors",
    "arange": ".frontends.nn.functional.create",
    "bernoulli": ".frontends.nn.functional.create",
    "cat": ".frontends.nn.functional.shape",
    "check_gradients": ".compiler.check",
    "chunk": ".frontends.nn.functional.shape",
    "compile": ".frontends.compile",
    "differentiate": ".compiler.autodiff",
    "draw": ".frontends.compile",
    "einsum": ".frontends.nn.functional.convolution",
    "eye": ".frontends.nn.functional.create",
    "from_networkx": ".frontends.networkx",
    "from_onnx": ".frontends.onnx",
    "from_torch": ".frontends.torch",
    "full": ".frontends.nn.functional.create",
    "full_like": ".frontends.nn.functional.create",
    "grad": ".compiler.autodiff:differentiate",
    "gradient_flow": ".frontends.gradient_flow",
    "interpret": ".frontends.compile",
    "linspace": ".frontends.nn.functional.create",
    "load": ".runtime.artifact",
    "manual_seed": ".frontends.nn.init",
    "matmul": ".frontends.nn.functional.convolution",
    "nn": ".nn:",
    "ones": ".frontends.nn.functional.create",
    "ones_like": ".frontends.nn.functional.create",
    "optim": ".optim:",
    "profile": ".runtime.profile:profile",
    "rand_like": ".frontends.nn.functional.create",
    "randn_like": ".frontends.nn.functional.create",
    "spec": ".frontends.nn.trace",
    "split": ".frontends.nn.functional.shape",
    "stack": ".frontends.nn.functional.shape",
    "surgery": ".frontends.surgery:",
    "tensor": ".frontends.nn.functional.create",
    "to_networkx": ".frontends.networkx",
    "to_onnx": ".frontends.onnx",
    "trace": ".frontends.nn.trace",
    "where": ".frontends.nn.functional.shape",
    "zeros": ".frontends.nn.functional.create",
    "zeros_like": ".frontends.nn.functional.create",
    "zoo": ".frontends.zoo:",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    # The names of _EXPORTS once more, for type checkers and editors:
    from . import nn as nn
    from . import optim as optim
    from .compiler.autodiff import differentiate as differentiate
    from .compiler.autodiff import differentiate as grad  # noqa: F401
    from .compiler.check import check_gradients as check_gradients
    from .compiler.errors import ArtifactError as ArtifactError
    from .compiler.errors import CompileError as CompileError
    from .compiler.errors import DataError as DataError
    from .compiler.errors import DTypeError as DTypeError
    from .compiler.errors import GradientError as GradientError
    from .compiler.errors import GraphError as GraphError
    from .compiler.errors import InputError as InputError
    from .compiler.errors import OnnxError as OnnxError
    from .compiler.errors import QuernError as QuernError
    from .compiler.errors import ShapeError as ShapeError
    from .compiler.errors import TrainingError as TrainingError
    from .compiler.errors import UsageError as UsageError
    from .compiler.graph import Graph as Graph
    from .compiler.tensor import Tensor as Tensor
    from .compiler.types import DType as DType
    from .compiler.types import TensorType as TensorType
    from .frontends import surgery as surgery
    from .frontends import zoo as zoo
    from .frontends.compile import compile as compile
    from .frontends.compile import draw as draw
    from .frontends.compile import interpret as interpret
    from .frontends.gradient_flow import gradient_flow as gradient_flow
    from .frontends.networkx import from_networkx as from_networkx
    from .frontends.networkx import to_networkx as to_networkx
    from .frontends.nn.functional.convolution import einsum as einsum
    from .frontends.nn.functional.convolution import matmul as matmul
    from .frontends.nn.functional.create import arange as arange
    from .frontends.nn.functional.create import bernoulli as bernoulli
    from .frontends.nn.functional.create import eye as eye
    from .frontends.nn.functional.create import full as full
    from .frontends.nn.functional.create import full_like as full_like
    from .frontends.nn.functional.create import linspace as linspace
    from .frontends.nn.functional.create import ones as ones
    from .frontends.nn.functional.create import ones_like as ones_like
    from .frontends.nn.functional.create import rand_like as rand_like
    from .frontends.nn.functional.create import randn_like as randn_like
    from .frontends.nn.functional.create import tensor as tensor
    from .frontends.nn.functional.create import zeros as zeros
    from .frontends.nn.functional.create import zeros_like as zeros_like
    from .frontends.nn.functional.shape import cat as cat
    from .frontends.nn.functional.shape import chunk as chunk
    from .frontends.nn.functional.shape import split as split
    from .frontends.nn.functional.shape import stack as stack
    from .frontends.nn.functional.shape import where as where
    from .frontends.nn.init import manual_seed as manual_seed
    from .frontends.nn.trace import spec as spec
    from .frontends.nn.trace import trace as trace
    from .frontends.onnx import from_onnx as from_onnx
    from .frontends.onnx import to_onnx as to_onnx
    from .frontends.torch import from_torch as from_torch
    from .frontends.training.trainer import Trainer as Trainer
    from .runtime.artifact import load as load
    from .runtime.executable import Executable as Executable
    from .runtime.profile import profile as profile
else:  # unseen by type checkers, so that they still find a misspelt name

    def __getattr__(name: str) -> object:
        """Import a public name on its first use (PEP 562)."""
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home, colon, there = _EXPORTS[name].partition(":")
        module = import_module(home, __name__)
        value = module if colon and not there else getattr(module, there or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _EXPORTS.keys())
