"""A few synthetic image files with their index, and the dataset folder of their import."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from ribcage.data import dataset_facts, dataset_folder
from ribcage.data import index as indexes
from ribcage.data.importer import writer
from ribcage.data.index import Index
from ribcage.runtime.engines import Threads

SIZE = 32


def facts(root: Path, **changes: object) -> dataset_facts.Facts:
    plain = dataset_facts.Facts("made", "nih", "made up", "none", 0, 0, SIZE, "pad", 8, 0.0, 1.0, ("Mass",), str(root))
    return replace(plain, **changes)  # type: ignore[arg-type]


def images(root: Path, count: int, side: int = 48) -> Index:
    """Files of soft noise, two to a patient, and their Index."""
    root.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(3)
    for number in range(count):
        soft = cv2.resize(
            chance.integers(0, 256, (6, 6), np.uint8), (side, side + number % 5), interpolation=cv2.INTER_CUBIC
        )
        cv2.imencode(".png", soft)[1].tofile(root / f"{number:04d}.png")
    rows = pd.DataFrame(
        {
            "path": [f"{number:04d}.png" for number in range(count)],
            "patient": [f"p{number // 2}" for number in range(count)],
            "Mass": [number % 2 for number in range(count)],
            "split": "train",
        }
    )
    return Index("made", indexes.index_table(rows, ["Mass"]), ("Mass",), root=root)


def imported(index: Index, out: Path, workers: int = 1, **changes: object) -> dataset_folder.DatasetFolder:
    with writer.Writer(index, facts(index.root, **changes), out, engine=Threads(workers)) as work:
        for _ in work.run():
            pass
    return dataset_folder.open(out)
