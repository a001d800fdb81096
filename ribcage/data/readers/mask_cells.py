"""Mask cells: masks in the cells of a table, with errors that name the file and the image."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ribcage.data.readers.table_text import printable_text
from ribcage.runtime.spelling import count_phrase

log = logging.getLogger("ribcage")


@contextlib.contextmanager
def named_mask_errors(file: Path | str, image: str) -> Iterator[None]:
    """Errors in the mask of an image name the image and the file in which the mask is."""
    try:
        yield
    except ValueError as error:
        reason = str(error).removesuffix(".")
        raise ValueError(f"{file} has an invalid mask for the image {printable_text(image)}: {reason}.") from None


def contradicted_images(images: pd.Series, present: pd.Series, file: Path) -> pd.Index:
    """Images that have rows with a mask (1) as well as rows that state that there is none (0), with a warning; their
    label is unknown."""
    unlike = present.groupby(images).nunique() > 1
    if unlike.any():
        log.warning(
            "%s a mask and a row without one in %s; the label is unknown, and the mask is ignored.",
            count_phrase(int(unlike.sum()), "image has", "images have"), file,
        )  # fmt: skip
    return unlike.index[unlike]
