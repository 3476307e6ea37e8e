"""Batch norm becomes part of the layer before, where that is right."""

from __future__ import annotations

import numpy as np
import pytest
from passes import F, kinds, live, same

import quern as qn
from quern import nn
from quern.compiler.driver import Options, optimize
from quern.compiler.graph import Graph
from quern.compiler.ops.base import apply
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.leaf import Input
from quern.compiler.ops.norm import BatchNormInference
from quern.compiler.passes.batchnorm import FoldBatchNorm
from quern.compiler.passes.expand import Expand
from quern.compiler.passes.hoist import hoist
from quern.compiler.report import Report
from quern.compiler.tensor import Tensor
from quern.compiler.types import TensorType


def layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """What batch normalisation is folded into, and the shape of its input."""
    return {
        "convolution": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 5)),
        "without bias": (nn.Conv2d(3, 4, 3, bias=False), (2, 3, 5, 5)),
        "in groups": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
        "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
        "over one axis": (nn.Conv1d(3, 4, 3), (2, 3, 7)),
        "over three axes": (nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3)),
        "transposed": (nn.ConvTranspose2d(3, 4, 3, stride=2), (2, 3, 4, 4)),
        "transposed in groups": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), (2, 4, 4, 4)),
        "linear": (nn.Linear(5, 4), (3, 5)),
        "linear without bias": (nn.Linear(5, 4, bias=False), (3, 5)),
    }


def norm_of(graph_channels: int, rank: int, affine: bool) -> nn.Module:
    """A batch norm with random statistics and weights, in inference."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    norm = kind(graph_channels, affine=affine)
    rng = np.random.default_rng(8)
    norm.load_state_dict(
        {k: (rng.random(v.shape) + 0.5).astype(v.dtype) for k, v in norm.state_dict().items()}
    )
    return norm


def normalised(layer: nn.Module, shape: tuple[int, ...], affine: bool = True) -> Graph:
    """The graph of a layer and a batch norm behind it."""
    channels = qn.trace(layer, qn.spec(*shape))
    rank = channels.type_of(channels.outputs["output"]).rank
    count = channels.type_of(channels.outputs["output"]).shape[1]
    return qn.trace(nn.Sequential(layer, norm_of(count, rank, affine)).eval(), qn.spec(*shape))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", layers())
def test_batch_norm_becomes_part_of_the_layer_before(name: str, affine: bool) -> None:
    qn.manual_seed(1)
    layer, shape = layers()[name]
    graph = normalised(layer, shape, affine)
    assert "BatchNormInference" in kinds(graph)
    after = FoldBatchNorm().apply(graph)
    x = np.random.default_rng(2).standard_normal(shape).astype(F)
    (given_name,) = (n.name for n in graph.leaves(Input))
    same(graph, after, {given_name: x}, rtol=2e-5)
    assert "BatchNormInference" not in kinds(after)
    node = after.producer(after.outputs["output"])
    assert type(node.op) is type(live(graph)[0])
    assert [o.name for o in node.origins] == ["0", "1"]
    main = hoist(optimize(graph, Options(), Report())).main
    per_output = [k for k in kinds(main) if k in ("Multiply", "Divide", "Sqrt", "Subtract")]
    assert per_output == [], "what depends on parameters alone is prepared"


def test_batch_norm_over_the_rows_of_a_linear_layer_is_kept() -> None:
    """Behind (N, L, C) its channels are L; here as many as C, which must not be confused."""
    layer = nn.Linear(5, 4)
    graph = normalised(layer, (3, 4, 5))
    assert "BatchNormInference" in kinds(FoldBatchNorm().apply(graph))


def test_batch_norm_is_kept_where_something_else_reads_the_layer() -> None:
    conv, norm = nn.Conv2d(3, 4, 1), norm_of(4, 4, True)

    def both(x: Tensor) -> Tensor:
        y = conv(x)
        return norm(y) + y

    def shown(x: Tensor) -> tuple[Tensor, Tensor]:
        y = conv(x)
        return norm(y), y

    for function in (both, shown):
        graph = qn.trace(function, qn.spec(1, 3, 2, 2), training=False)
        assert "BatchNormInference" in kinds(FoldBatchNorm().apply(graph))


def test_batch_norm_is_kept_where_states_are_updated() -> None:
    graph = normalised(*layers()["convolution"])
    counter = graph.buffer(np.float32(0), "counter")
    graph.updates["counter"] = (counter + 1.0).value
    assert FoldBatchNorm().apply(graph) is graph


def test_batch_norm_with_statistics_that_are_inputs() -> None:
    """They are folded as well, but the weights are then made in every run."""
    graph = Graph()
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 3, 4, 4)).astype(F)}
    x = graph.input(TensorType((2, 3, 4, 4)), "x")
    w = graph.parameter(rng.standard_normal((5, 3, 1, 1)).astype(F), "w")
    names = ("mean", "variance", "weight", "bias")
    given_values = [graph.input(TensorType((5,)), n) for n in names]
    feeds |= {n: (rng.random(5) + 0.5).astype(F) for n in names}
    y = apply(Conv((1, 1), ((0, 0), (0, 0)), (1, 1)), x, w)
    graph.outputs["y"] = apply(BatchNormInference(), y, *given_values).value
    after = FoldBatchNorm().apply(graph)
    same(graph, after, feeds, rtol=2e-5)
    prepared = hoist(Expand().apply(after))
    assert prepared.preparation is None
