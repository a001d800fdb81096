"""Threads: those that compute sleep while they wait, and a busy machine is pointed out.

OpenMP's threads wait for each other by spinning. Beside other programs this takes the cores from the thread that is
waited for: `python -m benchmarks.busy` measures what it costs.
"""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
LOOK = 0.25
"""Seconds for which the machine is watched."""


def calm() -> None:
    """Let threads sleep when they wait, unless the environment says otherwise; before torch is first imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "0")


def advice() -> str:
    """What to know and to do where others keep half of the cores or more busy; empty where they do not."""
    cores, busy = os.cpu_count() or 1, busy_cores()
    if cores == 1 or busy < cores / 2 or os.environ.get("OMP_NUM_THREADS") == "1":
        return ""
    return (
        f"Other programs keep about {busy:.1f} of {cores} cores busy, so this takes longer. "
        "With OMP_NUM_THREADS=1 it is often no slower, and disturbs them less."
    )


def busy_cores() -> float:
    """How many cores compute while this process sleeps; 0 where the system does not tell."""
    try:
        start, before = time.monotonic(), _busy_seconds()
        time.sleep(LOOK)
        return max(0.0, (_busy_seconds() - before) / (time.monotonic() - start))
    except (OSError, ValueError, IndexError):
        return 0.0


def _busy_seconds() -> float:
    """Seconds in which any core computed, since the machine started."""
    user, nice, system = map(int, STAT.read_text(encoding="ascii").split("\n")[0].split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")
