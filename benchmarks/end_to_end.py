"""One epoch from the command to the saved model, compared with a plain training script.

    python benchmarks/end_to_end.py [--images 1000] [--size 128] [--batch 32] [--threads 2] [--rounds 3]
                                    [--precision auto]

Both train a ResNet-18 from random weights on the same JPEG files and validate it, alternately and in separate
processes. The script computes in float32; Ribcage in the precision that `ribcage finetune` chooses for the processor,
or in --precision float32. The script uses torchvision's model on RGB, Pillow, torchvision's transforms, a DataLoader
with workers, AdamW, BCE, scikit-learn's AUROC and torch.save. `ribcage finetune` reads a dataset folder that
`ribcage import` made from the files; the time of the import is printed separately. It also does what the script does
not: it checks images and patients, calibrates, chooses thresholds, fits the out-of-distribution check, and writes the
model card and a checkpoint. Times are medians over the rounds, in seconds of wall-clock time.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PARTS = ("start-up", "steps", "validation", "saving", "exit")
COMPUTED = "CPU seconds, total"
SIDE = 224  # of a file
SHARE = 0.15  # of the training images, so many more validate


def plain(folder: Path, out: Path, asked: argparse.Namespace) -> dict[str, float]:
    """What most training scripts do."""
    import numpy as np
    import pandas as pd
    import torch
    from PIL import Image
    from sklearn.metrics import roc_auc_score
    from torch.utils.data import DataLoader, Dataset
    from torchvision import models, transforms

    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    end = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    seen = {
        "train": transforms.Compose(
            [
                transforms.RandomResizedCrop(asked.size, scale=(0.8, 1.0)),
                transforms.RandomRotation(10),
                transforms.ColorJitter(0.2, 0.2),
                *end,
            ]
        ),
        "val": transforms.Compose([transforms.Resize((asked.size, asked.size)), *end]),
    }

    class Files(Dataset[Any]):
        def __init__(self, split: str) -> None:
            table = pd.read_csv(folder / "table.csv")
            table = table[table["split"] == split]
            self.paths, self.transform = [folder / path for path in table["path"]], seen[split]
            self.labels = table.drop(columns=["path", "patient", "split"]).to_numpy(np.float32)

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, np.ndarray]:
            return self.transform(Image.open(self.paths[row]).convert("RGB")), self.labels[row]

    workers = asked.threads
    train = DataLoader(Files("train"), asked.batch, shuffle=True, num_workers=workers, drop_last=True)
    val = DataLoader(Files("val"), asked.batch, num_workers=workers)
    model = models.resnet18(num_classes=len(train.dataset[0][1]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
    loss = torch.nn.BCEWithLogitsLoss()
    begun = time.time()
    model.train()
    running = 0.0
    for images, labels in train:
        optimizer.zero_grad()
        found = loss(model(images), labels)
        found.backward()
        optimizer.step()
        running += found.item()
    trained = time.time()
    model.eval()
    scores, known = [], []
    with torch.no_grad():
        for images, labels in val:
            scores.append(model(images).sigmoid())
            known.append(labels)
    truth, said = torch.cat(known).numpy(), torch.cat(scores).numpy()
    both = [place for place in range(truth.shape[1]) if len(set(truth[:, place])) == 2]
    auroc = np.mean([roc_auc_score(truth[:, place], said[:, place]) for place in both])
    validated = time.time()
    print(f"loss {running / len(train):.4f}, AUROC {auroc:.4f}")
    torch.save(model.state_dict(), out / "model.pt")
    return {"begun": begun, "trained": trained, "validated": validated, "saved": time.time()}


def ours(folder: Path, out: Path, asked: argparse.Namespace) -> dict[str, float]:
    """`ribcage finetune`, with an eye on the clock."""
    from ribcage import cli
    from ribcage.evaluation import classifier_validation
    from ribcage.training import trainer

    marks: dict[str, float] = {}
    fit, validate = trainer.Trainer.fit, classifier_validation.ClassifierValidation.__call__

    def timed_fit(self: Any) -> Any:
        marks["begun"] = time.time()
        for log in fit(self):
            marks["trained"] = time.time()
            yield log

    def timed_validation(self: Any) -> dict[str, float]:
        began = time.time()
        found = validate(self)
        marks["validated"] = marks["trained"] + time.time() - began
        return found

    trainer.Trainer.fit, classifier_validation.ClassifierValidation.__call__ = timed_fit, timed_validation  # type: ignore[method-assign]
    words = ["finetune", "--data", str(folder), "--out", str(out / "run"), "--model", "resnet18", "--size"]
    words += [str(asked.size), "--epochs", "1", "--batch", str(asked.batch), "--precision", asked.precision]
    code = cli.main(words)
    if code:
        sys.exit(code)
    return marks | {"saved": time.time()}


WAYS = {"plain": plain, "ours": ours}


def measured(way: str, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of each part, of one run in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"OMP_NUM_THREADS": str(asked.threads)}
    words = [sys.executable, __file__, "--worker", way, "--folder", str(folder), *sys.argv[1:]]
    with tempfile.TemporaryDirectory() as out:
        start, before = time.time(), computed()
        subprocess.run([*words, "--out", out], env=environment, stdout=subprocess.DEVNULL, check=True)
        end = time.time()
        marks = json.loads((Path(out) / "marks.json").read_text(encoding="utf-8"))
    times = [start, *(marks[name] for name in ("begun", "trained", "validated", "saved")), end]
    taken = {name: later - earlier for name, earlier, later in zip(PARTS, times, times[1:], strict=False)}
    return taken | {"total": end - start, COMPUTED: computed() - before}


def computed() -> float:
    """Seconds that processors worked for the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make(folder: Path, images: int) -> int:
    """Synthetic radiographs as JPEG files and their table; how many are to train on."""
    import cv2
    import numpy as np

    from ribcage.data import datasets

    folder.mkdir(parents=True)
    count = round(images * (1 + SHARE))
    index = datasets.index("phantom", images=count)
    draw = datasets.images("phantom", index, size=SIDE)
    assert draw is not None
    table = index.table[["patient", *index.findings]].copy()
    patients = list(dict.fromkeys(table["patient"]))
    learn = set(patients[: round(len(patients) / (1 + SHARE))])
    table[list(index.findings)] = (table[list(index.findings)] == 1).astype(int)
    table.insert(0, "path", [f"{row:05d}.jpg" for row in range(count)])
    table.insert(2, "split", ["train" if patient in learn else "val" for patient in table["patient"]])
    for row, path in enumerate(table["path"]):
        cv2.imencode(".jpg", np.asarray(draw(row)), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tofile(folder / path)
    table.to_csv(folder / "table.csv", index=False)
    return int((table["split"] == "train").sum())


def imported(folder: Path, files: Path, threads: int) -> float:
    """Seconds of `ribcage import`."""
    words = ["import", "folder", str(files), "--out", str(folder), "--size", str(SIDE), "--threads", str(threads)]
    start = time.time()
    subprocess.run([sys.executable, "-m", "ribcage", *words], stdout=subprocess.DEVNULL, check=True)
    return time.time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=1000, help="training images; 15 %% more validate")
    parser.add_argument("--size", type=int, default=128, help="pixels that the model sees")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="that compute; the script has as many workers, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto", help="of ours")
    parser.add_argument("--worker", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        marks = WAYS[asked.worker](asked.folder, asked.out, asked)
        (asked.out / "marks.json").write_text(json.dumps(marks), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as place:
        data = {"plain": Path(place) / "files", "ours": Path(place) / "folder"}
        count = make(data["plain"], asked.images)
        seconds = imported(data["ours"], data["plain"], asked.threads)
        found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
        for turn in range(asked.rounds):
            for way in (*found,) if turn % 2 == 0 else reversed((*found,)):
                found[way].append(measured(way, data[way], asked))
    report(found, count, seconds, asked)


def report(found: dict[str, list[dict[str, float]]], count: int, seconds: float, asked: argparse.Namespace) -> None:
    """The table, and the machine."""
    import torch

    middle = {
        way: {name: statistics.median(one[name] for one in runs) for name in runs[0]} for way, runs in found.items()
    }
    model = f"ResNet-18, {asked.size} px, batch {asked.batch}, {asked.threads} thread(s), ours {asked.precision}"
    print(f"{model}, one epoch of {count:,} images, torch {torch.__version__}")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; seconds, median of {asked.rounds}\n")
    print("| phase, in seconds | script | `finetune` | ratio to script |\n|---|---:|---:|---:|")
    for name in (*PARTS, "total", COMPUTED):
        one, own = middle["plain"][name], middle["ours"][name]
        print(f"| {name} | {one:.1f} | {own:.1f} | {f'{one / own:.2f}×' if own > 0.05 else '–'} |")
    rates = [count / middle[way]["steps"] for way in found]
    print(f"| images/s during the steps | {rates[0]:.1f} | {rates[1]:.1f} | {rates[1] / rates[0]:.2f}× |")
    print(f"\nImport, done once for all trainings: {seconds:.1f} s")


if __name__ == "__main__":
    main()
