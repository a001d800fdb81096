"""Adaptation of a pretrained ViT-Ti to few real radiographs: full fine-tuning, LoRA, BitFit and two kinds of probing.

    python -m benchmarks.adaptation --work DIR --data FOLDER [--images 2500] [--epochs 10] [--steps 80] [--seeds 3]

FOLDER holds `nih/images_256` and `nih/manifest.csv`: 1,299 images of ChestX-ray14 in the `arnoweng` split. They are
stored at 96 px. No published weights can be assumed, so a ViT-Ti/16 is pretrained once with the labels of synthetic
radiographs (`--images`, `--epochs`). From there, each method is trained for `--steps` steps with the labels of a share
of the real training patients. The learning rate of a method is the one with the best macro AUROC on the validation
split with a development seed and the smallest share; the test split is not used for it. The model after the last step
is tested. Intervals are of the mean over seeds, by a bootstrap over patients and the variance between seeds;
differences to full fine-tuning are paired by patient. What is already in DIR is reused.
"""

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import trials
from ribcage import cli
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets

MODEL, SIZE, BATCH = "vit_tiny_patch16_224", 96, 16
METHODS = {
    "full fine-tuning": (["--adapt", "full"], (1e-4, 5e-4)),
    "LoRA": (["--adapt", "lora"], (1e-3, 5e-3)),
    "BitFit": (["--adapt", "bitfit"], (1e-3, 5e-3)),
    "attention probing": (["--adapt", "head", "--pool", "query"], (2e-3, 1e-2)),
    "linear probing": (["--adapt", "head"], (2e-3, 1e-2)),
}
"""Options of `ribcage finetune` and the learning rates that are compared."""
REFERENCE = "full fine-tuning"
DEVELOPMENT = 100
"""Seed with which the learning rates are selected; the seeds of the table count from 0."""


@dataclass(frozen=True)
class Trial:
    """One training on real images."""

    method: str
    share: float
    seed: int
    lr: float

    def folder(self, options: argparse.Namespace) -> Path:
        name = f"{self.method} {self.share:g} {self.seed} {self.lr:g}"
        return Path(options.work, f"tuned in {options.steps} steps", name)


def imported(options: argparse.Namespace) -> tuple[Path, Path]:
    """The dataset folders of the synthetic and of the real images."""
    drawn, real, source = options.work / "phantoms", options.work / "nih", options.data / "nih"
    if not (drawn / "dataset.json").exists():
        run(["import", "phantom", "--images", str(options.images), "--size", str(SIZE), "--out", str(drawn)])
    if not (real / "dataset.json").exists():
        columns = ["--path-column", "image", "--split-column", "arnoweng_split", "--patient-column", "patient_id"]
        files = [str(source / "images_256"), "--csv", str(source / "manifest.csv")]
        run(["import", "folder", *files, *columns, "--size", str(SIZE), "--out", str(real)])
    return drawn, real


def pretrained(options: argparse.Namespace, drawn: Path) -> Path:
    """The model that is adapted."""
    words = ["pretrain", "supervised", "--data", str(drawn), "--model", MODEL, "--size", str(SIZE), "--pool", "avg"]
    words += ["--epochs", str(options.epochs), "--batch", "32", "--lr", "1e-3", "--save-minutes", "2"]
    return trials.trained([*words, "--threads", "1", "--seed", "0", "--out", str(options.work / "pretrained")])


def run(words: Sequence[str]) -> str:
    """A command in this process; its output."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = cli.main(list(words))
    if code:
        raise SystemExit(f"ribcage {' '.join(words)} ended with exit code {code}.")
    return said.getvalue()


def tuned(trial: Trial, options: argparse.Namespace, real: Path, init: Path) -> Path:
    """The run folder of a trial."""
    out = trial.folder(options)
    if (out / "output.txt").exists():
        return out
    images = Datasets.open([str(real)]).rows_of("train").size * trial.share
    epochs = str(max(1, round(options.steps / max(1, images // BATCH))))
    words = ["finetune", "--data", str(real), "--model", MODEL, "--size", str(SIZE), "--init", str(init)]
    words += [*METHODS[trial.method][0], "--labels", str(trial.share), "--batch", str(BATCH), "--lr", str(trial.lr)]
    words += ["--epochs", epochs, "--validate-every", epochs, "--keep", "last", "--warmup", "0.5"]
    resume = ["--resume"] if (out / "options.json").exists() else []
    said = run([*words, "--threads", "1", "--seed", str(trial.seed), "--out", str(out), *resume])
    (out / "output.txt").write_text(said, encoding="utf-8")
    print(f"{out.name}: validation {validation(out):.3f}", flush=True)
    return out


def validation(out: Path) -> float:
    """The macro AUROC on the validation split."""
    return ModelSpec.load(out / "bundle" / "model.json").metrics["validation"]["auroc"]


def weights(out: Path) -> str:
    """How many weights were trained."""
    said = (out / "output.txt").read_text(encoding="utf-8").splitlines()
    return next((line.partition(" of ")[0] for line in said if "weights are trained" in line), "all")


def selected(method: str, options: argparse.Namespace, real: Path, init: Path) -> float:
    """The learning rate with the best validation."""
    share = min(options.labels)
    trials_of = {lr: Trial(method, share, DEVELOPMENT, lr) for lr in METHODS[method][1]}
    scores = {lr: validation(tuned(trial, options, real, init)) for lr, trial in trials_of.items()}
    return max(scores, key=scores.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--data", type=Path, required=True, help="folder with nih/images_256 and nih/manifest.csv")
    parser.add_argument("--images", type=int, default=2500, help="synthetic images (default: 2500)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of pretraining (default: 10)")
    parser.add_argument("--steps", type=int, default=80, help="steps on real images, about (default: 80)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each method (default: 3)")
    parser.add_argument("--labels", type=float, nargs="+", default=[0.1, 1.0], help="shares of the training patients")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    drawn, real = imported(options)
    init, data = pretrained(options, drawn), Datasets.open([str(real)])
    rates = {method: selected(method, options, real, init) for method in METHODS}
    rows = data.rows_of("test")
    print("| labels | method | trained weights | learning rate | macro AUROC (95 %) | difference to full (95 %) |")
    print("|---|---|---|---|---|---|")
    for share in options.labels:
        found = dict[str, trials.OverSeeds]()
        for method, lr in rates.items():
            runs = [tuned(Trial(method, share, seed, lr), options, real, init) for seed in range(options.seeds)]
            found[method] = trials.over_seeds([trials.tested(out, data, data.findings, rows) for out in runs])
            gain = trials.shown(found[method].minus(found[REFERENCE]), "+") if method != REFERENCE else "–"
            line = [f"{share:.0%}", method, weights(runs[0]), f"{lr:g}", trials.shown(found[method]), gain]
            print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
