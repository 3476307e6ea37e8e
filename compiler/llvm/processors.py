"""How many processors this process may use, and what they share."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


def usable_cpus() -> int:
    """Cores this process may use: its affinity, and the CPU quota of its control group."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    return max(1, math.ceil(min(count, _cpu_quota())))


def last_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the last level of this machine's caches; 0 where nobody tells (only Linux does).

    Arguments:
        folder: has `index0/size` and so on, with contents such as "32768K".
    """
    sizes = [0]
    for file in folder.glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(file.read_text().strip().removesuffix("K")) << 10)
    return max(sizes)


def _cpu_quota() -> float:
    """CPUs that the control groups of this process (version 2 or 1) allow; inf for no limit."""
    root = Path("/sys/fs/cgroup")
    quota = math.inf
    with suppress(OSError, StopIteration):
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        group = next(line[3:] for line in groups if line.startswith("0::"))
        folder = root / group.strip("/")
        while root in (folder, *folder.parents):  # a limit binds all groups below it
            with suppress(OSError, ValueError):  # "max": no limit
                limit, period = (folder / "cpu.max").read_text().split()
                quota = min(quota, int(limit) / int(period))
            folder = folder.parent
    with suppress(OSError, ValueError):
        limit = (root / "cpu/cpu.cfs_quota_us").read_text()
        period = (root / "cpu/cpu.cfs_period_us").read_text()
        if int(limit) > 0:
            quota = min(quota, int(limit) / int(period))
    return quota
