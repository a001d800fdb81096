"""JSRT: 247 PA radiographs from Japan, 154 with a marked lung nodule, and SCR masks of lungs, heart and clavicles.

Shiraishi et al. 2000, https://doi.org/10.2214/ajr.174.1.1740071; masks: van Ginneken et al. 2006,
https://doi.org/10.1016/j.media.2005.02.002. The images are raw files of 2048 x 2048 pixels with 12 bits, big-endian and
white where the radiograph is dark, or conversions of them. JPCLN001 shows a nodule, JPCNN001 does not.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, index_table
from ribcage.data.masks import DrawnMask, MaskFile, mask_frame
from ribcage.data.points import no_points, point_frame
from ribcage.data.readers import coded_columns, tables
from ribcage.data.readers.table_text import decoded_text
from ribcage.imaging import image_file
from ribcage.imaging.gray_image import Limits, to_depth

CHINESE = "JSRT：日本的 247 张后前位胸片，其中 154 张标有肺结节；附 SCR 的肺、心脏和锁骨掩膜"
SOURCE = "http://db.jsrt.or.jp/eng.php, masks: https://www.isi.uu.nl/Research/Databases/SCR/"
LICENCE = "JSRT: research with citation; SCR masks: research and education, no redistribution, no commercial use"
FINDING = "Nodule"
FRAME = (2048, 2048)
NAME = re.compile(r"(?:^|/)(JPC[LN]N\d{3})\.(?:img|\w+)$", re.IGNORECASE)
RAW = ".img"
STRUCTURES = {"left lung": "Left_Lung", "right lung": "Right_Lung", "heart": "Heart",
              "left clavicle": "Left_Clavicle", "right clavicle": "Right_Clavicle"}  # fmt: skip
"""Folder of the masks, such as fold1/masks/left lung, also written left_lung → structure."""
CLINICAL = ("CLNDAT_EN.txt", "CNNDAT_EN.txt")
log = logging.getLogger("ribcage")
NAMES = {FINDING: ("nodule",)}
"""Finding → its names in the tables."""


def index(root: Path) -> Index:
    """Read the names of the images, the masks, and CLNDAT_EN.txt and CNNDAT_EN.txt, if present, anywhere below root."""
    paths = tables.files_below(root)
    named = [(path, found[1].upper()) for path in paths if (found := NAME.search(path))]
    masks = {path: _structure(path) for path, _ in named}
    images = _images([(name, path) for path, name in named if not masks[path] and _is_image(path)])
    if not images:
        raise tables.missing_files(root, ["JPCLN*.IMG or JPCLN*.png"], SOURCE)
    frame = pd.DataFrame({"patient": sorted(images)}, dtype="str")
    place = pd.Series(frame.index, index=frame["patient"])
    listed = tables.files_named(paths, *CLINICAL)
    clinical = pd.DataFrame([_facts(line) for file in listed for line in _lines(root / file)])
    if len(clinical):
        clinical = tables.one_row_each(clinical, "name", root / CLINICAL[0])
        clinical = clinical.assign(age=coded_columns.years(clinical["age"]), sex=coded_columns.sexes(clinical["sex"]))
        frame = frame.join(clinical.set_index("name"), on="patient")
    for file in listed:
        _report_unread(root / file, frame["patient"], clinical)
    frame["path"], frame["view"] = frame["patient"].map(images), "PA"
    frame[FINDING] = (frame["patient"].str[3] == "L").astype("float32")
    frame["split"] = splits.assigned(frame["patient"], frame["path"])
    drawn = {(place[name], masks[path]): path for path, name in reversed(named) if masks[path] and name in place}
    marked = frame[frame["x"].notna()] if len(clinical) else frame[:0]
    points = pd.DataFrame({"row": marked.index, "structure": FINDING, "x": marked.get("x"), "y": marked.get("y")})
    return Index(
        "jsrt", index_table(frame.drop(columns=["x", "y"], errors="ignore"), (FINDING,)), (FINDING,), box_frame=FRAME,
        root=root, points=point_frame(points) if len(points) else no_points(),
        masks=mask_frame(DrawnMask(*key, MaskFile(path)) for key, path in drawn.items()),
    )  # fmt: skip


def images(
    index: Index, *, size: int | None = None, depth: Literal[8, 16] = 8
) -> Callable[[int], image_file.GrayImage] | None:
    """Row → image, if the images are raw files; else None, as each row is an ordinary file."""
    if not index.table["path"].str.lower().str.endswith(RAW).any():
        return None
    how: Any = {"depth": depth, "min_side": size}
    return lambda row: (
        _raw(index.file(row), depth) if _is_raw(index.file(row)) else image_file.read_image(index.file(row), **how)
    )


def _raw(file: Path, depth: Literal[8, 16]) -> image_file.GrayImage:
    """An image in a file without a header."""
    data = image_file.file_content(file, Limits(max_bytes=2 * FRAME[0] * FRAME[1]))
    if len(data) != 2 * FRAME[0] * FRAME[1]:
        raise image_file.UnreadableError(
            f"{file} has {len(data):,} bytes; 2048 x 2048 pixels of 16 bits were expected."
        )
    stored = np.frombuffer(data, ">u2").reshape(FRAME[::-1])
    if (most := int(stored.max())) > 4095:
        raise image_file.UnreadableError(f"{file} has a pixel value of {most}, but the maximum for 12 bits is 4095.")
    pixels, notes = to_depth((4095 - stored).astype(np.uint16), depth, 12)
    return image_file.GrayImage(pixels, *FRAME, (image_file.Note("raw file, inverted (white is zero)"), *notes))


def _images(named: list[tuple[str, str]]) -> dict[str, str]:
    """Name → file; of several copies, the raw file or else the one in the highest folder."""
    found: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, path in sorted(named, key=lambda each: (not each[1].lower().endswith(RAW), each[1].count("/"), each[1])):
        if found.setdefault(name, path) != path:
            others.setdefault(name, path)
    if others:  # images with suppressed bones are published under the same names
        name, path = next(iter(others.items()))
        log.warning(
            "%s of %s images of JSRT have several files, such as %s and %s. The first of these is read; to read the "
            "other one, remove the first.",
            f"{len(others):,}",
            f"{len(found):,}",
            found[name],
            path,
        )
    return found


def _structure(path: str) -> str:
    """The structure of a mask, by its folder; "" for an image."""
    return STRUCTURES.get(path.rpartition("/")[0].rpartition("/")[2].lower().replace("_", " "), "")


def _is_image(path: str) -> bool:
    return path.lower().endswith((*tables.IMAGES, RAW)) and "mask" not in path.rpartition("/")[0].lower()


def _is_raw(file: Path) -> bool:
    return file.suffix.lower() == RAW


def _lines(file: Path) -> list[str]:
    """One text for each image, as some lines of the published table are joined."""
    text = decoded_text(file, "auto")
    return re.split(r"(?=JPC[LN]N\d{3})", text)[1:]


def _report_unread(file: Path, images: pd.Series, clinical: pd.DataFrame) -> None:
    """Warn of images that are missing in one of the clinical tables, or whose nodule has no centre there."""
    own = images[images.str[3] == ("L" if file.name.upper().startswith("CLN") else "N")]
    known = clinical.set_index("name") if len(clinical) else pd.DataFrame({"x": [], "sex": []})
    with_centre = known.index[known["x"].notna()]
    found = {
        "are not listed": int((~own.isin(known.index)).sum()),
        "have a nodule without a position": int((own.isin(known.index) & ~own.isin(with_centre)).sum())
        * file.name.upper().startswith("CLN"),
    }
    for what, count in found.items():
        if count:
            log.warning("Images that %s in %s: %s.", what, file, f"{count:,}")


def _facts(line: str) -> dict[str, object]:
    """Name, age and sex of an image and, with a nodule, its subtlety, size in mm, x, y, kind and description."""
    name, *words = line.split(None, 8)
    nodule = name[3] == "L" and len(words) == 8
    age, sex = (words[2:4] if nodule else words[:2]) if len(words) >= 2 else ("", "")
    found: dict[str, object] = {
        "name": name[:8],
        "age": age,
        "sex": sex,
        "x": np.nan,
        "y": np.nan,
        "nodule": "",
    }
    if nodule and all(words[place].isdigit() for place in (4, 5)):
        x, y, kind = words[4:7]
        described = f"{kind}, {words[1]} mm, subtlety {words[0]}: {' '.join(words[7].split())}"
        found |= {"x": float(x), "y": float(y), "nodule": described}
    return found
