"""Reader rows: rows of a user's table in which several readers labelled the same images."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ribcage.data.reader_policy import majority_labels
from ribcage.data.readers.columns import among, column_named
from ribcage.data.readers.table_text import printable_text, shown
from ribcage.runtime.spelling import count_phrase, did_you_mean

log = logging.getLogger("ribcage")

NAMES = (
    "reader reader_id reader_name radiologist radiologist_id rad_id annotator annotator_id rater rater_id observer "
    "labeler labeller expert doctor physician 阅片者 阅片人 阅片医生 读片医生 标注者 标注人 标注医生 医生 医师"
)
"""Usual names of the column with the reader."""
UNKNOWN = "unknown"
"""Name of a reader whose cell is blank."""
ORDER = {1.0: 3.0, -1.0: 2.0, 0.0: 1.0}
"""Precedence of the labels in several rows of one reader: present, uncertain, absent, unknown."""


def reader_column(rows: pd.DataFrame, paths: pd.Series, taken: Sequence[str], given: str) -> str:
    """The column with the reader of each row: the one given, else one with a usual name in which images have several
    values; "" if there is none."""
    header = list(rows.columns)
    if given not in ("", "none", *header):
        raise ValueError(f"--reader-column {given!r}: no such column.{did_you_mean(given, header)} {among(header)}")
    if given:
        return "" if given == "none" else given
    named = column_named([name for name in header if name not in taken], NAMES)
    return named if named and (rows[named].groupby(paths.to_numpy()).nunique() > 1).any() else ""


def candidate_column(others: pd.DataFrame, paths: pd.Series) -> str:
    """A column whose values tell the rows of an image apart and recur in many images, as names of readers do."""
    twice = paths.duplicated(keep=False)
    for name in others:
        cells, own = others[name][twice], paths[twice]
        apart = not pd.DataFrame({"path": own, "cell": cells}).duplicated().any() and (cells != "").all()
        if apart and 1 < cells.nunique() <= max(2, own.nunique() // 2):
            return str(name)
    return ""


def readings_of_rows(
    found: pd.DataFrame, paths: pd.Series, readers: pd.Series, merge: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The labels of each image by the majority of its readers, in every row of the image, and the table of readings
    with a `path`.

    merge: combine several rows of one reader for an image; otherwise rows with different labels are an error.
    """
    names = readers.str.strip().replace("", UNKNOWN)
    keys = pd.DataFrame({"path": paths.to_numpy(), "reader": names.to_numpy()}, found.index)
    ranks = pd.DataFrame(found.replace(ORDER), dtype="float32")
    grouped = ranks.groupby([keys["path"], keys["reader"]], sort=False)
    unlike = (grouped.nunique(dropna=False) > 1).any(axis=1)
    if unlike.any() and not merge:
        path, reader = unlike.index[unlike.to_numpy().argmax()]
        raise ValueError(
            f"{count_phrase(int(unlike.sum()), 'image has', 'images have')} several rows of one reader with different "
            f"labels, such as {printable_text(path)} (reader {shown(reader)}). --conflicts merge combines "
            f"them."
        )
    each = grouped.max().replace({rank: label for label, rank in ORDER.items()}).astype("float32").reset_index()
    codes, images = pd.factorize(each["path"])
    majority = majority_labels(each.assign(row=codes), list(found.columns), len(images))
    labels = pd.DataFrame(majority, images, found.columns).loc[paths.to_numpy()].set_axis(found.index)
    disagreeing = int((pd.DataFrame(majority) == -1).any(axis=1).sum())
    log.warning(
        "%s by %s (column %r). The label of an image is the majority label of its readers; labels without a majority "
        "(%s) are uncertain. If the column does not name readers, pass --reader-column none.",
        count_phrase(len(each), "reading"), count_phrase(each["reader"].nunique(), "reader"), readers.name,
        count_phrase(disagreeing, "image"),
    )  # fmt: skip
    return labels, each


def placed_readings(each: pd.DataFrame, paths: pd.Series) -> pd.DataFrame:
    """The readings with the row of their image; those of images that are not there are left out."""
    row = each["path"].map(pd.Series(np.arange(len(paths)), paths.to_numpy()))
    return each[row.notna()].assign(row=row.dropna().astype("int64")).drop(columns="path")
