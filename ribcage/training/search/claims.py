"""Claims: which process is working on a trial, so that the trial of a process that was killed can be resumed.

A claim is a file that its process has locked and touches every BEAT seconds. On the same machine, the lock decides: it
ends with the process, however that ends. Some network file systems do not share locks between machines, so the claim of
another machine counts as abandoned only if it has not been touched for SILENT seconds either.
"""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ribcage.runtime import files

BEAT, SILENT = 30.0, 300.0
PATIENCE = 5
"""Attempts to lock a claim."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


def machine() -> str:
    """A name of this machine since it was started; containers on it share the name and the locks."""
    with contextlib.suppress(OSError):
        return BOOT.read_text(encoding="ascii").strip()
    return platform.node()


@contextlib.contextmanager
def held(claim: Path) -> Iterator[None]:
    """Hold a claim; it is removed at the end. OSError if another process holds it."""
    with files.open_regular(claim, "a") as stream:
        for _ in range(PATIENCE):  # `is_abandoned` of another process holds the lock for a moment
            if taken := files.lock(stream.fileno(), wait=False):
                break
            time.sleep(0.05)
        if not taken:
            raise OSError(f"Another process is running {claim.stem}.")
        stream.truncate(0)
        stream.write(machine() + "\n")
        stream.flush()
        ended = threading.Event()
        thread = threading.Thread(target=_beat, args=(claim, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            claim.unlink(missing_ok=True)


def is_abandoned(claim: Path) -> bool:
    """Whether no process holds the claim any more."""
    try:
        with files.open_regular(claim, "r") as stream:
            owner = stream.read(200).strip()
            locked = files.try_lock(stream.fileno(), shared=True)
        return locked is not False and (bool(locked and owner == machine()) or _seconds_since(claim) > SILENT)
    except FileNotFoundError:
        return True


def _beat(claim: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(claim)


def _seconds_since(claim: Path) -> float:
    """Seconds since a claim was touched, by the clock of the file system."""
    probe = claim.with_name(f"{claim.name}.{os.getpid()}")
    probe.touch()
    try:
        return probe.stat().st_mtime - claim.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
