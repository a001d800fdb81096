"""The fingerprints of the images of a dataset, one row per image, and the hashes of its patients."""

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


@dataclass(frozen=True)
class Fingerprints:
    """What tells images and patients apart without showing them."""

    prints: np.ndarray
    """(N, V, 4) uint64: what an image looks like; near-copies differ in few bits. All zero: not known."""
    pixels: np.ndarray
    """(N,) uint64: a hash of the stored pixels; equal only for identical images. 0: not known."""
    patients: np.ndarray
    """(N,) uint64: a hash of dataset and patient; 0 when the patient is not known. Never kept with the images, but
    computed from the table: with the site's key where the patients are private."""
    unkeyed: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """The same without a key, as bundles of older versions have it; empty: as `patients`."""

    @classmethod
    def of_patients(cls, index: Index, *, private: bool = False) -> "Fingerprints":
        """Of the patients alone, where nobody has looked at the images."""
        count = len(index)
        prints = np.zeros((count, fingerprint.VARIANTS, 4), np.uint64)
        hashes = patient_hashes(index, private=private), patient_hashes(index)
        return cls(prints, np.zeros(count, np.uint64), *hashes)

    def take(self, rows: np.ndarray) -> "Fingerprints":
        """Of these rows."""
        return Fingerprints(*(values[rows] if len(values) else values for values in self._arrays))

    @classmethod
    def join(cls, parts: "Sequence[Fingerprints]") -> "Fingerprints":
        """Of several, one below the other."""
        parts = [replace(part, unkeyed=part.without_key) for part in parts]
        return cls(*(np.concatenate(arrays) for arrays in zip(*(part._arrays for part in parts), strict=True)))

    @property
    def without_key(self) -> np.ndarray:
        """(N,) uint64 hashes of the patients that need no key."""
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
            raise ValueError(f"{file} is damaged: it holds no fingerprints. Import the dataset again.") from None
        if prints.dtype != np.uint64 or pixels.dtype != np.uint64:
            raise ValueError(f"{file} is damaged: its fingerprints are of another kind. Import the dataset again.")
        return cls(prints, pixels, np.zeros(len(columns), np.uint64))


def patient_hashes(index: Index, *, private: bool = False) -> np.ndarray:
    """(N,) uint64: a hash of dataset and patient, 0 where the patient is not known."""
    codes, names = pd.factorize(index.table["patient"])
    key = site_key.site_key() if private and any(names) else b""
    hashes = [fingerprint.patient_fingerprint(index.name, name, key) if name else 0 for name in names]
    return np.array(hashes, np.uint64)[codes] if len(codes) else np.empty(0, np.uint64)
