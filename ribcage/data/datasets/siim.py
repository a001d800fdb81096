"""SIIM-ACR Pneumothorax 2019: 12,047 images from ChestX-ray14, 2,669 of them with pneumothorax.

Each row of the table contains an image and one mask of a pneumothorax (run-length encoded), or -1 if there is none.
The masks are not read. Patient, view, sex and age are in the DICOM headers, which are read at import, not here.
"""

from pathlib import Path

import pandas as pd

from ribcage.data.index import Index, index_table
from ribcage.data.readers import tables

CHINESE = "SIIM-ACR 2019 气胸挑战赛：取自 ChestX-ray14 的 12,047 张图像，其中 2,669 张有气胸"
SOURCE = "https://www.kaggle.com/competitions/siim-acr-pneumothorax-segmentation"
LICENCE = "competition rules of Kaggle; images of the NIH Clinical Center"
FINDING = "Pneumothorax"
TABLES = ("stage_2_train.csv", "train-rle.csv")
"""The tables of the second and of the first stage of the competition."""
MASKS = ("EncodedPixels", " EncodedPixels")
"""Name of the column: train-rle.csv has it with a space."""


def index(root: Path, *, images: str = "") -> Index:
    """Read stage_2_train.csv or train-rle.csv, anywhere below root.

    images: Folder with the images below ROOT (.dcm, .png or .jpg), if there are several.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, *TABLES)
    if not found:
        raise tables.missing_files(root, [" (or ".join(TABLES) + ")"], SOURCE)
    column = next((name for name in tables.header(root / found[0]) if name in MASKS), MASKS[0])
    rows = tables.read_table(root / found[0], ("ImageId", column))
    masks = rows[column].str.strip()
    # an image without a mask has one row with -1; a blank cell is unknown
    rows[FINDING] = (masks != "-1").astype("float32").where(masks != "")
    labels = rows[rows["ImageId"] != ""].groupby("ImageId", sort=False)[FINDING].max().reset_index()
    names = labels["ImageId"]
    frame = pd.DataFrame(
        {"path": tables.locate(names + ".dcm", paths, images).fillna(names + ".dcm"), FINDING: labels[FINDING]}
    )
    return Index("siim", index_table(frame, (FINDING,)), (FINDING,), root=root)
