"""Small dataset folders of smooth random images."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from ribcage.data import dataset_folder
from ribcage.data.dataset_facts import Facts
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.index import Index, box_frame, index_table


def make_store(
    folder: Path,
    count: int = 50,
    size: int = 48,
    depth: int = 8,
    findings: tuple[str, ...] = ("Mass", "Edema"),
    linked: bool = False,
) -> DatasetFolder:
    """A real dataset folder of smooth random images; linked: PNG files beside it."""
    folder = folder / f"胸片 set {count}"
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    coarse = random.integers(0, 1 << depth, (count, 6, 6)).astype(np.float32)
    images = np.stack([cv2.resize(each, (size, size)) for each in coarse]).astype(f"uint{depth}")
    rows = pd.DataFrame({"path": [f"图 {n}.png" for n in range(count)], "split": ["train", "val"] * (count // 2)})
    rows["patient"] = ["" if n % 11 == 0 else f"病人 {n // 5}" for n in range(count)]
    labels = random.choice([1.0, 0.0, -1.0, np.nan], (count, len(findings)))
    rows[list(findings)] = labels
    drawn = pd.DataFrame(
        {"row": np.arange(0, count, 3), "finding": findings[0], "x": 10, "y": 8, "width": 20, "height": 16}
    )
    index = Index("made up", index_table(rows, findings), findings, box_frame(drawn), (size, size), folder)
    facts = Facts(
        name="made up", dataset="nih", source="", licence="", images=count, rejected=0, size=size, fit="pad",
        depth=depth, mean=float(images.mean() / (2**depth - 1)), std=float(images.std() / (2**depth - 1)),
        findings=findings, root=str(folder), linked=linked,
    )  # fmt: skip
    if linked:
        for n, image in enumerate(images):
            cv2.imencode(".png", image)[1].tofile(folder / f"图 {n}.png")
    else:
        np.save(folder / "images.npy", images)
    return DatasetFolder(folder, facts, index, dataset_folder.open_images(folder, facts, index))
