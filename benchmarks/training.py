"""Time of a training step, compared with a plain one: torchvision's model, float32, RGB.

    python benchmarks/training.py [--rounds 5] [--batch 16] [--threads 1]

Both do a forward pass, a backward pass and an AdamW step on synthetic images of 224 pixels, alternately in one process;
medians are compared. On a GPU the baseline also runs in bf16 and channels_last. Ribcage loads its images from a dataset
folder, so that the share of the step spent waiting for data can be measured."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training import optim, trainer

Step = Callable[[], None]


def peer(batch: int, device: torch.device, bf16: bool) -> Step:
    """torchvision's DenseNet-121 on RGB."""
    model = torchvision.models.densenet121(num_classes=14).to(device)
    if bf16:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, labels = torch.randn(batch, 3, 224, 224, device=device), torch.rand(batch, 14, device=device).round()
    if bf16:
        images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(images)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()

    return step


def ours(opened: dataset_folder.DatasetFolder, batch: int, device: torch.device) -> trainer.Trainer[Any]:
    """The same network in the loop of `finetune`, one channel, fed from a dataset folder."""
    method = Supervised(Backbone("densenet121"), opened.index.findings)
    method.to(device).to(memory_format=torch.channels_last)
    loader = Loader([opened], [augment.gentle_view(224)], batch=batch, drop_last=True, device=device)
    rates = optim.Rates(1e-4, 10**6)
    return trainer.Trainer(method, loader, optim.optimizer(method), rates, epochs=10**6, device=device)


def timed(step: Step, device: torch.device) -> float:
    """Seconds of a step, the device's work included."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} thread(s) of the CPU"
    print(f"DenseNet-121, 224 px, batch {options.batch}, {card}, torch {torch.__version__}, timed side by side")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "phantom"
        cli.main(["import", "phantom", "--out", str(folder), "--images", str(max(64, 4 * options.batch))])
        run = ours(dataset_folder.open(folder), options.batch, device)
        logs = run.fit()
        waits: list[float] = []

        def our_step() -> None:
            log = next(logs)
            waits.append(log.waited / log.seconds)

        plain = peer(options.batch, device, bf16=device.type == "cuda")
        times: dict[str, list[float]] = {"peer": [], "ours": []}
        for turn in range(options.rounds + 1):
            for name, step in (("peer", plain), ("ours", our_step)):
                seconds = timed(step, device)
                if turn:
                    times[name].append(seconds)
    base, own = (statistics.median(times[name]) for name in ("peer", "ours"))
    kind = "bf16, channels_last" if device.type == "cuda" else "float32"
    for name, seconds in ((f"torchvision, RGB, {kind}", base), ("ribcage, gray, with its loader", own)):
        rate = options.batch / seconds
        each = 1e3 * seconds / options.batch
        print(f"{name:40}{each:>9.1f} ms per image {rate:>9.1f} images/s {base / seconds:>6.2f}×")
    waiting, precision = statistics.median(waits[1:]), str(run.dtype).removeprefix("torch.")
    print(f"waiting for data: {waiting:.2%} of a step; ribcage computes in {precision}")


if __name__ == "__main__":
    main()
