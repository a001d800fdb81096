"""A synthetic clinic: radiographs as files, with a table of their labels in the words of the clinic."""

from pathlib import Path

import cv2

from ribcage.data import datasets
from ribcage.data.datasets import phantom

NAMES = {"Effusion": "胸腔积液", "Cardiomegaly": "Cardiomegaly", "Pneumothorax": "PTX", "Mass": "Mass"}
"""Our findings → how the clinic calls them."""


def clinic(folder: Path, images: int = 300, side: int = 96) -> Path:
    """PNG files and list.csv; one file of the table is missing, and one is truncated."""
    index = datasets.index("phantom", images=images, uncertain=0.02, missing=0.0, lateral=0.1)
    drawn = phantom.images(index, size=side, depth=8)
    lines = [f"image,patient,view,sex,age,scanner,{','.join(NAMES.values())}"]
    for place, row in enumerate(index.table.to_dict("records")):
        name = f"images/{place:04d}.png"
        facts = [name, row["patient"], row["view"], row["sex"], f"{row['age']:.0f}", row["hospital"]]
        lines.append(",".join([*facts, *(f"{row[finding]:.0f}" for finding in NAMES)]))
        write(folder / name, cv2.imencode(".png", drawn(place))[1].tobytes())
    (folder / "images" / "0007.png").unlink()
    write(folder / "images" / "0011.png", (folder / "images" / "0011.png").read_bytes()[:200])
    write(folder / "list.csv", ("\n".join(lines) + "\n").encode("gb18030"))
    return folder


def write(file: Path, content: bytes) -> None:
    """A file, in a folder that is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
