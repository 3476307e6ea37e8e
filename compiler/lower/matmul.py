"""Matrix products, of any strides and with batches: which of the ways to compute one is taken."""

from __future__ import annotations

from ..graph import Graph, Value
from ..group import Group
from ..llvm.target import Target
from ..loops import ir
from ..ops.linear import PackedMatMul
from .binding import Binding, Lowered
from .blocked_product import BlockedProduct
from .narrow_product import dots, sweeps
from .packed_product import PackedProduct
from .product import Product

# Up to so many rows a matrix is read where it is.
_DOT_ROWS = 32
_SWEPT_ROWS = 16


def lower_matmul(graph: Graph, group: Group, target: Target) -> Lowered:
    """The kernel of a matrix product and its epilogue."""
    assert group.anchor is not None
    product = Product(Binding(graph, group, target), Value(group.anchor))
    m, n = product.shape[-2:]
    size = f"product {m}x{product.depth}x{n}"
    if 0 in product.shape:
        return product.binding.finish((), size)
    if isinstance(graph.node(group.anchor).op, PackedMatMul):
        return product.binding.finish(PackedProduct(product).lower(), f"{size}, packed before")
    for side in (product, product.swap) if m <= n else (product.swap, product):
        narrow = _narrow(side)
        if narrow is not None:
            return product.binding.finish(*narrow)
    return product.binding.finish(BlockedProduct(product).lower(), f"{size}, blocked")


def _narrow(product: Product) -> tuple[ir.Block, str] | None:
    """The loops of a product of few rows, and what is to be said of them."""
    size = f"product {product.rows}x{product.depth}x{product.columns}"
    if product.right_strides[0] <= 1 and product.depth >= 4 * product.lanes:
        if product.rows <= _DOT_ROWS:
            return dots(product), f"{size}, dot products"
    if product.right_strides[1] <= 1 and product.rows <= _SWEPT_ROWS:
        return sweeps(product), f"{size}, sweeps"
    return None
