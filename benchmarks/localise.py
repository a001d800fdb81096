"""Time of a training step of a detector with cached and with recomputed feature maps of a frozen backbone.

    python benchmarks/localise.py [--model resnet50] [--size 224] [--batch 16] [--head fcos] [--width 64] [--rounds 5]

Both train the same detector on the same batches of a dataset folder, alternately in one process; medians are compared.
The time to compute the maps once is printed, too. Caching saves the time of the backbone, so the ratio is greater for
smaller heads. `--width 256 --depth 4` is the head of the FCOS paper and `--head yolo` that of the protocol; both need
more time than a frozen ResNet-50."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.methods.detect import Detect
from ribcage.models.backbone import Backbone
from ribcage.training import feature_cache, optim, trainer


def run(
    opened: dataset_folder.DatasetFolder, options: argparse.Namespace, device: torch.device, kept: Path | None
) -> trainer.Trainer[Any]:
    """A detector in the loop of `localise`, on images or on kept maps."""
    torch.manual_seed(0)
    backbone = Backbone(options.model, size=(options.size, options.size))
    method = Detect(backbone, (options.finding,), head=options.head, width=options.width, depth=options.depth)
    method.to(device).to(memory_format=torch.channels_last)
    view = augment.plain_view(options.size)
    loader = Loader(
        [opened], [view], batch=options.batch, findings=method.findings, drop_last=True, device=device,
        threads=options.threads,
    )  # fmt: skip
    rates = optim.Rates(1e-4, 10**6)
    made = trainer.Trainer(method, loader, optim.optimizer(method), rates, epochs=10**6, device=device)
    if kept is not None:
        loader.cached = feature_cache.cache_features(method, loader, kept, kind=options.kind, compute=made.dtype)
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--finding", default="Mass")
    parser.add_argument("--head", choices=("fcos", "yolo"), default="fcos")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--kind", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} thread(s) of the CPU"
    head = options.head if options.head == "yolo" else f"fcos of {options.width} × {options.depth}"
    print(f"{options.model}, frozen, under {head}, {options.size} px, batch {options.batch}, {card}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "phantom"
        words = ["--images", str(options.images), "--size", str(options.size)]
        cli.main(["import", "phantom", "--out", str(folder), *words])
        opened = dataset_folder.open(folder)
        start = time.perf_counter()
        cached = run(opened, options, device, Path(place) / "features")
        making = time.perf_counter() - start
        logs = {"recomputed": run(opened, options, device, None).fit(), "cached": cached.fit()}
        times: dict[str, list[float]] = {name: [] for name in logs}
        losses: dict[str, float] = {}
        for turn in range(options.rounds + 1):
            for name, steps in logs.items():
                start = time.perf_counter()
                losses[name] = next(steps).loss
                if turn:  # the first one prepares
                    times[name].append(time.perf_counter() - start)
        size = sum(file.stat().st_size for file in (Path(place) / "features").glob("*.bin"))
    base = statistics.median(times["recomputed"])
    for name, seconds in times.items():
        own = statistics.median(seconds)
        each, ratio = 1e3 * own / options.batch, base / own
        print(f"maps {name:<20}{each:>9.1f} ms per image {ratio:>8.2f}×   loss {losses[name]:.5f}")
    print(f"computed once in {making:.1f} s, {size / options.images / 1e6:.2f} MB per image as {options.kind}")


if __name__ == "__main__":
    main()
