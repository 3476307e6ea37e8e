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
        abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr all allclose
        amax amin aminmax any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmin
        argsort asin asinh atan atan2 atanh baddbmm bincount bitwise_and bitwise_not
        bitwise_or bitwise_xor broadcast_to bucketize cdist ceil clamp clamp_max clamp_min
        clip clone copysign corrcoef cos cosh count_nonzero cov cross cummax cummin cumprod
        cumsum deg2rad detach diag diag_embed diagflat diagonal diff dist div divide dot
        einsum eq equal erf exp2 expm1 fix flip fliplr flipud floor floor_divide fmax fmin
        fmod frac ge ger greater greater_equal gt heaviside histc hsplit hypot index_add
        index_copy index_fill index_select inner isclose isfinite isin isinf isnan isneginf
        isposinf kron kthvalue le lerp less less_equal log10 log1p log2 logaddexp logaddexp2
        logcumsumexp logical_and logical_not logical_or logical_xor logit logsumexp lt
        masked_fill matrix_power max mean median min mm moveaxis movedim msort mul multiply
        mv nan_to_num nanmean nansum narrow ne neg negative norm not_equal numel outer pdist
        permute pow prod quantile rad2deg ravel reciprocal remainder repeat_interleave
        reshape roll rot90 round rsqrt scatter scatter_add scatter_reduce searchsorted
        select select_scatter sgn sign signbit sin sinc sinh slice_scatter sort
        split_with_sizes square squeeze std std_mean sub subtract sum swapaxes swapdims t
        take take_along_dim tan tensor_split tensordot tile topk transpose tril triu
        true_divide trunc unbind unsqueeze var var_mean vdot vsplit xlogy
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
    "nn": ".nn:",
    "optim": ".optim:",
    "surgery": ".frontends.surgery:",
    "zoo": ".frontends.zoo:",
}

_EXPORTS = {name: home for home, names in _HOMES.items() for name in names.split()} | _OTHERS

__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    # The names of _EXPORTS once more, for type checkers and editors:
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
    from .frontends.nn.dtypes import bool as bool
    from .frontends.nn.dtypes import double as double
    from .frontends.nn.dtypes import float as float
    from .frontends.nn.dtypes import float32 as float32
    from .frontends.nn.dtypes import float64 as float64
    from .frontends.nn.dtypes import int as int
    from .frontends.nn.dtypes import int32 as int32
    from .frontends.nn.dtypes import int64 as int64
    from .frontends.nn.dtypes import long as long
    from .frontends.nn.dtypes import uint8 as uint8
    from .frontends.nn.functional.combine import atleast_1d as atleast_1d
    from .frontends.nn.functional.combine import atleast_2d as atleast_2d
    from .frontends.nn.functional.combine import atleast_3d as atleast_3d
    from .frontends.nn.functional.combine import block_diag as block_diag
    from .frontends.nn.functional.combine import broadcast_tensors as broadcast_tensors
    from .frontends.nn.functional.combine import cartesian_prod as cartesian_prod
    from .frontends.nn.functional.combine import chain_matmul as chain_matmul
    from .frontends.nn.functional.combine import column_stack as column_stack
    from .frontends.nn.functional.combine import combinations as combinations
    from .frontends.nn.functional.combine import dstack as dstack
    from .frontends.nn.functional.combine import hstack as hstack
    from .frontends.nn.functional.combine import meshgrid as meshgrid
    from .frontends.nn.functional.combine import row_stack as row_stack
    from .frontends.nn.functional.combine import tril_indices as tril_indices
    from .frontends.nn.functional.combine import triu_indices as triu_indices
    from .frontends.nn.functional.combine import vstack as vstack
    from .frontends.nn.functional.create import arange as arange
    from .frontends.nn.functional.create import bernoulli as bernoulli
    from .frontends.nn.functional.create import empty as empty
    from .frontends.nn.functional.create import empty_like as empty_like
    from .frontends.nn.functional.create import eye as eye
    from .frontends.nn.functional.create import full as full
    from .frontends.nn.functional.create import full_like as full_like
    from .frontends.nn.functional.create import linspace as linspace
    from .frontends.nn.functional.create import ones as ones
    from .frontends.nn.functional.create import ones_like as ones_like
    from .frontends.nn.functional.create import rand as rand
    from .frontends.nn.functional.create import rand_like as rand_like
    from .frontends.nn.functional.create import randint as randint
    from .frontends.nn.functional.create import randn as randn
    from .frontends.nn.functional.create import randn_like as randn_like
    from .frontends.nn.functional.create import tensor as tensor
    from .frontends.nn.functional.create import zeros as zeros
    from .frontends.nn.functional.create import zeros_like as zeros_like
    from .frontends.nn.functional.draw import logspace as logspace
    from .frontends.nn.functional.draw import multinomial as multinomial
    from .frontends.nn.functional.draw import normal as normal
    from .frontends.nn.functional.draw import randint_like as randint_like
    from .frontends.nn.functional.draw import randperm as randperm
    from .frontends.nn.functional.methods import abs as abs
    from .frontends.nn.functional.methods import absolute as absolute
    from .frontends.nn.functional.methods import acos as acos
    from .frontends.nn.functional.methods import acosh as acosh
    from .frontends.nn.functional.methods import add as add
    from .frontends.nn.functional.methods import addbmm as addbmm
    from .frontends.nn.functional.methods import addcdiv as addcdiv
    from .frontends.nn.functional.methods import addcmul as addcmul
    from .frontends.nn.functional.methods import addmm as addmm
    from .frontends.nn.functional.methods import addmv as addmv
    from .frontends.nn.functional.methods import addr as addr
    from .frontends.nn.functional.methods import all as all
    from .frontends.nn.functional.methods import allclose as allclose
    from .frontends.nn.functional.methods import amax as amax
    from .frontends.nn.functional.methods import amin as amin
    from .frontends.nn.functional.methods import aminmax as aminmax
    from .frontends.nn.functional.methods import any as any
    from .frontends.nn.functional.methods import arccos as arccos
    from .frontends.nn.functional.methods import arccosh as arccosh
    from .frontends.nn.functional.methods import arcsin as arcsin
    from .frontends.nn.functional.methods import arcsinh as arcsinh
    from .frontends.nn.functional.methods import arctan as arctan
    from .frontends.nn.functional.methods import arctan2 as arctan2
    from .frontends.nn.functional.methods import arctanh as arctanh
    from .frontends.nn.functional.methods import argmin as argmin
    from .frontends.nn.functional.methods import argsort as argsort
    from .frontends.nn.functional.methods import asin as asin
    from .frontends.nn.functional.methods import asinh as asinh
    from .frontends.nn.functional.methods import atan as atan
    from .frontends.nn.functional.methods import atan2 as atan2
    from .frontends.nn.functional.methods import atanh as atanh
    from .frontends.nn.functional.methods import baddbmm as baddbmm
    from .frontends.nn.functional.methods import bincount as bincount
    from .frontends.nn.functional.methods import bitwise_and as bitwise_and
    from .frontends.nn.functional.methods import bitwise_not as bitwise_not
    from .frontends.nn.functional.methods import bitwise_or as bitwise_or
    from .frontends.nn.functional.methods import bitwise_xor as bitwise_xor
    from .frontends.nn.functional.methods import broadcast_to as broadcast_to
    from .frontends.nn.functional.methods import bucketize as bucketize
    from .frontends.nn.functional.methods import cdist as cdist
    from .frontends.nn.functional.methods import ceil as ceil
    from .frontends.nn.functional.methods import clamp as clamp
    from .frontends.nn.functional.methods import clamp_max as clamp_max
    from .frontends.nn.functional.methods import clamp_min as clamp_min
    from .frontends.nn.functional.methods import clip as clip
    from .frontends.nn.functional.methods import clone as clone
    from .frontends.nn.functional.methods import copysign as copysign
    from .frontends.nn.functional.methods import corrcoef as corrcoef
    from .frontends.nn.functional.methods import cos as cos
    from .frontends.nn.functional.methods import cosh as cosh
    from .frontends.nn.functional.methods import count_nonzero as count_nonzero
    from .frontends.nn.functional.methods import cov as cov
    from .frontends.nn.functional.methods import cross as cross
    from .frontends.nn.functional.methods import cummax as cummax
    from .frontends.nn.functional.methods import cummin as cummin
    from .frontends.nn.functional.methods import cumprod as cumprod
    from .frontends.nn.functional.methods import cumsum as cumsum
    from .frontends.nn.functional.methods import deg2rad as deg2rad
    from .frontends.nn.functional.methods import detach as detach
    from .frontends.nn.functional.methods import diag as diag
    from .frontends.nn.functional.methods import diag_embed as diag_embed
    from .frontends.nn.functional.methods import diagflat as diagflat
    from .frontends.nn.functional.methods import diagonal as diagonal
    from .frontends.nn.functional.methods import diff as diff
    from .frontends.nn.functional.methods import dist as dist
    from .frontends.nn.functional.methods import div as div
    from .frontends.nn.functional.methods import divide as divide
    from .frontends.nn.functional.methods import dot as dot
    from .frontends.nn.functional.methods import einsum as einsum
    from .frontends.nn.functional.methods import eq as eq
    from .frontends.nn.functional.methods import equal as equal
    from .frontends.nn.functional.methods import erf as erf
    from .frontends.nn.functional.methods import exp2 as exp2
    from .frontends.nn.functional.methods import expm1 as expm1
    from .frontends.nn.functional.methods import fix as fix
    from .frontends.nn.functional.methods import flip as flip
    from .frontends.nn.functional.methods import fliplr as fliplr
    from .frontends.nn.functional.methods import flipud as flipud
    from .frontends.nn.functional.methods import floor as floor
    from .frontends.nn.functional.methods import floor_divide as floor_divide
    from .frontends.nn.functional.methods import fmax as fmax
    from .frontends.nn.functional.methods import fmin as fmin
    from .frontends.nn.functional.methods import fmod as fmod
    from .frontends.nn.functional.methods import frac as frac
    from .frontends.nn.functional.methods import ge as ge
    from .frontends.nn.functional.methods import ger as ger
    from .frontends.nn.functional.methods import greater as greater
    from .frontends.nn.functional.methods import greater_equal as greater_equal
    from .frontends.nn.functional.methods import gt as gt
    from .frontends.nn.functional.methods import heaviside as heaviside
    from .frontends.nn.functional.methods import histc as histc
    from .frontends.nn.functional.methods import hsplit as hsplit
    from .frontends.nn.functional.methods import hypot as hypot
    from .frontends.nn.functional.methods import index_add as index_add
    from .frontends.nn.functional.methods import index_copy as index_copy
    from .frontends.nn.functional.methods import index_fill as index_fill
    from .frontends.nn.functional.methods import index_select as index_select
    from .frontends.nn.functional.methods import inner as inner
    from .frontends.nn.functional.methods import isclose as isclose
    from .frontends.nn.functional.methods import isfinite as isfinite
    from .frontends.nn.functional.methods import isin as isin
    from .frontends.nn.functional.methods import isinf as isinf
    from .frontends.nn.functional.methods import isnan as isnan
    from .frontends.nn.functional.methods import isneginf as isneginf
    from .frontends.nn.functional.methods import isposinf as isposinf
    from .frontends.nn.functional.methods import kron as kron
    from .frontends.nn.functional.methods import kthvalue as kthvalue
    from .frontends.nn.functional.methods import le as le
    from .frontends.nn.functional.methods import lerp as lerp
    from .frontends.nn.functional.methods import less as less
    from .frontends.nn.functional.methods import less_equal as less_equal
    from .frontends.nn.functional.methods import log1p as log1p
    from .frontends.nn.functional.methods import log2 as log2
    from .frontends.nn.functional.methods import log10 as log10
    from .frontends.nn.functional.methods import logaddexp as logaddexp
    from .frontends.nn.functional.methods import logaddexp2 as logaddexp2
    from .frontends.nn.functional.methods import logcumsumexp as logcumsumexp
    from .frontends.nn.functional.methods import logical_and as logical_and
    from .frontends.nn.functional.methods import logical_not as logical_not
    from .frontends.nn.functional.methods import logical_or as logical_or
    from .frontends.nn.functional.methods import logical_xor as logical_xor
    from .frontends.nn.functional.methods import logit as logit
    from .frontends.nn.functional.methods import logsumexp as logsumexp
    from .frontends.nn.functional.methods import lt as lt
    from .frontends.nn.functional.methods import masked_fill as masked_fill
    from .frontends.nn.functional.methods import matrix_power as matrix_power
    from .frontends.nn.functional.methods import max as max
    from .frontends.nn.functional.methods import mean as mean
    from .frontends.nn.functional.methods import median as median
    from .frontends.nn.functional.methods import min as min
    from .frontends.nn.functional.methods import mm as mm
    from .frontends.nn.functional.methods import moveaxis as moveaxis
    from .frontends.nn.functional.methods import movedim as movedim
    from .frontends.nn.functional.methods import msort as msort
    from .frontends.nn.functional.methods import mul as mul
    from .frontends.nn.functional.methods import multiply as multiply
    from .frontends.nn.functional.methods import mv as mv
    from .frontends.nn.functional.methods import nan_to_num as nan_to_num
    from .frontends.nn.functional.methods import nanmean as nanmean
    from .frontends.nn.functional.methods import nansum as nansum
    from .frontends.nn.functional.methods import narrow as narrow
    from .frontends.nn.functional.methods import ne as ne
    from .frontends.nn.functional.methods import neg as neg
    from .frontends.nn.functional.methods import negative as negative
    from .frontends.nn.functional.methods import norm as norm
    from .frontends.nn.functional.methods import not_equal as not_equal
    from .frontends.nn.functional.methods import numel as numel
    from .frontends.nn.functional.methods import outer as outer
    from .frontends.nn.functional.methods import pdist as pdist
    from .frontends.nn.functional.methods import permute as permute
    from .frontends.nn.functional.methods import pow as pow
    from .frontends.nn.functional.methods import prod as prod
    from .frontends.nn.functional.methods import quantile as quantile
    from .frontends.nn.functional.methods import rad2deg as rad2deg
    from .frontends.nn.functional.methods import ravel as ravel
    from .frontends.nn.functional.methods import reciprocal as reciprocal
    from .frontends.nn.functional.methods import remainder as remainder
    from .frontends.nn.functional.methods import repeat_interleave as repeat_interleave
    from .frontends.nn.functional.methods import reshape as reshape
    from .frontends.nn.functional.methods import roll as roll
    from .frontends.nn.functional.methods import rot90 as rot90
    from .frontends.nn.functional.methods import round as round
    from .frontends.nn.functional.methods import rsqrt as rsqrt
    from .frontends.nn.functional.methods import scatter as scatter
    from .frontends.nn.functional.methods import scatter_add as scatter_add
    from .frontends.nn.functional.methods import scatter_reduce as scatter_reduce
    from .frontends.nn.functional.methods import searchsorted as searchsorted
    from .frontends.nn.functional.methods import select as select
    from .frontends.nn.functional.methods import select_scatter as select_scatter
    from .frontends.nn.functional.methods import sgn as sgn
    from .frontends.nn.functional.methods import sign as sign
    from .frontends.nn.functional.methods import signbit as signbit
    from .frontends.nn.functional.methods import sin as sin
    from .frontends.nn.functional.methods import sinc as sinc
    from .frontends.nn.functional.methods import sinh as sinh
    from .frontends.nn.functional.methods import slice_scatter as slice_scatter
    from .frontends.nn.functional.methods import sort as sort
    from .frontends.nn.functional.methods import split_with_sizes as split_with_sizes
    from .frontends.nn.functional.methods import square as square
    from .frontends.nn.functional.methods import squeeze as squeeze
    from .frontends.nn.functional.methods import std as std
    from .frontends.nn.functional.methods import std_mean as std_mean
    from .frontends.nn.functional.methods import sub as sub
    from .frontends.nn.functional.methods import subtract as subtract
    from .frontends.nn.functional.methods import sum as sum
    from .frontends.nn.functional.methods import swapaxes as swapaxes
    from .frontends.nn.functional.methods import swapdims as swapdims
    from .frontends.nn.functional.methods import t as t
    from .frontends.nn.functional.methods import take as take
    from .frontends.nn.functional.methods import take_along_dim as take_along_dim
    from .frontends.nn.functional.methods import tan as tan
    from .frontends.nn.functional.methods import tensor_split as tensor_split
    from .frontends.nn.functional.methods import tensordot as tensordot
    from .frontends.nn.functional.methods import tile as tile
    from .frontends.nn.functional.methods import topk as topk
    from .frontends.nn.functional.methods import transpose as transpose
    from .frontends.nn.functional.methods import tril as tril
    from .frontends.nn.functional.methods import triu as triu
    from .frontends.nn.functional.methods import true_divide as true_divide
    from .frontends.nn.functional.methods import trunc as trunc
    from .frontends.nn.functional.methods import unbind as unbind
    from .frontends.nn.functional.methods import unsqueeze as unsqueeze
    from .frontends.nn.functional.methods import var as var
    from .frontends.nn.functional.methods import var_mean as var_mean
    from .frontends.nn.functional.methods import vdot as vdot
    from .frontends.nn.functional.methods import vsplit as vsplit
    from .frontends.nn.functional.methods import xlogy as xlogy
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
