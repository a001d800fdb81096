"""Cost of the input pipeline relative to the usual one: Pillow RGB and torchvision v1 transforms, image by image.

    python benchmarks/data.py [--quick] [--only KIND]

Everything runs in one thread, side by side in one process: the pipelines alternate, and medians are compared. Quote the
ratios; milliseconds depend on the machine. Images are synthetic, at the size and about the mean file size of real
ones: 49 kB in CheXpert-small (11 GB / 223,648), 0.4 MB in ChestX-ray14 (42 GB /
112,120), 1.5 MB in MIMIC-CXR-JPG (570 GB / 377,110)."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision import transforms

from ribcage.commands.import_ import cores
from ribcage.data import dataset_facts, dataset_folder, datasets, image_store
from ribcage.data import index as indexes
from ribcage.data.datasets.chexpert import LABELS
from ribcage.data.importer import pixel_files, writer
from ribcage.data.index import Index
from ribcage.data.loader import Loader
from ribcage.imaging import augment, image_file, jpeg_block_means, jpeg_pixels, png_rows
from ribcage.imaging.augment import compiled_warp
from ribcage.runtime import rng
from ribcage.runtime.engines import Threads

SIDE = 224  # of a view
STORED = 256


@dataclass(frozen=True)
class Kind:
    """Files of one dataset, made up."""

    name: str
    width: int
    height: int
    format: str
    grain: float
    """Standard deviation of the noise: it sets the weight of a file."""
    folder_goal: float
    file_goal: float
    decode_goal: float | None


KINDS = (
    Kind("CheXpert-small JPEG", 390, 320, ".jpg", 4.0, 10, 4.0, None),
    Kind("NIH PNG", 1024, 1024, ".png", 1.0, 120, 1.6, 1.6),
    Kind("MIMIC JPEG", 2500, 3000, ".jpg", 2.2, 250, 3.5, 4.0),
)

CHAIN = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIDE, scale=(0.5, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(10),
        transforms.ColorJitter(0.2, 0.2),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


def make_files(kind: Kind, folder: Path, count: int) -> list[Path]:
    """Phantoms at the size of the kind, with grain."""
    index = datasets.index("phantom", images=count)
    draw = datasets.images("phantom", index, size=512)
    assert draw is not None
    chance = np.random.default_rng(0)
    files = []
    for row in range(count):
        pixels: np.ndarray = cv2.resize(
            np.asarray(draw(row)), (kind.width, kind.height), interpolation=cv2.INTER_CUBIC
        ).astype(np.float32)
        pixels += chance.normal(0, kind.grain, pixels.shape).astype(np.float32)
        files.append(folder / f"{row:04d}{kind.format}")
        gray = np.clip(pixels, 0, 255).astype(np.uint8)
        cv2.imencode(kind.format, gray, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tofile(files[-1])
    return files


def make_folder(files: list[Path], folder: Path, *, link: bool) -> dataset_folder.DatasetFolder:
    """A dataset folder of these files."""
    rows = pd.DataFrame({"path": [file.name for file in files], "split": "train"})
    index = Index("bench", indexes.index_table(rows), root=files[0].parent)
    facts = dataset_facts.Facts("bench", "folder", "", "", 0, 0, STORED, "pad", 8, 0.0, 1.0, (), str(index.root))
    if link:
        writer.link(index, facts, folder, sample=8)
    else:
        with writer.Writer(index, facts, folder, engine=Threads(cores())) as work:
            list(work.run())
    return dataset_folder.open(folder)


# ---- the contestants: each returns how many images it made


def chain(files: list[Path]) -> int:
    """What most training scripts do."""
    for file in files:
        with Image.open(file) as opened:
            CHAIN(opened.convert("RGB"))
    return len(files)


def loader(opened: dataset_folder.DatasetFolder, rounds: int = 1) -> Callable[[], int]:
    """Our batches with our augmentation, in one thread."""
    rows = np.tile(np.arange(len(opened)), rounds)
    batches = Loader([opened], [augment.gentle_view(SIDE)], batch=64, rows=rows, threads=1)

    def run() -> int:
        return sum(len(batch) for batch in batches.epoch(0))

    return run


def gather(opened: dataset_folder.DatasetFolder, rounds: int) -> Callable[[], int]:
    """The floor: rows of the memory map into a batch, nothing else."""
    images = torch.from_numpy(np.array(opened.images))
    rows = rng.permutation(0, 0, len(images))

    def run() -> int:
        for _ in range(rounds):
            for start in range(0, len(rows), 64):
                torch.index_select(images, 0, torch.from_numpy(rows[start : start + 64]))
        return rounds * len(rows)

    return run


def chain_decode(files: list[Path]) -> int:
    """The usual decoder and resize."""
    for file in files:
        with Image.open(file) as opened:
            np.asarray(opened.convert("RGB").resize((STORED, STORED), Image.Resampling.BILINEAR))
    return len(files)


def our_decode(files: list[Path]) -> int:
    """What an import does with a file."""
    for file in files:
        image = image_file.read_image(file, min_side=STORED)
        image_file.fit(image.pixels, STORED, "pad", of=(image.width, image.height))
    return len(files)


def side_by_side(contestants: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median CPU seconds an image of each, taking turns; on a shared machine the wall-clock time depends on others."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.process_time()
            count = run()
            if turn:  # the first turn warms caches
                taken[name].append((time.process_time() - start) / count)
    return {name: statistics.median(times) for name, times in taken.items()}


# ---- the tables


def training_batches(kind: Kind, folder: Path, count: int, rounds: int) -> list[str]:
    """One row for each way to a training batch."""
    (folder / "files").mkdir()
    files = make_files(kind, folder / "files", count)
    weight = statistics.mean(file.stat().st_size for file in files) / 1e3
    stored, linked = (make_folder(files, folder / name, link=name == "linked") for name in ("stored", "linked"))
    repeats = max(1, 2048 // count)  # as in longer epochs, most batches use the memory of earlier ones
    times = side_by_side(
        {
            "chain": lambda: chain(files),
            "files": loader(linked),
            "folder": loader(stored, repeats),
            "floor": gather(stored, repeats),
        },
        rounds,
    )
    base = times["chain"]
    head = f"{kind.name} {kind.width}×{kind.height}, {weight:,.0f} kB"
    lines = [
        row(f"{head}: baseline", base, 1.0, None),
        row("  from the files", times["files"], base / times["files"], kind.file_goal),
        row("  from a dataset folder", times["folder"], base / times["folder"], kind.folder_goal),
        row("  limit: copy from memory", times["floor"], base / times["floor"], None),
        f"{'  throughput relative to that limit':52}{'':>12}{times['floor'] / times['folder']:>10.1%}",
    ]
    if kind.decode_goal:
        times = side_by_side({"chain": lambda: chain_decode(files), "ours": lambda: our_decode(files)}, rounds)
        lines += [
            row("  import (decode and resize), baseline", times["chain"], 1.0, None),
            row(
                "  import (decode and resize), ribcage", times["ours"], times["chain"] / times["ours"], kind.decode_goal
            ),
        ]
    return lines


def floors(folder: Path) -> list[str]:
    """What single steps cost, below which no pipeline made of them can go."""
    files = make_files(KINDS[0], folder, 32)
    coded = [np.fromfile(file, np.uint8) for file in files]
    large = [np.fromfile(file, np.uint8) for file in make_files(KINDS[2], folder, 4)]
    plain = [data.tobytes() for data in large]
    lossless = [np.fromfile(file, np.uint8) for file in make_files(KINDS[1], folder, 8)]
    checked = [data.tobytes() for data in lossless]
    grain = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    gray = [cv2.resize(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)), (STORED, STORED)) for data in coded]
    wide, table = gray[0].astype(np.float32), np.linspace(-2, 2, 256, dtype=np.float32)
    matrix, flags = cv2.getRotationMatrix2D((128, 128), 5, 1.1), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    outs = np.empty((SIDE, SIDE), np.float32), np.empty((SIDE, SIDE), np.uint8)
    matrices, noise, starts = np.stack([matrix] * 32), np.full(32, 0.01, np.float32), np.zeros(32, np.int64)
    warp = compiled_warp.LevelWarp(np.stack([table] * 32), matrices, noise, starts, grain.ravel())
    decoded = [np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) for data in coded]
    small = [data.tobytes() for data in coded]

    def compiled() -> int:
        for n, one in enumerate(gray):
            warp(n, one, outs[0])
        return len(gray)

    times = side_by_side(
        {
            "decode a CheXpert-small JPEG, OpenCV": lambda: len(
                [cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in coded]
            ),
            "decode a CheXpert-small JPEG, ribcage": lambda: len([jpeg_pixels.decode_gray(data) for data in small]),
            "resize a CheXpert-small image to 256²": lambda: len(
                [image_file.fit(pixels, STORED, "pad") for pixels in decoded]
            ),
            "table of grey values, 256²": lambda: len([cv2.LUT(one, table) for one in gray]),
            "warp 256² to 224², float32": lambda: len(
                [cv2.warpAffine(wide, matrix, (SIDE, SIDE), outs[0], flags) for _ in gray]
            ),
            "warp 256² to 224², 8 bit": lambda: len(
                [cv2.warpAffine(one, matrix, (SIDE, SIDE), outs[1], flags) for one in gray]
            ),
            "add noise, 224²": lambda: len([cv2.scaleAdd(grain, 0.01, outs[0], outs[0]) for _ in gray]),
            "table, warp and noise, one compiled function": compiled,
            "decode a MIMIC JPEG at 1/8, OpenCV": lambda: len(
                [cv2.imdecode(data, cv2.IMREAD_REDUCED_GRAYSCALE_8) for data in large]
            ),
            "decode a MIMIC JPEG at 1/8, block means": lambda: len(
                [jpeg_block_means.decode_block_means(data) for data in plain]
            ),
            "decode an NIH PNG, OpenCV, unchecked": lambda: len(
                [cv2.imdecode(data, cv2.IMREAD_UNCHANGED) for data in lossless]
            ),
            "decode an NIH PNG, ribcage, checked": lambda: len([image_file.decode_image(data, "") for data in checked]),
        },
        rounds=15,
    )
    return [f"{name:52}{1e3 * seconds:>9.3f} ms" for name, seconds in times.items()]


def row(name: str, seconds: float, ratio: float, goal: float | None) -> str:
    """One line of the table."""
    end = "" if goal is None else f"   goal ≥ {goal:g}×: {verdict(ratio >= goal)}"
    return f"{name:52}{1e3 * seconds:>9.3f} ms{ratio:>9.1f}×{end}"


MEMORY = "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1024)"
MILLION = f"""
import sys, time
start = time.perf_counter()
from ribcage.data import dataset_facts, dataset_folder
begun = time.perf_counter()
opened = dataset_folder.open(sys.argv[1])
opened.index.labels
print(time.perf_counter() - begun, begun - start)
{MEMORY}
"""
EPOCH = f"""
import sys, torch
from ribcage.data import dataset_facts, dataset_folder
from ribcage.data.loader import Loader
from ribcage.imaging import augment
torch.set_num_threads(1)
opened = dataset_folder.open(sys.argv[1])
for batch in Loader([opened], [augment.gentle_view(224)], batch=64, threads=int(sys.argv[2])).epoch(0):
    pass
{MEMORY}
"""


def elsewhere(code: str, *words: str) -> list[float]:
    """The numbers that a process of its own prints."""
    answer = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return [float(number) for number in answer.stdout.split()]


def verdict(met: bool) -> str:
    """In a word."""
    return "met" if met else "MISSED"


def million(folder: Path, count: int = 1_000_000) -> str:
    """Opening a folder of a million rows, in a process of its own."""
    chance, numbers = np.random.default_rng(0), np.arange(count)
    findings = tuple(f"F{number}" for number in range(14))
    rows = pd.DataFrame({"path": [f"images/{number // 9:08d}_{number % 9:03d}.png" for number in numbers]})
    rows = rows.assign(patient=[f"{number // 9:08d}" for number in numbers], view="PA", split="train", age=50.0)
    rows = rows.assign(sex="F", study=rows["patient"] + "_0")
    rows = rows.assign(**{name: chance.choice([1, 0, -1, np.nan], count) for name in findings})
    folder.mkdir()
    Index("bench", indexes.index_table(rows, findings), findings).save(folder / "index.parquet")
    with (folder / "images.npy").open("wb") as file:  # a hole in the disk: opening reads no pixel
        file.write(pixel_files.npy_header((count, STORED, STORED), np.dtype(np.uint8)))
        file.truncate(image_store.HEADER + count * STORED**2)
    facts = dataset_facts.Facts("bench", "folder", "", "", count, 0, STORED, "pad", 8, 0.5, 0.2, findings, "")
    dataset_folder.write_facts(folder, facts)
    seconds, imports, memory = elsewhere(MILLION, str(folder))
    goal = f"goal < 2 s, < 500 MB: {verdict(seconds < 2 and memory < 500)}"
    return f"open a folder of {count:,} rows: {seconds:.2f} s (imports {imports:.2f} s), {memory:,.0f} MB   {goal}"


def memory_by_threads(folder: Path) -> str:
    """Peak memory of an epoch with 1 and with 8 threads, in processes of their own."""
    (one,), (eight,) = (elsewhere(EPOCH, str(folder), threads) for threads in "18")
    return f"memory of an epoch: {one:,.0f} MB with 1 thread, {eight:,.0f} MB with 8 ({eight / one - 1:+.1%})"


def chexpert_csv(folder: Path, count: int = 223_414) -> str:
    """Building the index of a csv as long as CheXpert's."""
    root = folder / "CheXpert-v1.0-small"
    root.mkdir(parents=True)
    chance = np.random.default_rng(0)
    places = (f"patient{number // 3:05d}/study{number % 3}/view1_frontal.jpg" for number in range(count))
    rows = pd.DataFrame({"Path": [f"CheXpert-v1.0-small/train/{place}" for place in places], "Sex": "Male", "Age": 60})
    rows = rows.assign(**{"Frontal/Lateral": "Frontal", "AP/PA": "AP"})
    rows = rows.assign(**{name: chance.choice([1.0, 0.0, -1.0, np.nan], count) for name in LABELS})
    rows.to_csv(root / "train.csv", index=False)
    valid = rows.head(234).assign(Path=rows["Path"].str.replace("/train/", "/valid/"))
    valid.to_csv(root / "valid.csv", index=False)
    start = time.perf_counter()
    index = datasets.index("chexpert", root)
    seconds = time.perf_counter() - start
    return f"index of a CheXpert csv of {len(index):,} rows: {seconds:.2f} s   goal < 3 s: {verdict(seconds < 3)}"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--floors", action="store_true", help="only the single steps")
    parser.add_argument("--only", help="only the files whose kind begins with this, such as MIMIC")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds, for a rough impression")
    options = parser.parse_args()
    quick = options.quick
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # as in any longer import: with few images, most would be decoded before that
    for module in (jpeg_block_means, jpeg_pixels, png_rows, compiled_warp):
        vars(module)["OPENCV_FIRST"] = 0
    versions = f"torch {torch.__version__}, OpenCV {cv2.__version__}, Pillow {Image.__version__}"
    print(f"{os.cpu_count()} cores, {versions}; one thread\n")
    if options.floors:
        with tempfile.TemporaryDirectory() as place:
            print(*floors(Path(place)), sep="\n")
        return
    print(f"{'time from an image on disk to a training batch':52}{'':>3}time each   ratio")
    with tempfile.TemporaryDirectory() as place:
        for number, kind in enumerate(KINDS):
            if not kind.name.startswith(options.only or ""):
                continue
            (Path(place) / str(number)).mkdir()
            count = 16 if quick else 64
            for line in training_batches(kind, Path(place) / str(number), count, rounds=3 if quick else 9):
                print(line, flush=True)
        if options.only:
            return
        print()
        (Path(place) / "floors").mkdir()
        print("single steps", *floors(Path(place) / "floors"), "", sep="\n", flush=True)
        print(million(Path(place) / "million"), flush=True)
        print(memory_by_threads(Path(place) / "0" / "stored"), flush=True)
        print(chexpert_csv(Path(place) / "csv"))


if __name__ == "__main__":
    main()
