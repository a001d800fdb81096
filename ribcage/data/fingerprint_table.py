"""Fingerprints of the images of a dataset, one row per image, and hashes of its patients."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ribcage.data import site_key
from ribcage.data.index import Index
from ribcage.imaging import fingerprint
from ribcage.runtime import parquet

MAX_ROWS = 1_000_000_000
"""Limit on the rows of a table."""


@dataclass(frozen=True)
class Fingerprints:
    """Identifies images and patients without revealing them."""

    prints: np.ndarray
    """(N, V, 4) uint64 perceptual hashes; near-duplicates differ in few bits. All zero: unknown."""
    pixels: np.ndarray
    """(N,) uint64: hash of the stored pixels; equal only for identical images. 0: unknown."""
    patients: np.ndarray
    """(N,) uint64: hash of dataset and patient; 0 for unknown patients. Not stored with the images, but computed from
    the table, with the site's key if patients are private."""
    unkeyed: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """`patients` without a key, as in bundles of older versions; empty: equal to `patients`."""

    @classmethod
    def of_patients(cls, index: Index, *, private: bool = False) -> "Fingerprints":
        """Hashes of the patients alone, without fingerprints of images."""
        count = len(index)
        prints = np.zeros((count, fingerprint.VARIANTS, 4), np.uint64)
        hashes = patient_hashes(index, private=private), patient_hashes(index)
        return cls(prints, np.zeros(count, np.uint64), *hashes)

    def take(self, rows: np.ndarray) -> "Fingerprints":
        """Fingerprints of some rows."""
        return Fingerprints(*(values[rows] if len(values) else values for values in self._arrays))

    @classmethod
    def join(cls, parts: "Sequence[Fingerprints]") -> "Fingerprints":
        """Concatenated."""
        parts = [replace(part, unkeyed=part.without_key) for part in parts]
        return cls(*(np.concatenate(arrays) for arrays in zip(*(part._arrays for part in parts), strict=True)))

    @property
    def without_key(self) -> np.ndarray:
        """(N,) uint64 hashes of patients without a key."""
        return self.unkeyed if len(self.unkeyed) else self.patients

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.prints, self.pixels, self.patients, self.unkeyed

    def save(self, part: Path) -> None:
        """Write one Parquet file."""
        variants = self.prints.shape[1]
        flat = pa.FixedSizeListArray.from_arrays(pa.array(self.prints.reshape(-1)), variants * 4)
        columns = {"print": flat, "pixels": pa.array(self.pixels)}
        pq.write_table(pa.table(columns), part, compression="none")

    @classmethod
    def load(cls, file: Path) -> "Fingerprints":
        """Read what `save` wrote."""
        try:
            columns = parquet.read_parquet(file, ["print", "pixels"])
            values = columns["print"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            prints = fingerprint.with_all_variants(values.reshape(len(columns), -1, 4))
            pixels = columns["pixels"].to_numpy()
        except (ValueError, AttributeError, TypeError, KeyError, pa.ArrowException):
            raise ValueError(f"{file} is damaged: it has no fingerprints. Import the dataset again.") from None
        if prints.dtype != np.uint64 or pixels.dtype != np.uint64:
            raise ValueError(
                f"{file} is damaged: its fingerprints have an unexpected format. Import the dataset again."
            )
        return cls(prints, pixels, np.zeros(len(columns), np.uint64))


def pixel_column(file: Path) -> np.ndarray:
    """(N,) uint64: the hashes of the stored pixels in a file that `Fingerprints.save` wrote, without its other
    columns."""
    try:
        pixels: np.ndarray = parquet.read_parquet(file, ["pixels"], max_cells=MAX_ROWS)["pixels"].to_numpy()
    except (ValueError, KeyError, pa.ArrowException):
        raise ValueError(f"{file} is damaged: it has no fingerprints. Import the dataset again.") from None
    if pixels.dtype != np.uint64:
        raise ValueError(f"{file} is damaged: its fingerprints have an unexpected format. Import the dataset again.")
    return pixels


def patient_hashes(index: Index, *, private: bool = False) -> np.ndarray:
    """(N,) uint64: hash of dataset and patient, 0 for unknown patients."""
    codes, names = pd.factorize(index.table["patient"])
    key = site_key.site_key() if private and any(names) else b""
    hashes = [fingerprint.patient_fingerprint(index.name, name, key) if name else 0 for name in names]
    return np.array(hashes, np.uint64)[codes] if len(codes) else np.empty(0, np.uint64)
