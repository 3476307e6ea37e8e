"""How much of the machine this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cpus() -> int:
    """Processors to keep busy: those this process may run on (its affinity), or its control groups'
    CPU quota, rounded up, where that is less.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return max(1, math.ceil(min(processors, cpu_quota())))


def cpu_quota(root: Path = Path("/")) -> float:
    """CPUs' worth of time that the process's control groups allow; infinity without a limit.

    Reads cgroup v1 and v2 at their usual mount points below `root`. A group is also bound by the
    groups that contain it, and in a container the path the kernel reports may lie outside of what
    is mounted: so every level up to the mount point counts, as far as it exists.
    """
    return min((quota for group in _groups(root) for quota in _quotas(group)), default=math.inf)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the process's CPU control groups and of all groups around them."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mounts = [mounted, mounted / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [mounted / controllers, mounted / "cpu"]
        else:
            continue
        inside = PurePosixPath(group.lstrip("/"))
        for mount in mounts:
            yield from (mount / level for level in [inside, *inside.parents])


def _quotas(group: Path) -> Iterator[float]:
    """The limits one control group sets: version 2's `cpu.max`, version 1's two files."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((group / file).read_text() for file in files).split()
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue  # no such limit here, or written in a way this version does not know
