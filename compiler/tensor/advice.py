"""What to write in place of attributes that PyTorch's tensors have, and these cannot."""

from __future__ import annotations

_SEE = "return it from forward, or call the compiled network, to see its numbers"
_SHAPE = "its shape would depend on data; use where(mask, a, b), masked_fill or topk"
_HOOK = (
    "qn.autograd.grad(y, x) gives the gradient; to change it, pass the tensor through a "
    "qn.autograd.Function"
)

_ADVICE = {
    "backward": "a qn.Trainer takes gradients, and qn.grad(graph) and qn.autograd.grad(y, x) do",
    "grad": "qn.grad(graph) and qn.autograd.grad(y, x) give gradients",
    "retain_grad": "qn.autograd.grad(y, x) gives the gradient by any tensor",
    "register_hook": _HOOK,
    "cuda": "networks run on the CPU",
    "numpy": _SEE,
    "tolist": _SEE,
    "data": "detach() has the same values without a gradient",
    "nonzero": _SHAPE,
    "masked_select": _SHAPE,
    "unique": _SHAPE,
    "argwhere": _SHAPE,
}


def advice(kind: type, name: str) -> str:
    """What is said to whoever asks for an attribute that a kind of tensors does not have."""
    plain = name.removesuffix("_")
    if plain != name and not name.startswith("_") and hasattr(kind, plain):
        return f"tensors do not change, there is no {name}; write x = x.{plain}(…)"
    found = _ADVICE.get(name)
    return f"a tensor of a network has no {name!r}" + (f": {found}" if found else "")
