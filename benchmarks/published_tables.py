"""Numbers of images, patients and labels in published tables, as the importers read them.

    pip download --no-deps torchxrayvision==1.5.7 && unzip torchxrayvision-1.5.7-*.whl -d xrv
    python benchmarks/published_tables.py xrv/torchxrayvision/data

The wheel of TorchXRayVision contains the complete tables of several datasets, without their images. Each table is
linked or unpacked into an empty folder and read by `ribcage.data.datasets.index`."""

import argparse
import tarfile
import tempfile
import time
from pathlib import Path

import pandas as pd

from ribcage.data import datasets, reader_policy

TABLES = {
    "nih": ("Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"),
    "openi": ("NLMCXR_reports.tgz", "nlmcxr_dicom_metadata.csv.gz"),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",),
    "rsna": ("kaggle_stage_2_train_labels.csv.zip",),
    "siim": ("siim-pneumothorax-train-rle.csv.gz",),
    "vindr": ("vinbigdata-train.csv.gz",),
}
"""Dataset → its files in the wheel."""
NAMES = {
    "kaggle_stage_2_train_labels.csv.zip": "stage_2_train_labels.csv.zip",
    "siim-pneumothorax-train-rle.csv.gz": "train-rle.csv.gz",
    "vinbigdata-train.csv.gz": "train.csv.gz",
}
"""Names under which the datasets publish files that the wheel renames."""


def main() -> None:
    """Print a table of all datasets, one of their labels, and one of boxes of several readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder data of the wheel")
    folder: Path = parser.parse_args().folder
    print("| dataset | images | patients | studies | boxes | s |\n|---|---|---|---|---|---|")
    labels, agreed = [], []
    for name, files in TABLES.items():
        with tempfile.TemporaryDirectory() as place:
            for file in files:
                provide((folder / file).resolve(strict=True), Path(place) / NAMES.get(file, file))
            start = time.perf_counter()
            found = datasets.index(name, Path(place))
        seconds = time.perf_counter() - start
        people, studies = (found.table[column].replace("", None).nunique() for column in ("patient", "study"))
        print(f"| `{name}` | {len(found):,} | {people:,} | {studies:,} | {len(found.boxes):,} | {seconds:.1f} |")
        if len(found.readings):
            kept = [len(reader_policy.combined_boxes(found, readers)) for readers in ("majority", "any")]
            agreed.append((name, len(found.readings), found.readings["reader"].nunique(), len(found.boxes), *kept))
        labels += [(name, finding, found.table[finding]) for finding in found.findings]
    print("\n| dataset | finding | present | absent | uncertain | unknown |\n|---|---|---|---|---|---|")
    for name, finding, column in labels:
        print(f"| `{name}` | {finding} | {' | '.join(counts(column))} |")
    print("\n| dataset | readings | readers | boxes | readers=majority | readers=any |\n|---|---|---|---|---|---|")
    for name, *numbers in agreed:
        print(f"| `{name}` | {' | '.join(f'{number:,}' for number in numbers)} |")


def provide(file: Path, place: Path) -> None:
    """Link a file, or unpack an archive."""
    if file.suffix == ".tgz":
        with tarfile.open(file) as archive:
            archive.extractall(place.parent, filter="data")
    else:
        place.symlink_to(file)


def counts(column: pd.Series) -> list[str]:
    """How many labels are 1, 0, -1 and unknown."""
    return [f"{number:,}" for number in (*((column == value).sum() for value in (1, 0, -1)), column.isna().sum())]


if __name__ == "__main__":
    main()
