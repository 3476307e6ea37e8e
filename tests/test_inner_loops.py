"""Inner loops of hot kernels, on every target, as the compiler leaves them: read, not timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from inner_loops import InnerLoop, inner_loops

import quern as qn
from quern import nn
from quern.compiler.driver import Options, lower_groups, prepare
from quern.compiler.graph import Graph
from quern.compiler.llvm.codegen import assembly
from quern.compiler.llvm.emit import emit
from quern.compiler.llvm.target import Target
from quern.compiler.report import Report

LEVELS = {"sse": "xmm", "avx2": "ymm", "avx512": "zmm"}


def convolution(
    channels: tuple[int, int], extent: int, kernel: int, stride: int = 1, groups: int = 1
) -> Graph:
    conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups)
    return qn.trace(nn.Sequential(conv, nn.ReLU()), qn.spec(1, channels[0], extent, extent))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "7x7/2, 3 channels": lambda: convolution((3, 64), 56, 7, 2),
    "3x3": lambda: convolution((64, 64), 14, 3),
    "3x3/2": lambda: convolution((64, 64), 28, 3, 2),
    "3x3, Winograd": lambda: convolution((64, 64), 56, 3),
    "3x3, Winograd, sums in parts": lambda: convolution((256, 128), 56, 3),
    "1x1": lambda: convolution((256, 64), 14, 1),
    "1x1, 49 pixels": lambda: convolution((256, 128), 7, 1),
    "depthwise": lambda: convolution((64, 64), 56, 3, 1, 64),
    "product": lambda: qn.trace(nn.Linear(256, 512), qn.spec(64, 256)),
    "LSTM": lambda: qn.trace(nn.LSTM(64, 64), qn.spec(20, 32, 64)),
}


def assembled(graph: Graph, level: str) -> Iterator[str]:
    """The assembly of each kernel."""
    options = Options(Target.named(level))
    for placed in lower_groups(prepare(graph, options, Report()).main, options, Report()).kernels:
        for routine in placed.routines:
            yield assembly(emit(routine.kernel, options.target).ir, options.target)


@cache
def hot(name: str, level: str) -> tuple[InnerLoop, ...]:
    """The inner loop that multiplies most in each kernel, but for those that divide: gates."""
    found = []
    for text in assembled(NETWORKS[name](), level):
        loops = [x for x in inner_loops(text) if x.products >= 8 and not x.divides]
        found += [max(loops, key=lambda loop: loop.products)] if loops else []
    return tuple(found)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NETWORKS)
def test_sums_stay_in_registers(name: str, level: str) -> None:
    """But for a few of full tiles; without multiply-adds some products go to the stack, too."""
    loops = hot(name, level)
    few = 2 if level == "sse" else 16
    assert loops
    assert [loop for loop in loops if loop.spills > loop.products // few] == []


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_are_as_wide_as_registers(name: str, level: str) -> None:
    """No product is cut in halves: all are of the widest registers."""
    for loop in hot(name, level):
        assert loop.wide_products(LEVELS[level]) == loop.products


@pytest.mark.parametrize("name", ["3x3", "1x1", "1x1, 49 pixels", "3x3, Winograd", "product"])
def test_a_number_is_loaded_once_for_two_vectors(name: str) -> None:
    for level in ("avx2", "avx512"):
        for loop in hot(name, level):
            assert loop.count("vbroadcastss") * 2 == loop.products


def test_32_registers_are_used() -> None:
    for name in ("3x3/2", "1x1", "1x1, 49 pixels", "3x3, Winograd", "product"):
        for loop in hot(name, "avx512"):
            assert len(loop.registers("zmm")) > 24


@pytest.mark.parametrize(("level", "columns"), [("sse", 7), ("avx2", 15), ("avx512", 31)])
def test_columns_that_fill_no_two_vectors_are_not_taken_apart(level: str, columns: int) -> None:
    """They are a vector and part of one: adding a row takes some loads and an addition each."""
    (text,) = assembled(qn.trace(lambda x: x.sum(0), qn.spec(512, columns)), level)
    adding = [loop for loop in inner_loops(text) if loop.count("vaddps") + loop.count("addps")]
    assert adding
    for loop in adding:
        assert len(loop.lines) < 16


@pytest.mark.parametrize("level", LEVELS)
def test_inner_loops_begin_a_cache_line(level: str) -> None:
    for text in assembled(NETWORKS["LSTM"](), level):
        for loop in inner_loops(text):
            assert not loop.products or f".p2align\t6\n{loop.lines[0]}\n" in text
