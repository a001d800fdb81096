"""Threads: the cores that a process may use, OpenMP threads that sleep while they wait, a warning on a busy machine.

OpenMP's threads spin while they wait. Beside other programs this takes cores from the thread that is still computing:
`python -m benchmarks.busy` measures the cost.
"""

import math
import os
import time
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The CPU time of a container, in microseconds per period of microseconds."""
STAT = Path("/proc/stat")
MEASURED_SECONDS = 0.25
"""Seconds over which the load is measured."""


def calm() -> None:
    """Let OpenMP threads sleep while they wait, unless the environment says otherwise. Call before torch is first
    imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "0")


def available_cores() -> int:
    """Number of cores that this process may use: those of its affinity, or fewer in a container with a quota."""
    return max(1, math.ceil(core_share()))


def core_share() -> float:
    """The same as a fraction: a container may have 1.5 cores."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        most, period = QUOTA.read_text(encoding="ascii").split()
        return min(count, int(most) / int(period))
    except (OSError, ValueError):  # no container, or "max": no quota
        return count


def advice() -> str:
    """A warning if other programs use half of the cores or more, else ""."""
    cores, busy = os.cpu_count() or 1, busy_cores()
    if cores == 1 or busy < cores / 2 or os.environ.get("OMP_NUM_THREADS") == "1":
        return ""
    free = max(1, round(cores - busy))
    return (
        f"Other programs are using about {busy:.1f} of {cores} cores, so this will take longer. To disturb them less, "
        f"set OMP_NUM_THREADS={free} and pass --threads {free}; the training itself is fastest without these limits."
    )


def busy_cores() -> float:
    """Number of cores in use while this process sleeps; 0 where the system does not report it."""
    try:
        start, before = time.monotonic(), _busy_seconds()
        time.sleep(MEASURED_SECONDS)
        return max(0.0, (_busy_seconds() - before) / (time.monotonic() - start))
    except (OSError, ValueError, IndexError):
        return 0.0


def _busy_seconds() -> float:
    """CPU seconds used on all cores since the machine started."""
    user, nice, system = map(int, STAT.read_text(encoding="ascii").split("\n")[0].split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")
