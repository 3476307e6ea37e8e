"""Symbolic tensors: a value of a graph on which arithmetic builds nodes.

Gradient rules, composites and the modules of the front end are all written with it. `handle.py` has
the class; the functions that are its methods lie beside it, by family.
"""

from __future__ import annotations

from .handle import Tensor
from .pointwise import choose
from .promotion import Scalar, as_float, promote

__all__ = ["Scalar", "Tensor", "as_float", "choose", "promote"]
