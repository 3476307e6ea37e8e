"""Quern: a graph compiler for neural networks on CPUs.

The public names, nothing else. Each is imported from its home on first use, so that `import quern`
itself loads neither NumPy nor LLVM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Home -> the public names that live there.
_HOMES: dict[str, str] = {
    ".compiler.autodiff": "differentiate",
    ".compiler.check": "check_gradients",
    ".compiler.errors": """
        ArtifactError CompileError DTypeError DataError GradientError GraphError InputError
        OnnxError QuernError ShapeError TrainingError UsageError
    """,
    ".compiler.graph": "Graph",
    ".compiler.tensor": "Tensor",
    ".compiler.types": "DType TensorType",
    ".frontends.compile": "compile draw interpret",
    ".frontends.gradient_flow": "gradient_flow",
    ".frontends.networkx": "from_networkx to_networkx",
    ".frontends.nn.autograd": "enable_grad inference_mode no_grad set_grad_enabled",
    ".frontends.nn.dtypes": "bool double float float32 float64 int int32 int64 long uint8",
    ".frontends.nn.functional.combine": """
        atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors cartesian_prod
        chain_matmul column_stack combinations dstack hstack meshgrid row_stack tril_indices
        triu_indices vstack
    """,
    ".frontends.nn.functional.create": """
        arange bernoulli empty empty_like eye full full_like linspace ones ones_like rand
        rand_like randint randn randn_like tensor zeros zeros_like
    """,
    ".frontends.nn.functional.draw": "logspace multinomial normal randint_like randperm",
    ".frontends.nn.functional.methods": """
        abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr all allclose amax
        amin aminmax any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmin argsort
        asin asinh atan atan2 atanh baddbmm bincount bitwise_and bitwise_not bitwise_or
        bitwise_xor broadcast_to bucketize cdist ceil clamp clamp_max clamp_min clip clone
        copysign corrcoef cos cosh count_nonzero cov cross cummax cummin cumprod cumsum deg2rad
        detach diag diag_embed diagflat diagonal diff digamma dist div divide dot einsum eq
        equal erf erfc erfinv exp2 expm1 fix flip fliplr flipud floor floor_divide fmax fmin
        fmod frac ge ger greater greater_equal gt heaviside histc hsplit hypot index_add
        index_copy index_fill index_select inner isclose isfinite isin isinf isnan isneginf
        isposinf kron kthvalue le lerp less less_equal lgamma log10 log1p log2 logaddexp
        logaddexp2 logcumsumexp logical_and logical_not logical_or logical_xor logit logsumexp
        lt masked_fill matrix_power max mean median min mm moveaxis movedim msort mul multiply
        mv nan_to_num nanmean nansum narrow ne neg negative norm not_equal numel outer pdist
        permute pow prod quantile rad2deg ravel reciprocal remainder repeat_interleave reshape
        roll rot90 round rsqrt scatter scatter_add scatter_reduce searchsorted select
        select_scatter sgn sign signbit sin sinc sinh slice_scatter sort split_with_sizes square
        squeeze std std_mean sub subtract sum swapaxes swapdims t take take_along_dim tan
        tensor_split tensordot tile topk transpose tril triu true_divide trunc unbind unsqueeze
        var var_mean vdot vsplit xlogy
    """,
    ".frontends.nn.init": "manual_seed",
    ".frontends.nn.trace": "spec trace",
    ".frontends.onnx": "from_onnx to_onnx",
    ".frontends.torch": "from_torch",
    ".frontends.training.trainer": "Trainer",
    ".nn.functional": """
        argmax bmm cat chunk concat cosine_similarity dropout exp flatten gather log
        log_softmax matmul maximum minimum one_hot pairwise_distance relu sigmoid softmax
        split sqrt stack tanh unflatten where
    """,
    ".runtime.executable": "Executable",
    ".runtime.profile": "profile",
    ".runtime.saved": "load save",
}

# Name -> "MODULE:NAME" where it has another name there, "MODULE:" for a module itself.
_OTHERS: dict[str, str] = {
    "autograd": ".frontends.nn.autograd:",
    "grad": ".compiler.autodiff:differentiate",
    "linalg": ".linalg:",
    "nn": ".nn:",
    "optim": ".optim:",
    "surgery": ".frontends.surgery:",
    "zoo": ".frontends.zoo:",
}

_EXPORTS = {name: home for home, names in _HOMES.items() for name in names.split()} | _OTHERS

__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    # The names of _EXPORTS once more, for type checkers and editors; a star where a module has no
    # others:
    from . import linalg as linalg
    from . import nn as nn
    from . import optim as optim
    from .compiler.autodiff import differentiate as differentiate
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
    from .frontends.nn import autograd as autograd
    from .frontends.nn.autograd import enable_grad as enable_grad
    from .frontends.nn.autograd import inference_mode as inference_mode
    from .frontends.nn.autograd import no_grad as no_grad
    from .frontends.nn.autograd import set_grad_enabled as set_grad_enabled
    from .frontends.nn.dtypes import *  # noqa: F403  # for type checkers alone
    from .frontends.nn.functional.combine import *  # noqa: F403  # for type checkers alone
    from .frontends.nn.functional.create import *  # noqa: F403  # for type checkers alone
    from .frontends.nn.functional.draw import *  # noqa: F403  # for type checkers alone
    from .frontends.nn.functional.methods import *  # noqa: F403  # for type checkers alone
    from .frontends.nn.init import manual_seed as manual_seed
    from .frontends.nn.trace import spec as spec
    from .frontends.nn.trace import trace as trace
    from .frontends.onnx import from_onnx as from_onnx
    from .frontends.onnx import to_onnx as to_onnx
    from .frontends.torch import from_torch as from_torch
    from .frontends.training.trainer import Trainer as Trainer
    from .nn.functional import argmax as argmax
    from .nn.functional import bmm as bmm
    from .nn.functional import cat as cat
    from .nn.functional import chunk as chunk
    from .nn.functional import concat as concat
    from .nn.functional import cosine_similarity as cosine_similarity
    from .nn.functional import dropout as dropout
    from .nn.functional import exp as exp
    from .nn.functional import flatten as flatten
    from .nn.functional import gather as gather
    from .nn.functional import log as log
    from .nn.functional import log_softmax as log_softmax
    from .nn.functional import matmul as matmul
    from .nn.functional import maximum as maximum
    from .nn.functional import minimum as minimum
    from .nn.functional import one_hot as one_hot
    from .nn.functional import pairwise_distance as pairwise_distance
    from .nn.functional import relu as relu
    from .nn.functional import sigmoid as sigmoid
    from .nn.functional import softmax as softmax
    from .nn.functional import split as split
    from .nn.functional import sqrt as sqrt
    from .nn.functional import stack as stack
    from .nn.functional import tanh as tanh
    from .nn.functional import unflatten as unflatten
    from .nn.functional import where as where
    from .runtime.executable import Executable as Executable
    from .runtime.profile import profile as profile
    from .runtime.saved import load as load
    from .runtime.saved import save as save

    grad = differentiate
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
