"""Threads: waiting OpenMP threads sleep, and a warning on a busy machine.

OpenMP's threads spin while they wait. Beside other programs this takes cores from the thread that is still computing:
`python -m benchmarks.busy` measures the cost.
"""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
MEASURED_SECONDS = 0.25
"""Seconds over which the load is measured."""


def calm() -> None:
    """Let OpenMP threads sleep while they wait, unless the environment says otherwise. Call before torch is first
    imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "0")


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
