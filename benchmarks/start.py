"""Start-up time of `ribcage --help`, a bare interpreter, and importing torch.

    python benchmarks/start.py

The commands alternate, each in its own process, with byte-code caches enabled; medians are compared."""

import os
import statistics
import subprocess
import sys
import time

WAYS = {
    "bare interpreter": ["-c", "pass"],
    "ribcage --help": ["-m", "ribcage", "--help"],
    "ribcage import --help": ["-m", "ribcage", "import", "--help"],
    "import torch": ["-c", "import torch"],
}


def main(rounds: int = 7) -> None:
    """Print the table."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds + 1):
        for name, words in WAYS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first turn fills the caches
                taken[name].append(time.perf_counter() - start)
    for name, times in taken.items():
        print(f"{name:24}{statistics.median(times):>8.3f} s")


if __name__ == "__main__":
    main()
