"""Mask cells: masks in the cells of a table, with errors that name the file and the image."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ribcage.data.readers.tables import printable_text


@contextlib.contextmanager
def named_mask_errors(file: Path | str, image: str) -> Iterator[None]:
    """Errors in the mask of an image name the image and the file in which the mask is."""
    try:
        yield
    except ValueError as error:
        reason = str(error).removesuffix(".")
        raise ValueError(f"{file} has an invalid mask for the image {printable_text(image)}: {reason}.") from None
