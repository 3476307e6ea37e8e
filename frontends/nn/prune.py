"""Weights of which some stay 0: `torch.nn.utils.prune`.

The parameter `weight` becomes `weight_orig`, the buffer `weight_mask` has 0 where it is pruned, and
`weight` is their product whenever it is read. Pruning again prunes of what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...compiler.errors import ShapeError, UsageError
from ...compiler.types import Array, normalize_axis
from . import init
from .context import current_trace
from .module import Module
from .state import Buffer, Parameter

Amount: TypeAlias = int | float
Scores: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class _Pruned:
    """How an attribute is computed when it is asked for."""

    name: str

    def __call__(self, module: Module) -> Any:
        kept, mask = (getattr(module, f"{self.name}_{part}") for part in ("orig", "mask"))
        return kept.data * mask.data if current_trace() is None else kept * mask


def is_pruned(module: Module) -> bool:
    """Whether parameters of a module, or of those in it, are pruned."""
    return any(
        name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in m._parameters
        for m in module.modules()
        for name in m._buffers
    )


def custom_from_mask(module: Module, name: str, mask: object) -> Module:
    """Prunes where a mask is 0. Returns the module, as all that prune do.

    Raises:
        UsageError: there is no such parameter.
        ShapeError: the mask has another shape.
    """
    whole = _original(module, name)
    found = np.asarray(mask).astype(whole.data.dtype)
    if found.shape != whole.shape:
        raise ShapeError(f"{name} is {whole.type}, the mask has the shape {found.shape}")
    if f"{name}_mask" in module._buffers:
        module.get_buffer(f"{name}_mask").data *= found
        return module
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", whole)
    module.register_buffer(f"{name}_mask", Buffer(found))
    module.compute_attribute(name, _Pruned(name))
    return module


def identity(module: Module, name: str) -> Module:
    """Prunes nothing, but has what a pruned parameter has."""
    return custom_from_mask(module, name, np.ones(_original(module, name).shape))


def l1_unstructured(module: Module, name: str, amount: Amount) -> Module:
    """Prunes the smallest elements.

    Arguments:
        amount: a share of those that are left, or how many.
    """
    global_unstructured([(module, name)], l1_unstructured, amount)
    return module


def random_unstructured(module: Module, name: str, amount: Amount) -> Module:
    """Prunes elements by chance; amounts are as of `l1_unstructured`."""
    global_unstructured([(module, name)], random_unstructured, amount)
    return module


def ln_structured(module: Module, name: str, amount: Amount, n: float, dim: int) -> Module:
    """Prunes whole places of an axis, such as channels: those of the smallest norm.

    Arguments:
        amount: a share of the places that are left, or how many.
        n: of the norm.
        dim: the axis.
    """

    def norms(rows: Array) -> Array:
        return np.asarray(np.linalg.norm(rows, n, axis=1))

    return _structured(module, name, amount, dim, norms)


def random_structured(module: Module, name: str, amount: Amount, dim: int) -> Module:
    """Prunes whole places of an axis by chance; amounts are as of `ln_structured`."""
    return _structured(module, name, amount, dim, lambda rows: _chance(rows[:, 0]))


def global_unstructured(
    parameters: Iterable[tuple[Module, str]], pruning_method: Callable[..., Any], amount: Amount
) -> None:
    """Prunes elements of several parameters together.

    Arguments:
        parameters: modules and names of their parameters.
        pruning_method: `l1_unstructured` or `random_unstructured`, or PyTorch's names of classes,
            `L1Unstructured` and `RandomUnstructured`.
        amount: a share of the elements that are left, or how many.

    Raises:
        UsageError: it is another method, or so much cannot be pruned.
    """
    scores: Mapping[object, Scores] = {l1_unstructured: np.abs, random_unstructured: _chance}
    if pruning_method not in scores:
        raise UsageError(
            f"{pruning_method!r} prunes no parameters together; give l1_unstructured or "
            "random_unstructured of this module"
        )
    listed = list(parameters)
    wholes = [(_original(m, name), _mask(m, name)) for m, name in listed]
    flat = np.concatenate([scores[pruning_method](w.data).reshape(-1) for w, _ in wholes])
    kept = _kept(flat, np.concatenate([mask.reshape(-1) for _, mask in wholes]), amount)
    ends = np.cumsum([mask.size for _, mask in wholes])[:-1]
    for (module, name), part in zip(listed, np.split(kept, ends), strict=True):
        custom_from_mask(module, name, part.reshape(_mask(module, name).shape))


L1Unstructured = l1_unstructured
RandomUnstructured = random_unstructured


def remove(module: Module, name: str) -> Module:
    """A pruned parameter is one of its own again, with the zeros that it has.

    Raises:
        UsageError: it is not pruned.
    """
    if f"{name}_mask" not in module._buffers:
        raise UsageError(f"{name} of {type(module).__name__} is not pruned")
    whole = _original(module, name)
    whole.data = getattr(module, name)
    module.compute_attribute(name, None)
    delattr(module, f"{name}_orig")
    delattr(module, f"{name}_mask")
    module.register_parameter(name, whole)
    return module


def _original(module: Module, name: str) -> Parameter:
    found = module._parameters.get(f"{name}_orig", module._parameters.get(name))
    if found is None:
        have = ", ".join(module._parameters) or "none"
        raise UsageError(f"{type(module).__name__} has no parameter {name!r}; it has {have}")
    return found


def _mask(module: Module, name: str) -> Array:
    """1 where elements are left."""
    mask = module._buffers.get(f"{name}_mask")
    return np.ones(_original(module, name).shape) if mask is None else mask.data


def _chance(like: Array) -> Array:
    return init.uniform_(np.empty(like.shape))


def _kept(scores: Array, mask: Array, amount: Amount) -> Array:
    """1 where elements of a vector are kept: all that are left but those of the lowest scores."""
    left = np.flatnonzero(mask)
    count = round(amount * len(left)) if isinstance(amount, float) else amount
    if not 0 <= count <= len(left) or (isinstance(amount, float) and amount > 1):
        raise UsageError(f"{amount} of {len(left)} cannot be pruned; give a share or fewer")
    kept = np.ones(mask.shape)
    kept[left[np.argsort(scores[left], kind="stable")[:count]]] = 0
    return kept


def _structured(module: Module, name: str, amount: Amount, dim: int, scores: Scores) -> Module:
    whole, mask = _original(module, name), _mask(module, name)
    axis = normalize_axis(dim, whole.rank)
    rows = np.moveaxis(whole.data * mask, axis, 0).reshape(whole.shape[axis], -1)
    left = np.asarray(np.moveaxis(mask, axis, 0).reshape(rows.shape).any(1))
    kept = _kept(scores(rows), left, amount)
    shape = tuple(-1 if d == axis else 1 for d in range(whole.rank))
    return custom_from_mask(module, name, np.broadcast_to(kept.reshape(shape), whole.shape))
