"""Inference: batch normalisation becomes part of the convolution or linear layer before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Graph, Node, merge_origins
from ..ops.base import apply
from ..ops.conv import Conv, ConvTranspose
from ..ops.linear import Linear
from ..ops.norm import BatchNormInference
from ..rewrite import Rewriter, rewrite
from ..tensor import Tensor
from .base import Pass


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """conv(x, w) + b, normalised by (mean, var, weight, bias), as one layer with other weights:

    conv(x, w * s) + (b - mean) * s + bias, where s = weight / sqrt(var + eps) for each output
    channel. The new weights depend on parameters alone, so they are computed when the network is
    loaded, not when it runs. Graphs that update their states (training) are left alone, and so are
    layers whose result something else reads.
    """

    def apply(self, graph: Graph) -> Graph:
        return graph if graph.updates else rewrite(graph, self._rule)

    def _rule(self, rewriter: Rewriter, node: Node) -> Sequence[Tensor] | None:
        if not isinstance(node.op, BatchNormInference):
            return None
        before = rewriter.old.inputs_of(node.name)[0]
        results = (*rewriter.old.outputs.values(), *rewriter.old.updates.values())
        if len(rewriter.old.users_of(before.node)) != 1 or before in results:
            return None
        x, mean, variance, *affine = rewriter.inputs(node)
        layer = rewriter.new.producer(x.value)
        if not isinstance(layer.op, Conv | ConvTranspose | Linear):
            return None
        if isinstance(layer.op, Linear) and x.rank != 2:
            return None  # the channels are axis 1, which is not the one the layer makes
        source, w, *b = (rewriter.new.tensor(v) for v in rewriter.new.inputs_of(layer.name))
        deviation = (variance + node.op.eps).sqrt()
        scale = affine[0] / deviation if affine else 1.0 / deviation
        shift = ((b[0] - mean) if b else -mean) * scale
        shift = shift + affine[1] if affine else shift
        scaled = w * self._along_outputs(layer, scale, w)
        with rewriter.new.scope(origins=merge_origins(layer, node)):
            return [apply(layer.op, source, scaled, shift)]

    def _along_outputs(self, layer: Node, scale: Tensor, w: Tensor) -> Tensor:
        """The scale of each output channel, shaped to multiply the layer's weight."""
        if isinstance(layer.op, ConvTranspose):
            groups = layer.op.groups
            per_group = scale.reshape(groups, 1, -1, *(1,) * (w.rank - 2))
            repeated = per_group.broadcast_to(groups, w.shape[0] // groups, *per_group.shape[2:])
            return repeated.reshape(w.shape[0], w.shape[1], *(1,) * (w.rank - 2))
        return scale.reshape(-1, *(1,) * (w.rank - 1))
