"""NLM tuberculosis radiographs: 662 from Shenzhen and 138 from Montgomery County, with readings and lung masks.

Jaeger et al. 2014, https://doi.org/10.3978/j.issn.2223-4292.2014.11.20. The last digit of a file name such as
CHNCXR_0001_0.png is the label: 0 is normal, 1 is abnormal with manifestations of tuberculosis. All radiographs are PA.
Masks of the left and the right lung (ManualMask, Montgomery) or of both (mask, Shenzhen) have the names of the images.
"""

import logging
import re
from pathlib import Path
from typing import Literal

import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, index_table
from ribcage.data.masks import DrawnMask, MaskFile, mask_frame
from ribcage.data.radiology_reports import reports_of_images
from ribcage.data.readers import coded_columns, tables
from ribcage.runtime.files import regular

CHINESE = "美国国家医学图书馆（NLM）结核病胸片：深圳 662 张、蒙哥马利县 138 张，附性别、年龄、阅片意见和肺部掩膜"
SOURCE = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
LICENCE = "National Library of Medicine: research with citation of the paper, no redistribution"
FINDING = "Tuberculosis"
HOSPITALS = {"CHN": "Shenzhen", "MCU": "Montgomery"}
NAME = r"((?:CHN|MCU)CXR_\d+)_[01]"
MASKS = r"(?i:mask)[^/]*/"
"""Part of the path of a mask: ManualMask/leftMask/MCUCXR_0001_0.png, mask/CHNCXR_0001_0_mask.png."""
SIDES = {"leftmask": "Left_Lung", "rightmask": "Right_Lung"}
"""Folder → structure; masks in other folders are of both lungs."""
# The first lines are "male 45yrs", "femal 32yrs" or "male 16month" (Shenzhen), or "Patient's Sex: F" and
# "Patient's Age: 024Y" (Montgomery). The rest is the reading.
SEX = re.compile(r"(?:sex:|^)\s*(m(?=al|\b)|f(?=em|\b))", re.IGNORECASE)
AGE = re.compile(r"(?:age:|^\s*(?:fe)?male?)[\s,]*(\d+)\s*([ymd]?)", re.IGNORECASE)
OTHER_SEX = r"(?i)sex:\s*o\b"
FIRST_LINES = re.compile(r"patient's (?:sex|age):[^\n]*|^\s*(?:fe)?male?[\s,]*\d+[ \t]*[a-z]*", re.IGNORECASE)
SAME = re.compile(rf"same pt as {NAME}")
log = logging.getLogger("ribcage")
LARGEST_READING = 1 << 16
"""Limit on the bytes of a reading."""
NAMES = {FINDING: ("abnormal",)}
"""Finding → its names in the tables."""


def index(root: Path, *, hospital: Literal["all", "shenzhen", "montgomery"] = "all") -> Index:
    """Read the names of the images and the readings in ClinicalReadings, anywhere below root.

    hospital: Hospital whose images are read.
    """
    paths = tables.files_below(root)
    rows = _images(paths)
    rows = rows if hospital == "all" else rows[rows["hospital"] == hospital.title()].reset_index(drop=True)
    if rows.empty:
        wanted = [name for name, place in HOSPITALS.items() if hospital in ("all", place.lower())]
        raise tables.missing_files(root, [f"{name}CXR_*.png" for name in wanted], SOURCE)
    files = {path.rpartition("/")[2][:-4]: path for path in reversed(paths) if path.endswith(".txt")}
    texts = pd.Series([_text(root / files[stem]) if stem in files else "" for stem in rows["stem"]], dtype="str")
    frame = rows[["path", "hospital"]].assign(
        patient=[_patient(text, name) for text, name in zip(texts, rows["patient"], strict=True)],
        view="PA",
        sex=texts.str.extract(SEX, expand=False).str.upper(),
        age=coded_columns.years(texts.str.extract(AGE).fillna("").agg("".join, axis=1).str.upper()),
    )
    read = pd.DataFrame({"impression": texts.str.replace(FIRST_LINES, "", regex=True).str.split().str.join(" ")})
    _report_unread(texts, frame)
    reports = reports_of_images(rows["stem"], read.set_axis(rows["stem"]), "en")
    frame[FINDING] = rows["stem"].str[-1].astype("float32")
    frame["split"] = splits.assigned(frame["patient"], frame["path"])
    table = index_table(frame, (FINDING,))
    masks = mask_frame(_masks(paths, rows["stem"]))
    return Index("nlm_tb", table, (FINDING,), root=root, reports=reports, masks=masks)


def _images(paths: list[str]) -> pd.DataFrame:
    """Path, stem, patient and hospital of each image; of several copies, the one in the highest folder."""
    files = pd.Series(sorted(paths, key=lambda path: (path.count("/"), path)), dtype="str")
    files = files[files.str.lower().str.endswith(tables.IMAGES) & ~files.str.contains(MASKS)]
    found = files.str.extract(rf"(?:^|/)(?P<stem>{NAME})\.\w+$").rename(columns={1: "patient"})
    rows = found.assign(path=files).dropna(subset="stem").drop_duplicates("stem").sort_values("stem")
    if rows["patient"].duplicated().any():
        name = rows["patient"][rows["patient"].duplicated()].iloc[0]
        raise ValueError(f"There are images of {name} with both labels, {name}_0 and {name}_1. Remove one of them.")
    return rows.assign(hospital=rows["stem"].str[:3].map(HOSPITALS).astype("str")).reset_index(drop=True)


def _masks(paths: list[str], stems: pd.Series) -> list[DrawnMask]:
    """The masks of the images; of several copies, the one in the highest folder."""
    row, found = pd.Series(stems.index, index=stems), dict[tuple[int, str], str]()
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        named = re.search(rf"{MASKS}({NAME})(?:_mask)?\.\w+$", path)
        if named and named[1] in row and path.lower().endswith(tables.IMAGES):
            structure = SIDES.get(path.rpartition("/")[0].rpartition("/")[2].lower(), "Lungs")
            found.setdefault((row[named[1]], structure), path)
    return [DrawnMask(place, structure, MaskFile(path)) for (place, structure), path in found.items()]


def _text(file: Path) -> str:
    """Text of a reading."""
    with regular(file).open("rb") as stream:
        return stream.read(LARGEST_READING).decode("utf-8-sig", "replace").strip()


def _report_unread(texts: pd.Series, frame: pd.DataFrame) -> None:
    """Warn of images without a reading, and of readings without a sex or age; an F, M or O for the sex is expected."""
    read = texts != ""
    unread = read & ((frame["sex"] == "") & ~texts.str.contains(OTHER_SEX) | frame["age"].isna())
    for what, count in (("Images without a clinical reading", ~read), ("Readings without a known sex and age", unread)):
        if count.any():
            log.warning("%s: %s.", what, f"{count.sum():,}")


def _patient(text: str, own: str) -> str:
    """The patient: the number of the image, or that of another image which the reading names ('same pt as …')."""
    same = SAME.search(text)
    return same[1] if same else own
