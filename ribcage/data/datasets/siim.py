"""SIIM-ACR Pneumothorax 2019: 12,047 images from ChestX-ray14, 2,669 of them with masks of pneumothorax.

Each row of the table contains an image and one mask of a pneumothorax, or -1 if there is none. Starts of run lengths
are counted from the end of the previous run, down the columns of an image of 1,024 x 1,024 pixels. Patient, view, sex
and age are in the DICOM headers, which are read at import, not here.
"""

from pathlib import Path

import pandas as pd

from ribcage.data.index import Index, index_table
from ribcage.data.masks import DrawnMask, mask_frame
from ribcage.data.readers import tables
from ribcage.data.readers.mask_cells import contradicted_images, named_mask_errors
from ribcage.imaging.mask import Mask
from ribcage.imaging.mask_encodings import mask_of_pairs

CHINESE = "SIIM-ACR 2019 气胸挑战赛：取自 ChestX-ray14 的 12,047 张图像，其中 2,669 张有气胸及其分割掩膜"
SOURCE = "https://www.kaggle.com/competitions/siim-acr-pneumothorax-segmentation"
LICENCE = "competition rules of Kaggle; images of the NIH Clinical Center"
FINDING = "Pneumothorax"
TABLES = ("stage_2_train.csv", "train-rle.csv")
"""The tables of the second and of the first stage of the competition."""
MASKS = ("EncodedPixels", " EncodedPixels")
"""Name of the column: train-rle.csv has it with a space."""
SIDE = 1024
"""Width and height of the images."""
NAMES = {FINDING: ("Pneumothorax",)}
"""Finding → its names in the tables."""


def index(root: Path, *, images: str = "") -> Index:
    """Read stage_2_train.csv or train-rle.csv, anywhere below root.

    images: Folder with the images below ROOT (.dcm, .png or .jpg), if there are several.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, *TABLES)
    if not found:
        raise tables.missing_files(root, [" (or ".join(TABLES) + ")"], SOURCE)
    column = next((name for name in tables.header(root / found[0]) if name in MASKS), MASKS[0])
    rows = tables.without_repeats(tables.read_table(root / found[0], ("ImageId", column)), root / found[0])
    masks = rows[column].str.strip()
    # an image without a mask has one row with -1; a blank cell is unknown
    rows[FINDING] = (masks != "-1").astype("float32").where(masks != "")
    rows = rows[rows["ImageId"] != ""]
    unlike = rows["ImageId"].isin(contradicted_images(rows["ImageId"], rows[FINDING], root / found[0]))
    masks, rows[FINDING] = masks[rows.index].mask(unlike, ""), rows[FINDING].mask(unlike)
    labels = rows.groupby("ImageId", sort=False)[FINDING].max().reset_index()
    names = labels["ImageId"]
    frame = pd.DataFrame(
        {"path": tables.locate(names + ".dcm", paths, images).fillna(names + ".dcm"), FINDING: labels[FINDING]}
    )
    place = pd.Series(names.index, index=names)
    drawn = [
        DrawnMask(place[name], FINDING, _mask(cell, root / found[0], name))
        for name, cell in zip(rows["ImageId"], masks, strict=True)
        if cell
    ]
    return Index("siim", index_table(frame, (FINDING,)), (FINDING,), root=root, masks=mask_frame(drawn))


def _mask(cell: str, file: Path, name: str) -> Mask:
    """The mask in a cell; one without pixels if there is no pneumothorax."""
    with named_mask_errors(file, name):
        return mask_of_pairs("" if cell == "-1" else cell, SIDE, SIDE, relative=True, by_column=True)
