"""Speed and accuracy of exported models: eager torch, ONNX Runtime and OpenVINO, in float32, bf16 and int8.

    python -m benchmarks.export --work /tmp/export

Both models are trained for a few epochs on synthetic radiographs at 224 × 224, so that a loss of accuracy
is visible; the work folder caches them. Exported file and model predict the same test images: the table shows the
largest difference of a probability, and the change of the mean AUROC with its interval over patients. Times are for
one image and for sixteen, from gray bytes to probabilities, alternating in one run, as ratios to eager torch, which
is what `ribcage predict` uses. bf16 is left out on CPUs without hardware support.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ribcage import cli, metrics
from ribcage.bundle import cost, deployment
from ribcage.bundle.io import Classifier, load_classifier
from ribcage.commands import export
from ribcage.metrics.intervals import Interval

MODELS = {"eeea_net_c2": "EEEA-Net-C2", "densenet121": "DenseNet-121"}
SIDE, STORED, BATCHES = 224, 256, (1, 16)


@dataclass(frozen=True)
class Way:
    """One file, in one runtime."""

    name: str
    file: Path
    answer: deployment.Predictor


def main() -> None:
    """Train what is not there, write the files, ask, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for data, models and files")
    parser.add_argument("--images", type=int, default=900, help="to make up")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tests", type=int, default=200, help="test images that all ways are asked about")
    parser.add_argument("--runs", type=int, default=30, help="of each way; the median counts")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    given = parser.parse_args()
    data = made(given.work / "phantom", given.images)
    print(
        "| model | runtime and precision | largest difference of a probability | change of the mean AUROC (95 %) "
        "| batch of 1: time or speed-up | batch of 16: time or speed-up | file size, MB |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, title in MODELS.items():
        opened = trained(data, given.work / name, name, given.epochs)
        for row in table(opened, data, given):
            print(f"| {title} | {' | '.join(row)} |", flush=True)


def made(folder: Path, images: int) -> Path:
    """Synthetic radiographs."""
    if not (folder / "dataset.json").exists():
        words = ["import", "phantom", "--out", str(folder), "--images", str(images), "--size", str(STORED)]
        assert cli.main(words) == 0
    return folder


def trained(data: Path, run: Path, name: str, epochs: int) -> Classifier:
    """The model after so many epochs."""
    if not (run / "bundle" / "model.json").exists():
        words = ["finetune", "--data", str(data), "--model", name, "--size", str(SIDE), "--epochs", str(epochs)]
        assert (
            cli.main([*words, "--batch", "16", "--lr", "2e-3", "--augment-options", "crop=0.85,1.0", "--out", str(run)])
            == 0
        )
    return load_classifier(run)


def ways(opened: Classifier, data: Path, work: Path, threads: int) -> Iterator[Way]:
    """All files, each opened."""
    for to, int8 in (("onnx", False), ("openvino", False), ("onnx", True), ("openvino", True)):
        folder = work / f"{to}{' int8' * int8}"
        folder.mkdir(parents=True, exist_ok=True)
        asked = export.Options(opened.folder, to=to, int8=int8, data=(str(data),), val="test")  # type: ignore[arg-type]
        file = export.written(asked, opened, folder)
        runtime = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[to]
        yield Way(f"{runtime} {'int8' if int8 else 'float32'}", file, deployment.OPENED[to](file, threads))
        if to == "openvino" and not int8 and fast_bf16():
            yield Way("OpenVINO bf16", file, deployment.opened_openvino(file, threads, "bf16"))


def fast_bf16() -> bool:
    """Whether this processor multiplies bf16 by itself."""
    file = Path("/proc/cpuinfo")
    return file.exists() and any(flag in file.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def table(opened: Classifier, data: Path, given: argparse.Namespace) -> Iterator[list[str]]:
    """The cells of every way, eager first."""
    asked = export.Options(opened.folder, data=(str(data),))
    chosen = export.chosen_images(asked, opened.spec, "test", given.tests)
    images, labels, patients = chosen.images, chosen.labels, chosen.patients
    own = deployment.expected(opened, images)
    before = metrics.bootstrap(own, labels, patients)["auroc"].macro()
    with cost.computing(given.threads):
        found = list(ways(opened, data, given.work / f"{opened.spec.name} files", given.threads))
        eager: deployment.Predictor = partial(deployment.expected, opened)
        times = [taken([eager, *(way.answer for way in found)], images[:batch], given.runs) for batch in BATCHES]
    yield ["eager torch", "–", f"AUROC {float(before.value[0]):.3f}", *(f"{each[0]:.1f} ms" for each in times), "–"]
    for place, way in enumerate(found, 1):
        said = answers(way.answer, images)
        after = metrics.bootstrap(said, labels, patients)["auroc"].macro()
        ratios = (f"{each[0] / each[place]:.2f}×" for each in times)
        size = sum(one.stat().st_size for one in export.beside(way.file)) / 1e6
        yield [way.name, f"{np.abs(said - own).max():.1g}", signed(metrics.paired_difference(after, before).interval()),
               *ratios, f"{size:.1f}"]  # fmt: skip


def answers(answer: deployment.Predictor, images: np.ndarray) -> np.ndarray:
    """Sixteen at a time."""
    return np.concatenate([answer(images[at : at + 16]) for at in range(0, len(images), 16)])


def taken(ways: list[deployment.Predictor], images: np.ndarray, runs: int) -> list[float]:
    """Milliseconds of each, by turns."""
    asked: list[Callable[[], object]] = [partial(way, images) for way in ways]
    return cost.medians(asked, runs)


def signed(change: Interval) -> str:
    """+0.0012 (-0.0003 to +0.0020)"""
    value, low, high = (float(one[0]) for one in (change.value, change.low, change.high))
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    torch.set_num_interop_threads(1)
    main()
