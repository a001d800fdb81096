"""Numbers of images, patients and labels in published tables, as the importers read them.

    pip download --no-deps torchxrayvision==1.5.7 && unzip torchxrayvision-1.5.7-*.whl -d xrv
    python benchmarks/published_tables.py xrv/torchxrayvision/data

The wheel of TorchXRayVision contains the complete tables of several datasets, without their images. Each table is
linked or unpacked into an empty folder and read by `ribcage.data.datasets.index`."""

import argparse
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ribcage.data import datasets, reader_policy
from ribcage.data.radiology_reports import SECTIONS

TABLES = {
    "chexpert": ("chexpert_train.csv.gz",),
    "nih": ("Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"),
    "openi": ("NLMCXR_reports.tgz", "nlmcxr_dicom_metadata.csv.gz"),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",),
    "rsna": ("kaggle_stage_2_train_labels.csv.zip",),
    "siim": ("siim-pneumothorax-train-rle.csv.gz",),
    "vindr": ("vinbigdata-train.csv.gz",),
}
"""Dataset → its files in the wheel."""
NAMES = {
    "chexpert_train.csv.gz": "train.csv.gz",
    "kaggle_stage_2_train_labels.csv.zip": "stage_2_train_labels.csv.zip",
    "siim-pneumothorax-train-rle.csv.gz": "train-rle.csv.gz",
    "vinbigdata-train.csv.gz": "train.csv.gz",
}
"""Names under which the datasets publish files that the wheel renames."""


def main() -> None:
    """Print a table of all datasets, one of their labels, one of boxes of several readers, and one of reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder data of the wheel")
    folder: Path = parser.parse_args().folder
    print("| dataset | images | patients | studies | boxes | reports | s |\n|---|---|---|---|---|---|---|")
    labels, agreed, sections = [], [], []
    for name, files in TABLES.items():
        with tempfile.TemporaryDirectory() as place:
            for file in files:
                provide((folder / file).resolve(strict=True), Path(place) / NAMES.get(file, file))
            start = time.perf_counter()
            found = datasets.index(name, Path(place))
        seconds = time.perf_counter() - start
        people, studies = (found.table[column].replace("", None).nunique() for column in ("patient", "study"))
        counts = [len(found), people, studies, len(found.boxes), len(found.reports)]
        print(line(name, counts), f"{seconds:.1f} |")
        if len(found.reports):
            sections.append((name, *((found.reports[section] != "").sum() for section in SECTIONS)))
        if len(found.readings):
            kept = [len(reader_policy.combined_boxes(found, readers)) for readers in ("majority", "any")]
            agreed.append((name, len(found.readings), found.readings["reader"].nunique(), len(found.boxes), *kept))
        labels += [(name, finding, found.table[finding]) for finding in found.findings]
    print("\n| dataset | finding | present | absent | uncertain | unknown |\n|---|---|---|---|---|---|")
    for name, finding, column in labels:
        print(line(name, label_counts(column), finding))
    print("\n| dataset | readings | readers | boxes | readers=majority | readers=any |\n|---|---|---|---|---|---|")
    for name, *numbers in agreed:
        print(line(name, numbers))
    print(f"\n| dataset | {' | '.join(SECTIONS)} |\n|---{'|---' * len(SECTIONS)}|")
    for name, *numbers in sections:
        print(line(name, numbers))


def line(name: str, numbers: Sequence[int], *words: str) -> str:
    """A row of a table."""
    return f"| {' | '.join([f'`{name}`', *words, *(f'{number:,}' for number in numbers)])} |"


def provide(file: Path, place: Path) -> None:
    """Link a file, or unpack an archive."""
    if file.suffix == ".tgz":
        with tarfile.open(file) as archive:
            archive.extractall(place.parent, filter="data")
    else:
        place.symlink_to(file)


def label_counts(column: pd.Series) -> list[int]:
    """How many labels are 1, 0, -1 and unknown."""
    return [*(int((column == value).sum()) for value in (1, 0, -1)), int(column.isna().sum())]


if __name__ == "__main__":
    main()
