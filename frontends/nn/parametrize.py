"""Weights that are computed from other parameters: `torch.nn.utils.parametrize`, and what it is
mostly for, weight and spectral normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import normalize_axis
from . import init
from .autograd import no_grad
from .container import ModuleDict, ModuleList
from .convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .eager import on_arrays
from .functional.normalization import normalize
from .module import Module
from .state import Parameter


class ParametrizationList(ModuleList):
    """What computes one weight: modules, each of what the one before gives, the first one of the
    parameters `original`, or `original0`, `original1`, ….
    """

    def __init__(self, first: Module, weight: Parameter) -> None:
        super().__init__([first])
        inverse = getattr(first, "right_inverse", None)
        found = weight.data if inverse is None else on_arrays(inverse)(weight.data)
        parts = found if isinstance(found, tuple) else (found,)
        for i, part in enumerate(parts):
            name = f"original{i}" if isinstance(found, tuple) else "original"
            data = weight.data if part is weight.data else np.array(part, weight.data.dtype)
            self.register_parameter(name, Parameter(data, weight.requires_grad))

    def forward(self) -> Tensor:
        first, *others = self
        value: Tensor = first(*self._parameters.values())
        for module in others:
            value = module(value)
        return value


@dataclass(frozen=True)
class _Parametrized:
    """How an attribute is computed when it is asked for."""

    name: str

    def __call__(self, module: Module) -> Any:
        return module.parametrizations[self.name]()


def register_parametrization(module: Module, tensor_name: str, parametrization: Module) -> Module:
    """From now on a parameter of a module is what another module makes of it.

        class Symmetric(nn.Module):
            def forward(self, x):
                return x.triu() + x.triu(1).transpose(-1, -2)

        register_parametrization(layer, "weight", Symmetric())

    What is learned is `module.parametrizations.weight.original`, at first the parameter itself, or
    what a method `right_inverse` of the parametrization makes of it; several arrays are
    `original0`, `original1`, …. Another parametrization of the same parameter reads what the one
    before gives.

    Returns:
        The module.

    Raises:
        UsageError: there is no such parameter.
    """
    if is_parametrized(module, tensor_name):
        module.parametrizations[tensor_name].append(parametrization)
        return module
    weight = module._parameters.get(tensor_name)
    if weight is None:
        have = ", ".join(module._parameters) or "none"
        raise UsageError(f"{type(module).__name__} has no parameter {tensor_name!r}; it has {have}")
    parts = ParametrizationList(parametrization, weight)
    del module._parameters[tensor_name]
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = parts
    module.compute_attribute(tensor_name, _Parametrized(tensor_name))
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether one parameter of a module, or any, is computed by parametrizations."""
    parts = module._modules.get("parametrizations")
    return parts is not None and (tensor_name is None or tensor_name in parts._modules)


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """A parameter is one of its own again: as computed last, or as it is learned.

    Returns:
        The module.

    Raises:
        UsageError: it is not parametrized, or consists of several.
    """
    if not is_parametrized(module, tensor_name):
        raise UsageError(f"{tensor_name} of {type(module).__name__} is not parametrized")
    parts = module.parametrizations[tensor_name]
    originals = list(parts._parameters.values())
    if not leave_parametrized and len(originals) > 1:
        raise UsageError(f"{tensor_name} consists of {len(originals)}; leave it parametrized")
    data = np.array(getattr(module, tensor_name)) if leave_parametrized else originals[0].data
    module.compute_attribute(tensor_name, None)
    module.register_parameter(tensor_name, Parameter(data, originals[0].requires_grad))
    del module.parametrizations._modules[tensor_name]
    if not len(module.parametrizations):
        del module.parametrizations
    return module


# -- weight normalisation -------------------------------------------------------------------------


class _WeightNorm(Module):
    """v * g / |v| (Salimans and Kingma, Weight normalization, 2016).

    Arguments:
        dim: there is a norm for each place of this axis; None: one for all.
    """

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def _norm(self, v: Tensor) -> Tensor:
        if self.dim is None:
            return v.norm()
        axis = normalize_axis(self.dim, v.rank)
        return v.norm(2, tuple(d for d in range(v.rank) if d != axis), keepdim=True)

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / self._norm(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Norms, and the weight itself."""
        return self._norm(weight), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """A weight as length and direction, `original0` and `original1` (Salimans and Kingma, 2016).

    Arguments:
        dim: there is a length for each place of this axis; None: one for all.
    """
    return register_parametrization(module, name, _WeightNorm(dim))


# -- spectral normalisation -----------------------------------------------------------------------


class _SpectralNorm(Module):
    """The weight divided by its largest singular value, which a step of the power iteration in each
    training step follows (Miyato et al., Spectral normalization, 2018).
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Parameter, steps: int, dim: int, eps: float) -> None:
        super().__init__()
        self.n_power_iterations = steps
        self.dim = normalize_axis(dim, weight.rank)
        self.eps = eps
        matrix = np.moveaxis(weight.data, self.dim, 0).reshape(weight.shape[self.dim], -1)
        u, v = (init.normal_(np.empty(n, np.float32)) for n in matrix.shape)
        for _ in range(15):
            u = matrix @ v / max(np.linalg.norm(matrix @ v), eps)
            v = matrix.T @ u / max(np.linalg.norm(matrix.T @ u), eps)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weight.movedim(self.dim, 0).flatten(1)
        u, v = self._u, self._v
        if self.training:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    u = normalize(matrix @ v, dim=0, eps=self.eps)
                    v = normalize(matrix.t() @ u, dim=0, eps=self.eps)
            self._u, self._v = u, v
        largest = (u.detach() * (matrix @ v.detach())).sum()
        return weight / largest


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """A weight divided by its largest singular value (Miyato et al., 2018).

    Arguments:
        n_power_iterations: steps that follow the singular value in each training step.
        eps: the least norm that is divided by.
        dim: axis of the outputs; 0 by default, 1 for transposed convolutions.
    """
    weight = getattr(module, name)
    if not isinstance(weight, Parameter):
        raise UsageError(f"{name} of {type(module).__name__} is no parameter of its own")
    transposed = ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
    axis = dim if dim is not None else int(isinstance(module, transposed))
    return register_parametrization(
        module, name, _SpectralNorm(weight, n_power_iterations, axis, eps)
    )
