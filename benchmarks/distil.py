"""Distillation into EEEA-Net-C2: from labels alone, from one teacher and from three.

    python -m benchmarks.distil --work DIR [--jobs 2] [--seeds 3] [--images 3000] [--tests 3000] [--size 64] …
    python -m benchmarks.distil --work DIR --data IMAGES --table PREDICTIONS [--csv LABELS] [--init BUNDLE]

Without --data: synthetic radiographs. Teachers are trained by `ribcage finetune` with the labels of all training
patients or of a tenth; the student by `ribcage finetune` with the same labels, or by `ribcage distil` with the same
labels and the teachers' predictions, also for unlabelled images. The number of training steps is the same. All models
are tested on a second synthetic dataset with other patients. Intervals are of the mean over the student's seeds, by a
bootstrap over patients and seeds; differences are paired. Results of the same command that are already in DIR are
reused.

With --data and --table: real images, split into two halves by patient, and stored predictions of a published model. The
student is trained on one half, with labels alone or with labels and predictions, and tested on the other; then the
halves are swapped. Ranks are taken within a half, since each half has its own student.
"""

import argparse
import json
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import trials
from ribcage.data.collection import Datasets
from ribcage.data.readers.tables import IMAGES
from ribcage.training.teachers import tables

STUDENT = "eeea_net_c2"
TEACHERS = ("densenet121", "regnetx_002", "xcit_nano_12_p8_224")
TEST_SEED = 1001
"""Other patients than those of seed 0."""
STUDENTS = {
    "student, labels alone": (),
    "student, DenseNet-121 as teacher": TEACHERS[:1],
    "student, all three teachers": TEACHERS,
}
"""Who teaches."""


@dataclass(frozen=True)
class Trial:
    """A student with its labels, teachers and seed."""

    kind: str
    labels: float
    seed: int

    def words(self, options: argparse.Namespace) -> list[str]:
        """The command."""
        out = options.work / f"{self.kind} {self.labels:g} {self.seed}"
        taught = [str(teacher(name, self.labels, options)) for name in STUDENTS[self.kind]]
        how = [
            "--label-weight",
            str(options.label_weight),
            "--temperature",
            str(options.temperature),
            "--teacher-mode",
            options.teacher_mode,
        ]
        more = ["--teacher", *taught, *how] if taught else []
        labels = ["--labels", str(self.labels), "--epochs", str(self.epochs(options))]
        return [
            "distil" if taught else "finetune", "--model", STUDENT, "--out", str(out), "--seed", str(self.seed),
            *labels, *more, *common(options, options.lr),
        ]  # fmt: skip

    def epochs(self, options: argparse.Namespace) -> int:
        """More epochs for fewer images, so that every student takes the same number of steps."""
        return options.epochs if STUDENTS[self.kind] else round(options.epochs / self.labels)


def teacher(name: str, labels: float, options: argparse.Namespace) -> Path:
    """The run folder of a teacher."""
    return Path(options.work / f"teacher {name} {labels:g}")


def teacher_words(name: str, labels: float, options: argparse.Namespace) -> list[str]:
    """The command that trains a teacher."""
    epochs = round(options.teacher_epochs / labels)
    shape = ["--model", name, "--out", str(teacher(name, labels, options)), "--labels", str(labels)]
    return ["finetune", *shape, "--epochs", str(epochs), *common(options)]


def common(options: argparse.Namespace, rate: str = "1e-3") -> list[str]:
    """Options shared by all trainings."""
    data, size = ["--data", str(options.data)], ["--size", str(options.size), "--augment-options", "crop=0.85,1.0"]
    return [*data, *size, "--batch", "32", "--lr", rate, "--threads", "1"]


def table(trials_of: dict[tuple[str, float], list[trials.Tested]]) -> None:
    """One row per model, with its gain over labels alone."""
    found = {key: trials.over_seeds(tests) for key, tests in trials_of.items()}
    print("\n| labelled patients | model | macro AUROC (95 %) | SD over seeds | gain over labels alone (95 %) |")
    print("|---|---|---|---|---|")
    for (kind, labels), tests in trials_of.items():
        alone = found.get(("student, labels alone", labels))
        gain = (
            "–"
            if kind == "student, labels alone" or alone is None
            else trials.shown(found[kind, labels].minus(alone), "+")
        )
        spread = f"{trials.spread(tests):.3f}" if len(tests) > 1 else "–"
        print(f"| {labels:.0%} | {kind} | {trials.shown(found[kind, labels])} | {spread} | {gain} |", flush=True)


def made_up(options: argparse.Namespace) -> None:
    """The table for synthetic radiographs."""
    options.data = options.work / "phantom"
    made = ["--out", str(options.data), "--images", str(options.images), "--size", "128"]
    subprocess.run([sys.executable, "-m", "ribcage", "import", "phantom", *made], check=True)
    other = options.work / "phantom for tests"
    made = ["--out", str(other), "--images", str(options.tests), "--size", "128", "--seed", str(TEST_SEED)]
    subprocess.run([sys.executable, "-m", "ribcage", "import", "phantom", *made], check=True)
    learnt, data = len(Datasets.open([options.data]).rows_of("train")), Datasets.open([other])
    rows = np.arange(data.total)
    with ThreadPoolExecutor(options.jobs) as workers:
        words = [teacher_words(name, labels, options) for labels in options.labels for name in TEACHERS]
        list(workers.map(trials.trained, words))
        every = [
            Trial(kind, labels, seed)
            for seed in range(options.seeds) for labels in options.labels for kind in STUDENTS
        ]  # fmt: skip
        folders = dict(zip(every, workers.map(lambda one: trials.trained(one.words(options)), every), strict=True))
    torch.set_num_threads(options.jobs)
    asked = trials.common(data, rows, options.least)
    print(f"{learnt:,} training images, {len(rows):,} to test on, {options.seeds} seeds, findings: {', '.join(asked)}")
    test = partial(trials.tested, data=data, names=asked, rows=rows)
    shown: dict[tuple[str, float], list[trials.Tested]] = {}
    for labels in options.labels:
        for name in TEACHERS:
            shown[f"teacher {name}", labels] = [test(teacher(name, labels, options))]
        for kind in STUDENTS:
            kept = [folder for one, folder in folders.items() if (one.kind, one.labels) == (kind, labels)]
            shown[kind, labels] = [test(folder) for folder in kept]
    table(shown)
    spent = {
        kind: np.mean([trials.minutes(out) for one, out in folders.items() if one.kind == kind]) for kind in STUDENTS
    }
    print("\nMinutes per student: " + ", ".join(f"{kind} {value:.1f}" for kind, value in spent.items()))
    print(json.dumps({"torch": torch.__version__, "jobs": options.jobs}))


# ---- real images


def halves(options: argparse.Namespace) -> list[Path]:
    """The dataset twice: each half of the patients is the test split once; an eighth of the other half validates."""
    files = {file.stem: file.relative_to(options.data) for file in options.data.rglob("*") if file.suffix in IMAGES}
    rows = pd.read_csv(options.csv or next(options.data.glob("*.csv")), dtype={options.patient_column: str})
    said = tables.read_teacher_table(options.table).images["path"]
    name, patient = rows[options.path_column].map(lambda path: Path(path).stem), rows[options.patient_column]
    rows = rows[name.isin(files) & name.isin(said.map(lambda path: Path(path).stem))]
    number, folders = patient[rows.index].map(lambda one: zlib.crc32(one.encode())), []
    for half in range(2):
        parts = np.where(number % 2 == half, "test", np.where(number // 2 % 8 == 0, "val", "train"))
        table = options.work / f"half {half}.csv"
        told = rows.assign(path=name[rows.index].map(lambda stem: str(files[stem])), split=parts)
        told.drop(columns=options.path_column).to_csv(table, index=False)
        folders.append(options.work / f"half {half}")
        words = ["--csv", str(table.resolve()), "--out", str(folders[-1]), "--size", "128"]
        words += ["--patient-column", options.patient_column, "--path-column", "path", "--split-column", "split"]
        subprocess.run([sys.executable, "-m", "ribcage", "import", "folder", str(options.data), *words], check=True)
    return folders


def real(options: argparse.Namespace) -> None:
    """Labels alone compared with labels and stored predictions of a published model."""
    folders = halves(options)
    data = [Datasets.open([folder]) for folder in folders]
    both = Datasets.of(one[0] for one in data)
    asked = trials.common(both, both.rows_of("test"), options.least)
    shown: dict[tuple[str, float], list[trials.Tested]] = {}
    for kind in ("student, labels alone", "student, labels and stored predictions"):
        for seed in range(options.seeds):
            tests = []
            for half, folder in enumerate(folders):
                options_of_half = argparse.Namespace(**{**vars(options), "data": folder})
                out = options.work / f"real {kind} {half} {seed}"
                words = ["--model", STUDENT, "--out", str(out), "--seed", str(seed), "--findings", *asked]
                words += ["--epochs", str(options.epochs), *common(options_of_half, options.lr)]
                words += ["--init", str(options.init)] if options.init else []
                taught = ["--teacher", str(options.table), "--label-weight", str(options.label_weight)]
                taught += ["--temperature", str(options.temperature)]
                words = ["finetune", *words] if kind == "student, labels alone" else ["distil", *words, *taught]
                scores, labels, patients = trials.tested(trials.trained(words), data[half], asked)
                tests.append(((scores.argsort(0).argsort(0) + 0.5) / len(scores), labels, patients))
            joined = [np.concatenate(parts) for parts in zip(*tests, strict=True)]
            shown.setdefault((kind, 1.0), []).append((joined[0], joined[1], joined[2]))
    learnt = [len(one.rows_of("train")) for one in data]
    print(f"{learnt} training images of the halves, {options.seeds} seeds, findings: {', '.join(asked)}")
    predicted = tables.read_teacher_table(options.table)
    answers = [tables.table_logits(predicted, one, asked)[one.rows_of("test")] for one in data]
    labels, patients = shown["student, labels alone", 1.0][0][1:]
    shown["teacher (stored predictions)", 1.0] = [(np.concatenate(answers), labels, patients)]
    table(shown)


def main() -> None:
    """Train, test and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--csv", type=Path, help="labels of the images in DATA (default: the one CSV there)")
    parser.add_argument("--path-column", default="image")
    parser.add_argument("--patient-column", default="patient_id")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--init", type=Path, help="bundle with the initial weights of the student")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--tests", type=int, default=3000, help="synthetic test images")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--labels", type=float, nargs="*", default=[1.0, 0.1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--lr", default="3e-3", help="learning rate of the students")
    parser.add_argument("--label-weight", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--teacher-mode", default="live")
    parser.add_argument("--least", type=int, default=20, help="least number of positives of a finding")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    real(options) if options.data else made_up(options)


if __name__ == "__main__":
    main()
