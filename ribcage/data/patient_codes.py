"""Patient codes: the patients of an index as integers, so that they can be counted and compared without their names."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ribcage.imaging.fingerprint import canonical_patient

KNOWN = "\0"
"""First character of the key of every known patient; the key of an unknown one is empty."""
_BLOCK = 1 << 15
"""Rows at a time, so that intermediate results fit into the cache of the processor."""


@dataclass(frozen=True)
class PatientCodes:
    """The patients of N images, numbered in the order of their first images."""

    spelt: np.ndarray
    """(N,) int32: number of each image's identifier, as it is spelt in the table."""
    canonical: np.ndarray
    """(P,) int32: for each of these identifiers, the number of its canonical spelling."""
    keys: pd.Series
    """(K,) the canonical spellings after KNOWN; "" if the patient is unknown."""

    @classmethod
    def of(cls, patients: pd.Series) -> "PatientCodes":
        """Number the patients of a column."""
        spelt, names = pd.factorize(patients)
        keys = pd.Series([KNOWN + canonical_patient(name) if name else "" for name in names], dtype="str")
        canonical, kept = pd.factorize(keys)
        return cls(spelt.astype(np.int32), canonical.astype(np.int32), pd.Series(kept, dtype="str"))

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int32: the number of each row's patient, independent of spelling."""
        return self.canonical[self.spelt[rows]]

    def present(self, rows: np.ndarray, start: int = 0) -> np.ndarray:
        """(n,) int32: the numbers of the patients of these rows, which are counted from `start`; one may occur in
        several spellings."""
        spelt = np.zeros(len(self.canonical), bool)
        for at in range(0, len(rows), _BLOCK):
            spelt[self.spelt[rows[at : at + _BLOCK] - start]] = True
        return self.canonical[spelt]

    def count_spelt(self, rows: np.ndarray) -> int:
        """Number of known patients of these rows; two spellings of an identifier are two patients."""
        return int((self.keys != "").to_numpy(bool)[self.present(rows)].sum())
