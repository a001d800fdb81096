"""Start-up time of each help page, compared with a bare interpreter, importing torch, and two command-line libraries.

    python benchmarks/start.py [--rounds 5]

The commands alternate, each in a separate process, with byte-code caches enabled. The table has medians of the
wall-clock time and of the processor time (user and system), which depends less on other load. tyro and cyclopts are
measured, if installed, with a script that has six options."""

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import time

from ribcage import cli

SIX = (
    "data: tuple[str, ...] = ()",
    "out: str = 'runs/x'",
    "epochs: int = 10",
    "lr: float = 0.1",
    "seed: int = 0",
    "resume: bool = False",
)
LIBRARIES = {
    "tyro": f"import tyro\ndef main(*, {', '.join(SIX)}) -> None:\n    pass\ntyro.cli(main, args=['--help'])",
    "cyclopts": f"import cyclopts\ndef main(*, {', '.join(SIX)}) -> None:\n    pass\napp = cyclopts.App()\n"
    "app.default(main)\napp(['--help'])",
}
"""Help of the same six options by a library."""


def ways() -> dict[str, list[str]]:
    """What is timed → the words after the interpreter."""
    found = {"python without imports": ["-c", "pass"], "ribcage --help": ["-m", "ribcage", "--help"]}
    for words in (*((name,) for name in cli.command_names()), ("pretrain", "moco"), ("import", "nih")):
        found[f"ribcage {' '.join(words)} --help"] = ["-m", "ribcage", *words, "--help"]
    found |= {
        f"{name}, six options": ["-c", code] for name, code in LIBRARIES.items() if importlib.util.find_spec(name)
    }
    return {**found, "import torch": ["-c", "import torch"]}


def processor_time() -> float:
    """Seconds of user and system time of all child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways()}
    for turn in range(rounds + 1):
        for name, words in ways().items():
            start, before = time.perf_counter(), processor_time()
            subprocess.run([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first turn fills the caches
                taken[name].append((time.perf_counter() - start, processor_time() - before))
    print("| command | wall-clock time, s | CPU time, s |\n|---|---|---|")
    for name, times in taken.items():
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| `{name}` | {wall:.2f} | {processor:.2f} |")


if __name__ == "__main__":
    main()
