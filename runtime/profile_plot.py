"""A profile as a picture: the roofline with all kernels on it, and the slowest ones as bars."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.errors import UsageError
from ..compiler.files import replacing

if TYPE_CHECKING:
    from .profile import KernelProfile, Profile

ENDINGS = (".png", ".svg", ".pdf")
_COLOURS = {"forward": "#3b6ea5", "backward": "#c0603a", "update": "#5d8a4c"}
_BARS = 20


def check(path: str | Path) -> Path:
    """Whether a plot can be written there, before the work begins.

    Raises:
        UsageError: Matplotlib is not installed, or does not know the suffix.
    """
    target = Path(path)
    if target.suffix.lower() not in ENDINGS:
        raise UsageError(f"{target}: let the name end in {', '.join(ENDINGS)}")
    if find_spec("matplotlib") is None:
        raise UsageError("plots need Matplotlib, which is not installed: pip install 'quern[plot]'")
    return target


def plot(profile: Profile, path: str | Path) -> Path:
    """Writes the picture, whole or not at all.

    Raises:
        UsageError: Matplotlib is not installed, or does not know the suffix.
    """
    target = check(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    _roofline(left, profile)
    _bars(right, profile)
    figure.suptitle(f"{profile.name}: {profile.summary().splitlines()[0]}", fontsize=10)
    with replacing(target) as file:
        figure.savefig(file, format=target.suffix[1:].lower(), dpi=120)
    return target


def _roofline(axes: Any, profile: Profile) -> None:
    peak, machine = profile.peaks.float32, profile.peaks
    shown = [k for k in profile.kernels if k.flops and k.nbytes and k.seconds]
    intensities = [k.flops / k.nbytes for k in shown]
    low, high = min((0.1, *intensities)) / 2, max((100.0, *intensities)) * 2
    x = np.geomspace(low, high, 200)
    fastest = machine.bandwidth[0][1]
    axes.plot(x, np.minimum(peak, x * machine.memory) / 1e9, color="black", lw=1, label="memory")
    cached = np.minimum(peak, x * fastest) / 1e9
    axes.plot(x, cached, color="black", lw=1, ls=":", label="first-level cache")
    for phase, colour in _COLOURS.items():
        part = [(k, i) for k, i in zip(shown, intensities, strict=True) if k.phase == phase]
        if part:
            axes.scatter(
                [i for _, i in part],
                [k.flops_per_second / 1e9 for k, _ in part],
                s=[10 + 600 * profile.share(k) for k, _ in part],
                c=colour,
                alpha=0.6,
                label=phase,
            )
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="GFLOP/s")
    axes.set_title("area: share of the time", fontsize=9)
    axes.grid(alpha=0.2)
    axes.legend(fontsize=8)


def _bars(axes: Any, profile: Profile) -> None:
    kernels = profile.slowest(_BARS)
    places = np.arange(len(kernels))
    times = [1e3 * k.seconds for k in kernels]
    limits = [1e3 * k.limit for k in kernels]
    axes.barh(places, times, color=[_COLOURS.get(k.phase, "grey") for k in kernels], alpha=0.5)
    axes.barh(places, limits, height=0.25, color="black", label="limit")
    axes.set_yticks(places, [_label(k) for k in kernels], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(fontsize=8)


def _label(kernel: KernelProfile) -> str:
    return kernel.name if len(kernel.name) <= 40 else f"{kernel.name[:38]}…"
