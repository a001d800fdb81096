"""Memory and start-up time of a training process on a synthetic dataset of ten million images.

    python benchmarks/ten_million.py [--rows 10000000] [--folder /tmp/ten_million] [--processes 2]

Three dataset folders are made once: 14 labels of four values, patients with 1 to 8 images, paths as in CheXpert, random
fingerprints, and images of 8 × 8 pixels. Then `ribcage finetune` is started, step by step, up to its first batch, in
one process and in several processes of one machine; and the order of an epoch is drawn in every way that there is. The
first start writes the tables to the cache folder (RIBCAGE_INDEX_CACHE); the others map them. Each line of the table is
printed when it is known. Seconds are those since the step before: wall-clock time, and processor time, which depends
less on other load. `own` is the anonymous memory of the process, which it shares with no other (pages of memory-mapped
files are shared); `peak` is the highest value until then, sampled every 20 ms. Both are given without the memory after
the imports, which has a line of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

START = time.perf_counter()
SHARES = (0.5, 0.3, 0.2)
"""Shares of the rows in the three folders."""
SIDE = 8
VIEW = 32
"""Side of a training image in pixels."""
BLOCK = 500_000


# ---- the synthetic dataset


def make_folder(folder: Path, rows: int, seed: int) -> None:
    """One dataset folder, as an import would write it."""
    import numpy as np
    import pandas as pd

    from ribcage.data import dataset_facts, dataset_folder
    from ribcage.data.findings import CHEXPERT14
    from ribcage.data.fingerprint_table import Fingerprints
    from ribcage.data.index import Index, index_table
    from ribcage.imaging import fingerprint

    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    patient = np.repeat(np.arange(rows), chance.integers(1, 9, rows))[:rows]
    split = chance.choice(3, rows, p=(0.95, 0.02, 0.03))[patient]
    texts = {
        "path": [
            f"train/patient{seed}{one:07d}/study1/view{row:08d}_frontal.jpg" for row, one in enumerate(patient.tolist())
        ],
        "patient": [f"patient{seed}{one:07d}" for one in patient.tolist()],
        "study": [f"patient{seed}{one:07d}/study1" for one in patient.tolist()],
        "view": np.array(["PA", "AP", "LATERAL"])[chance.choice(3, rows, p=(0.3, 0.5, 0.2))],
        "split": np.array(["train", "val", "test"])[split],
        "sex": np.array(["F", "M"])[chance.choice(2, rows)[patient]],
        "hospital": np.array([f"site {number}" for number in range(12)])[chance.choice(12, rows)],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in texts.items()})
    frame["age"] = chance.integers(18, 91, rows).astype(np.float32)
    for name in CHEXPERT14:
        frame[name] = np.array([1, 0, -1, np.nan], np.float32)[chance.choice(4, rows, p=(0.1, 0.15, 0.03, 0.72))]
    frame["width"], frame["height"], frame["notes"] = (
        np.int32(390),
        np.int32(320),
        pd.Series("", frame.index, dtype="str"),
    )
    index = Index(f"synthetic {seed}", index_table(frame, CHEXPERT14), CHEXPERT14)
    dataset_folder.save_index(index, folder / "index.parquet")
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (rows, SIDE, SIDE))
    images.reshape(rows, -1)[:, :8] = (np.arange(rows) + (seed << 40)).astype("<u8")[:, None].view(np.uint8)
    hashes = np.array([fingerprint.pixel_hash(image) for image in np.asarray(images)], np.uint64)
    prints = chance.integers(0, 1 << 64, (rows, fingerprint.VARIANTS, 4), np.uint64)
    Fingerprints(prints, hashes, np.zeros(rows, np.uint64)).save(folder / "fingerprints.parquet")
    dataset_folder.write_facts(
        folder,
        dataset_facts.Facts(
            name=index.name, dataset="chexpert", source="synthetic", licence="", images=rows, rejected=0, size=SIDE,
            fit="pad", depth=8, mean=0.5, std=0.25, findings=CHEXPERT14, root="", contents=str(seed),
        ),
    )  # fmt: skip


def make_all(folder: Path, rows: int) -> list[Path]:
    """The three dataset folders, made where they are missing."""
    folders = [folder / f"{rows}-{number}" for number in range(len(SHARES))]
    for number, (one, share) in enumerate(zip(folders, SHARES, strict=True)):
        if not (one / "dataset.json").exists():
            began = time.perf_counter()
            make_folder(one, round(rows * share), number)
            print(f"{one.name}: made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return folders


# ---- memory


def own_memory() -> float:
    """MB of anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


class Steps:
    """Prints a line for each step: seconds, own memory and its peak."""

    def __init__(self, label: str) -> None:
        self.label, self.base, self.peak = label, 0.0, 0.0
        self.began = self.before = (0.0, 0.0)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, own_memory())
            time.sleep(0.02)

    def done(self, name: str, *, whole: bool = False) -> None:
        """The step that has just ended; whole: the time since the beginning."""
        now, own = (time.perf_counter() - START, time.process_time()), own_memory()
        self.peak = max(self.peak, own)
        seconds, processor = (end - start for end, start in zip(now, self.began if whole else self.before, strict=True))
        memory = f"{own - self.base:,.0f} MB | {self.peak - self.base:,.0f} MB"
        print(f"| {self.label} | {name} | {seconds:.2f} s | {processor:.2f} s | {memory} |", flush=True)
        if not self.base:
            self.base, self.peak, self.began = own, own, now
        self.before = now


# ---- what is measured


def start(folders: list[str], out: Path, label: str, resume: str = "images") -> None:
    """`ribcage finetune` up to its first batch, as `commands/finetune.py` `train` begins."""
    steps = Steps(label)
    from ribcage.commands import finetune
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import launcher
    from ribcage.training import options as training_options
    from ribcage.training import setup

    options = finetune.Options(
        data=tuple(folders), out=out, model="test_resnet", size=(VIEW,), epochs=1, batch=256, threads=1,
        sampling="classes" if resume == "classes" else "images",
    )  # fmt: skip
    options = training_options.with_defaults(options)
    with launcher.started() as device:
        steps.done("imports")
        data = Datasets.open(options.data)
        steps.done("open the folders")
        selection.distinct(data)
        steps.done("no image twice")
        train_rows, val_rows = finetune.split_rows(options, data)
        steps.done("training and validation rows, warnings")
        policy = finetune.policy_of(options, data)
        model = finetune.describe(options, data, train_rows, val_rows, policy)
        steps.done("describe the model")
        trainer = finetune.build(options, data, train_rows, model, policy, device)
        steps.done("loader and trainer")
        finetune.validator(options, trainer, data, val_rows, model, policy, device)
        setup.bundle_saver(options, data, train_rows, val_rows, lambda: (trainer.result, model))
        steps.done("validation and bundle")
        batches = trainer.loader.epoch(0)
        next(batches)
        steps.done("first batch")
        for _ in range(10):
            next(batches)
        steps.done("ten batches")
        steps.done("all steps after the imports", whole=True)
        os._exit(0)  # without waiting for the batches that are made ahead


def orders(folders: list[str], label: str) -> None:
    """The order of an epoch, drawn in every way."""
    steps = Steps(label)
    import numpy as np

    from ribcage.data import sampling
    from ribcage.data.collection import Datasets
    from ribcage.data.sampling import SamePatient, Sampler

    steps.done("imports")
    data = Datasets.open(folders)
    rows = data.rows_of("train")
    steps.done("open the folders")
    sampler = Sampler(rows, 0, True)
    sampler.order(0)
    steps.done("shuffled, first epoch")
    sampler.order(1)
    steps.done("shuffled, second epoch")
    weights = sampling.weight_per_row(data, rows, np.array([0.6, 0.3, 0.1]))
    steps.done("weight of each dataset")
    sampler = Sampler(rows, 0, True, weights)
    sampler.order(0)
    steps.done("weighted datasets, first epoch")
    sampler.order(1)
    steps.done("weighted datasets, second epoch")
    same = SamePatient.of(data, rows)
    steps.done("rows of each patient")
    same.draw(rows[:256], np.linspace(0, 0.99, 256))
    steps.done("same patient, one batch")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ten_million")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="one measurement: images, classes, orders or processes")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folders = [str(one) for one in make_all(given.folder, given.rows)]
    out = given.folder / "run"
    if given.child:
        what, label = given.child
        orders(folders, label) if what == "orders" else start(folders, out, label, what)
        return
    print(
        f"{given.rows:,} images in {len(folders)} folders\n",
        "| process | step | time | processor | own | peak |",
        sep="\n",
    )
    print("|---|---|---|---|---|---|", flush=True)
    for what in ("images", "classes", "orders", "processes"):
        if given.only in ("", what):
            _run(given, what)


def _run(given: argparse.Namespace, what: str) -> None:
    """One measurement in processes of its own."""
    words = [sys.executable, __file__, "--rows", str(given.rows), "--folder", str(given.folder), "--child"]
    if what != "processes":
        subprocess.run([*words, what, what], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "RIBCAGE_RENDEZVOUS": f"{folder}/store",
            "WORLD_SIZE": str(given.processes),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        ranks = [
            subprocess.Popen(
                [*words, "images", f"rank {rank} of {given.processes}"],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(given.processes)
        ]
        codes = [process.wait() for process in ranks]
        if any(codes):
            sys.exit("a process failed")


if __name__ == "__main__":
    main()
