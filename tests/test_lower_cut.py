"""How much of a convolution a task takes."""

from __future__ import annotations

import pytest

from quern.compiler.lower.cut import Work


def pointwise(channels: int, pixels: int = 49, outputs: int = 512) -> Work:
    """A 1x1 convolution of float32, in units of 8 channels and panels of 16."""
    blocks = -(-pixels // 5)
    return Work(
        rows=blocks,
        panels=outputs // 16,
        units=channels // 8,
        others=1,
        cycles=lambda band: band * 5 * channels,
        input=lambda band: band * 5 * 8 * 4,
        weights=8 * 16 * 4,
        products=8,
        sums=lambda band: band * 5 * 16 * 4,
        copied=False,
        kept=False,
        own_input=False,
    )


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_sums_whose_input_stays_in_cache_are_summed_at_once(channels: int) -> None:
    cut = pointwise(channels).cut()
    assert cut is not None
    assert cut.units == channels // 8


def test_weights_of_sums_in_parts_stay_in_the_first_level_cache() -> None:
    cut = pointwise(2048).cut()
    assert cut is not None
    assert cut.units * 8 == 128


def test_nobody_waits_long_for_the_last_task() -> None:
    """The more there is to do, the more tasks there are, until they are too short to begin."""
    whole = pointwise(512, pixels=196, outputs=1024)
    cut = whole.cut()
    assert cut is not None
    tasks = -(-whole.rows // cut.rows) * -(-whole.panels // cut.panels)
    assert 32 <= tasks < whole.rows * whole.panels / 4
