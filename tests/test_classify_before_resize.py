"""1×1 convolutions of resized maps are done before resizing: the same numbers for less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quern as qn
from quern import nn
from quern.compiler.autodiff import differentiate
from quern.compiler.driver import Options, optimize, standard_passes
from quern.compiler.evaluate import evaluate
from quern.compiler.flops import graph_flops
from quern.compiler.graph import Graph
from quern.compiler.ops.conv import Conv
from quern.compiler.ops.movement import Concat
from quern.compiler.ops.resize import Resize
from quern.compiler.passes.classify_before_resize import ClassifyBeforeResize
from quern.compiler.report import Report
from quern.compiler.rewrite import rewrite
from quern.compiler.tensor import Tensor
from quern.compiler.training import build_training_step
from quern.frontends.nn.init import skipped
from quern.frontends.zoo.hypercolumns import Hypercolumns, ResizedPredictions
from quern.nn import functional as F
from quern.optim import SGD

PASS = ClassifyBeforeResize()


class Columns(nn.Module):
    """Maps of three sizes, each pixel's column classified."""

    def __init__(self, classes: int, mode: str, kernel: int = 1, channels: int = 7) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1)
        self.second = nn.Conv2d(5, channels, 3, stride=2, padding=1)
        self.score = nn.Conv2d(5 + channels, classes, kernel, padding=kernel // 2)
        self.mode = mode

    def forward(self, image: Tensor) -> Tensor:
        large = self.first(image)
        small = F.interpolate(self.second(large), large.shape[2:], mode=self.mode)
        scores: Tensor = self.score(F.cat([large, small], 1))
        return scores


def kinds(graph: Graph) -> list[str]:
    live = [n for n in graph.nodes() if n.name in graph.live()]
    return [n.op.name for n in live if isinstance(n.op, Conv | Resize | Concat)]


@settings(deadline=None, max_examples=12)
@given(
    st.integers(1, 4), st.sampled_from(["bilinear", "bicubic"]), st.integers(4, 9), st.integers()
)
def test_numbers_stay_and_operations_fall(classes: int, mode: str, extent: int, seed: int) -> None:
    rng = np.random.default_rng(abs(seed))
    x = rng.standard_normal((2, 2, extent, extent + 1))
    graph = qn.trace(Columns(classes, mode).eval().to("float64"), x)
    after = PASS.apply(graph)
    np.testing.assert_allclose(qn.interpret(after, x), qn.interpret(graph, x), atol=1e-12)
    assert kinds(after) == ["Conv", "Conv", "Conv", "Conv", "Resize"]
    assert graph_flops(rewrite(after)) < graph_flops(graph)


def test_the_first_form_of_hypercolumns_becomes_the_second() -> None:
    with skipped():
        first, second = Hypercolumns(21).eval(), ResizedPredictions(21).eval()
    image = qn.spec(1, 3, 224, 224)
    after = PASS.apply(qn.trace(first, image))
    assert kinds(after).count("Concat") == 0
    wanted = graph_flops(qn.trace(second, image))
    assert graph_flops(rewrite(after)) == pytest.approx(wanted, rel=1e-4)
    assert graph_flops(qn.trace(first, image)) > 1.25 * wanted


@pytest.mark.parametrize(
    "module",
    [Columns(3, "bilinear", kernel=3), Columns(40, "bilinear", channels=1)],
    ids=["neighbours count", "more classes than channels"],
)
def test_what_does_not_commute_or_does_not_pay_is_left_alone(module: nn.Module) -> None:
    graph = qn.trace(module.eval(), qn.spec(1, 2, 6, 6))
    assert kinds(PASS.apply(graph)) == kinds(graph)


def test_maps_that_are_read_elsewhere_are_left_alone() -> None:
    module = Columns(2, "bilinear")

    def both(image: Tensor) -> tuple[Tensor, Tensor]:
        up = F.interpolate(module.second(module.first(image)), (6, 6), mode="bilinear")
        return F.conv2d(up, module.score.weight[:, :7]), up

    graph = qn.trace(both, qn.spec(1, 2, 6, 6), training=False)
    assert kinds(PASS.apply(graph)) == kinds(graph)


def test_training_goes_by_the_second_form_too() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 2, 8, 9))
    graph = qn.trace(Columns(2, "bilinear").train().to("float64"), x)
    y = graph.tensor(graph.outputs["output"])
    graph.outputs = {"loss": (y * y).mean().value}
    step = build_training_step(graph, "loss", SGD(1.0))
    # Not even the backward graph has columns: no sum over the pixels of the image but of scores.
    assert kinds(step).count("Concat") == 0
    state = {**graph.data, "image": x}
    plain = evaluate(differentiate(graph, "loss"), state).outputs
    moved = evaluate(step, {"image": x}).updates
    for name in ("first.weight", "second.bias", "score.weight", "score.bias"):
        np.testing.assert_allclose(
            moved[name], state[name] - plain[f"grad.{name}"], atol=1e-12, err_msg=name
        )


def test_every_compiled_network_goes_by_it() -> None:
    graph = qn.trace(Columns(2, "bilinear").eval(), qn.spec(1, 2, 8, 9))
    assert kinds(optimize(graph, Options(passes=standard_passes()), Report())).count("Concat") == 0
