"""Pixel check: whether the images of a large dataset have changed since the import."""

from collections.abc import Sequence

import numpy as np

from ribcage.data.collection import CHANGED, Datasets
from ribcage.imaging import fingerprint


class PixelCheck:
    """Compares the pixels of each image with their hash at the import, when the image is first read in this process."""

    def __init__(self, data: Datasets) -> None:
        self._data = data
        self._checked = [np.full(len(one), one.facts.linked) for one in data]

    def __call__(self, source: int, rows: np.ndarray, images: Sequence[np.ndarray]) -> None:
        """Check the images of these rows of a folder; ValueError if one of them has changed."""
        checked, hashes = self._checked[source], self._data[source].pixel_hashes
        for place in np.flatnonzero(~checked[rows]).tolist():
            if fingerprint.pixel_hash(images[place]) != hashes[rows[place]]:
                raise ValueError(CHANGED.format(f"row {rows[place]} of {self._data[source].folder}"))
        checked[rows] = True
