"""Training of two architectures on synthetic radiographs with the commands; prints a table of test AUROCs.

    OMP_NUM_THREADS=1 python -m benchmarks.learning [--images 4000] [--size 64] [--epochs 12]

Both models are trained from random weights with the same options. The epoch is selected on validation images, the test
split is used once, and intervals are clustered by patient. XCiT-nano is a small vision transformer with attention
across channels and convolutions before its tokens. Times are CPU times of training and validation."""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ribcage

MODELS = ("densenet121", "xcit_nano_12_p8_224")


@dataclass(frozen=True)
class Learnt:
    """A model, trained and tested."""

    name: str
    minutes: float
    validation: float
    tested: dict[str, Any]


def learnt(name: str, data: Path, folder: Path, options: argparse.Namespace) -> Learnt:
    """Train, then test."""
    start = time.process_time()
    run = ribcage.finetune(
        data=data,
        out=folder / name,
        model=name,
        size=options.size,
        augment_options="crop=0.85,1.0",
        epochs=options.epochs,
        batch=32,
        lr=1e-3,
        threads=1,
        seed=options.seed,
    )
    assert isinstance(run, Path)
    minutes = (time.process_time() - start) / 60
    model = json.loads((run / "bundle" / "model.json").read_text(encoding="utf-8"))
    return Learnt(name, minutes, model["metrics"]["validation"]["auroc"], ribcage.evaluate(run, data=data))


def show(models: list[Learnt]) -> None:
    """The table: a column for each model, and one for what is told by the view alone."""
    tested = models[0].tested
    view = tested["baselines"]["view"]
    print(f"{tested['images']:,} test images of {tested['patients']:,} patients\n")
    print("| | positive test images | " + " | ".join(model.name for model in models) + " | view only |")
    print("|---|---" + "|---" * len(models) + "|---|")
    row("training and validation, CPU minutes", "", [f"{model.minutes:.1f}" for model in models], "")
    row("validation, macro AUROC", "", [f"{model.validation:.3f}" for model in models], "")
    means = [number(model.tested["macro"]["auroc"]) for model in models]
    row("**test, macro AUROC**", "", [f"**{mean}**" for mean in means], number(tested["baselines"]["view_macro"]))
    for place, finding in enumerate(tested["findings"]):
        values = [number(model.tested["findings"][place]["auroc"]) for model in models]
        row(finding["finding"], str(finding["positives"]), values, number(view[place]["auroc"]))


def row(head: str, positives: str, values: list[str], view: str) -> None:
    """A line of the table."""
    print("| " + " | ".join([head, positives, *values, view]) + " |")


def number(found: dict[str, Any]) -> str:
    """A value with its interval, where there is one."""
    if found["value"] is None:
        return "–"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=64, help="side of what the models see")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--models", nargs="+", default=MODELS, help="of timm's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        data = Path(folder) / "phantom"
        ribcage.import_("phantom", out=data, size=2 * options.size, images=options.images)
        models = [learnt(name, data, Path(folder), options) for name in options.models]
    show(models)


if __name__ == "__main__":
    main()
