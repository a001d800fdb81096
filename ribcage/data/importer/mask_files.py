"""Mask files: reads the masks of an image that are in files, and checks that masks have the shape of their image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from ribcage.data.index import Index
from ribcage.data.masks import mask_sizes, masks_in_files, with_read_masks
from ribcage.imaging.gray_image import UnreadableError
from ribcage.imaging.mask import Mask
from ribcage.imaging.mask_file import read_mask

SAME_SHAPE = 0.02
"""Limit on the relative difference between the aspect ratios of a mask and its image: both may have been resized and
rounded to whole pixels."""


class MaskRecord(TypedDict):
    """The journal's record of a mask that was read from a file."""

    place: int
    """Position in Index.masks."""
    sizes: list[int]
    runs: str
    """In hexadecimal digits."""


class MaskReader:
    """Reads the masks of single images of an index."""

    def __init__(self, index: Index) -> None:
        masks = index.masks
        self.root = index.root
        self.rows = masks["row"].to_numpy()
        self.sizes = masks[["source_width", "source_height"]].to_numpy()
        self.in_file = np.zeros(len(masks), bool)
        self.in_file[masks_in_files(masks)] = True
        if self.in_file.any():
            self.paths, self.values = masks["file"].to_numpy(object), masks["value"].to_numpy()

    def files(self, row: int) -> list[Path]:
        """The mask files of an image."""
        return [self.root / self.paths[place] for place in self._places(row) if self.in_file[place]]

    def read(self, row: int, width: int, height: int) -> list[MaskRecord]:
        """The masks of an image of this size that are in files; ValueError if one cannot be read or has another shape
        than the image, also for masks that are not in files."""
        records = []
        for place in self._places(row):
            if self.in_file[place]:
                mask = read_mask(self.root / self.paths[place], int(self.values[place]))
                records.append(MaskRecord(place=place, sizes=list(mask_sizes(mask)), runs=mask.runs.hex()))
                wide, high, what = mask.width, mask.height, str(self.root / self.paths[place])
            else:
                (wide, high), what = self.sizes[place].tolist(), "its mask"
            if abs(wide * height / (high * width) - 1) > SAME_SHAPE:
                raise UnreadableError(
                    f"{what} has {wide} x {high} pixels, but the image has {width} x {height}: the aspect ratios "
                    f"differ."
                )
        return records

    def _places(self, row: int) -> list[int]:
        first, end = (int(np.searchsorted(self.rows, row, side=side)) for side in ("left", "right"))
        return list(range(first, end))


def with_read(index: Index, records: Sequence[MaskRecord]) -> Index:
    """The index with the masks that were read from files; those that were not read are left out."""
    read = [(one["place"], Mask.of_sizes(one["sizes"], bytes.fromhex(one["runs"]))) for one in records]
    return replace(index, masks=with_read_masks(index.masks, read))
