"""A small training as a command, stopping it at a step, and bitwise comparison of states."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch

from ribcage import cli


def equal(one: Any, other: Any) -> bool:
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        return bool(one.dtype == other.dtype and torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def stopped(arguments: list[str], out: Path, after: int) -> int:
    """Run a command and ask it to stop once so many steps are in its log; its exit code."""

    def ask() -> None:
        log = out / "metrics.jsonl"
        while not log.exists() or log.read_text(encoding="utf-8").count("\n") < after:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    usual = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # where it comes too late, nothing must happen
    try:
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        code = cli.main(arguments)
        asking.join()
    finally:
        signal.signal(signal.SIGTERM, usual)
    return code


def words(data: Path | str, out: Path, *more: str) -> list[str]:
    plain = [
        "finetune",
        "--data",
        str(data),
        "--out",
        str(out),
        "--model",
        "test_resnet",
        "--size",
        "32",
        "--batch",
        "16",
    ]
    return [*plain, "--epochs", "2", "--threads", "1", "--precision", "float32", *more]
