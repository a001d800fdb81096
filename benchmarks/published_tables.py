"""Numbers of images, patients, labels and reports in published tables, as the importers read them.

    pip download --no-deps torchxrayvision==1.5.7 && unzip torchxrayvision-1.5.7-*.whl -d xrv
    git clone https://github.com/rajpurkarlab/cheXpert-test-set-labels
    git clone https://github.com/lindawangg/COVID-Net && mkdir covidx9a && cp COVID-Net/labels/*_COVIDx9A.txt covidx9a
    python benchmarks/published_tables.py xrv/torchxrayvision/data chexpert:cheXpert-test-set-labels \
      chexpert:cheXpert-test-set-labels:readers=ground-truth covidx:covidx9a

The wheel of TorchXRayVision contains the complete tables of several datasets, without their images. Each table is
linked or unpacked into an empty folder and read by `ribcage.data.datasets.index`. Further arguments of the form
DATASET:FOLDER or DATASET:FOLDER:OPTION=VALUE are datasets that are read from a folder as it is."""

import argparse
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import datasets, reader_policy
from ribcage.data.index import Index
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
    """Print tables of all datasets, their labels, several readers, reports and masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder data of the wheel")
    parser.add_argument("more", nargs="*", metavar="DATASET:FOLDER", help="further datasets")
    options = parser.parse_args()
    print("| dataset | images | patients | studies | boxes | reports | s |\n|---|---|---|---|---|---|---|")
    found = [(name, read_of_wheel(name, options.folder)) for name in TABLES]
    for word in options.more:
        name, root, *own = word.split(":")
        found.append((name, read(name, Path(root), **dict(each.split("=") for each in own))))
    print("\n| dataset | finding | present | absent | uncertain | unknown |\n|---|---|---|---|---|---|")
    for name, index in found:
        for finding in index.findings:
            print(line(name, label_counts(index.table[finding]), finding))
    columns = (
        "readings",
        "readers",
        "labels that differ from the majority",
        "boxes",
        "`readers=majority`",
        "`readers=any`",
    )
    print(f"\n| dataset | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name, index in found:
        if len(index.readings):
            print(line(name, reader_counts(index)))
    print(f"\n| dataset | {' | '.join(SECTIONS)} |\n|---{'|---' * len(SECTIONS)}|")
    for name, index in found:
        if len(index.reports):
            print(line(name, [int((index.reports[section] != "").sum()) for section in SECTIONS]))
    print("\n| dataset | structure | images | masks | empty masks |\n|---|---|---|---|---|")
    for name, index in found:
        for structure, masks in index.masks.groupby("structure"):
            empty = int((masks["columns"] == 0).sum())
            print(line(name, [masks["row"].nunique(), len(masks) - empty, empty], structure))


def read_of_wheel(name: str, wheel: Path) -> Index:
    """The index of a dataset whose tables are in the wheel."""
    with tempfile.TemporaryDirectory() as place:
        for file in TABLES[name]:
            provide((wheel / file).resolve(strict=True), Path(place) / NAMES.get(file, file))
        return read(name, Path(place))


def read(name: str, root: Path, **options: str) -> Index:
    """The index of a dataset; prints its row of the first table."""
    start = time.perf_counter()
    found = datasets.index(name, root, **options)
    seconds = time.perf_counter() - start
    people, studies = (found.table[column].replace("", None).nunique() for column in ("patient", "study"))
    print(line(name, [len(found), people, studies, len(found.boxes), len(found.reports)]), f"{seconds:.1f} |")
    return found


def provide(file: Path, place: Path) -> None:
    """Link a file, or unpack an archive."""
    if file.suffix == ".tgz":
        with tarfile.open(file) as archive:
            archive.extractall(place.parent, filter="data")
    else:
        place.symlink_to(file)


def line(name: str, numbers: Sequence[int], *words: str) -> str:
    """A row of a table."""
    return f"| {' | '.join([f'`{name}`', *words, *(f'{number:,}' for number in numbers)])} |"


def label_counts(column: pd.Series) -> list[int]:
    """How many labels are 1, 0, -1 and unknown."""
    return [*(int((column == value).sum()) for value in (1, 0, -1)), int(column.isna().sum())]


def reader_counts(index: Index) -> list[int]:
    """Readings, readers, labels that differ from the majority of all readers, and boxes under each policy."""
    majority = reader_policy.majority_labels(index.readings, index.findings, len(index))
    unlike = int(((majority != index.labels) & ~np.isnan(majority)).sum())
    boxes = [len(reader_policy.combined_boxes(index, readers)) for readers in ("majority", "any")]
    return [len(index.readings), index.readings["reader"].nunique(), unlike, len(index.boxes), *boxes]


if __name__ == "__main__":
    main()
