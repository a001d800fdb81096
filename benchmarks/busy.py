"""Throughput of training steps on an idle and on a busy machine, with spinning and with sleeping OpenMP threads.

    python -m benchmarks.busy [--seconds 12] [--rounds 3]

A ResNet-18 at 128 pixels, batches of 16, float32. On the busy machine, as many other processes compute as it has
cores. Configurations alternate; the median over rounds is printed.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

WAYS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "spinning threads (default of libgomp)": {},
    "threads that spin briefly (GOMP_SPINCOUNT=10000)": {"GOMP_SPINCOUNT": "10000"},
    "sleeping threads (GOMP_SPINCOUNT=0, set by the training commands)": {"GOMP_SPINCOUNT": "0"},
}


def steps(seconds: float) -> float:
    """Images per second of training steps in this process."""
    import torch
    import torchvision

    model, images = torchvision.models.resnet18(num_classes=14), torch.randn(16, 3, 128, 128)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        model(images).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    done, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        step()
        done += len(images)
    return done / (time.monotonic() - start)


def measured(way: dict[str, str], seconds: float) -> float:
    """The same in a process of its own, with these variables."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    words = [sys.executable, "-m", "benchmarks.busy", "--worker", str(seconds)]
    return float(subprocess.run(words, env=plain | way, capture_output=True, text=True, check=True).stdout)


def compute() -> None:
    """A compute-bound background process."""
    while True:
        sum(range(10**6))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="seconds of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=float, default=0.0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        return print(steps(asked.worker))
    cores = os.cpu_count() or 1
    found: dict[tuple[str, str], list[float]] = {}
    for state, others in (("quiet", 0), ("busy", cores)):
        processes = [multiprocessing.Process(target=compute, daemon=True) for _ in range(others)]
        for one in processes:
            one.start()
        for _ in range(asked.rounds):
            for name, way in WAYS.items():
                found.setdefault((name, state), []).append(measured(way, asked.seconds))
        for one in processes:
            one.kill()
    print(f"Images per second, {cores} cores, median of {asked.rounds}\n")
    print("| threads | idle machine, images/s | busy machine, images/s |\n|---|---:|---:|")
    for name in WAYS:
        print(
            f"| {name} | {' | '.join(f'{statistics.median(found[name, state]):.1f}' for state in ('quiet', 'busy'))} |"
        )


if __name__ == "__main__":
    main()
