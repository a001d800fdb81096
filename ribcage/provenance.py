"""Provenance: fingerprints of what a model has seen, so that nobody tests it on that by mistake."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ribcage import fingerprint
from ribcage.store import Fingerprints, Store


@dataclass(frozen=True)
class Provenance:
    """What a model has seen, without showing it."""

    patients: np.ndarray
    """(M,) uint64 hashes of data set and patient; unknown patients have none."""
    pixels: np.ndarray
    """(N,) uint64 hashes of stored pixels."""
    prints: np.ndarray
    """(N, V, 4) uint64 fingerprints."""
    role: np.ndarray
    """(N,) 0 training, 1 selection."""

    @classmethod
    def of(cls, stores: Sequence[Store], training: np.ndarray, selection: np.ndarray) -> "Provenance":
        """Of these rows, counted through all stores. Of linked folders only the patients are known."""
        rows = np.concatenate([training, selection])
        role = np.repeat([0, 1], [len(training), len(selection)]).astype(np.uint8)
        found = [one.fingerprints for one in stores]
        prints, pixels, patients = (
            np.concatenate([getattr(part, name) for part in found])[rows] for name in ("prints", "pixels", "patients")
        )
        return cls(np.unique(patients[patients > 0]), pixels, prints, role)

    @classmethod
    def nothing(cls) -> "Provenance":
        """Of random weights."""
        none = np.empty(0, np.uint64)
        return cls(none, none, np.empty((0, fingerprint.VARIANTS, 4), np.uint64), np.empty(0, np.uint8))

    def __or__(self, other: "Provenance") -> "Provenance":
        """What either has seen; what the other saw counts as training."""
        new = ~np.isin(other.pixels, self.pixels[self.pixels > 0])
        pixels, prints = np.append(self.pixels, other.pixels[new]), np.concatenate([self.prints, other.prints[new]])
        role = np.append(self.role, np.zeros(int(new.sum()), np.uint8))
        return Provenance(np.union1d(self.patients, other.patients), pixels, prints, role)

    def save(self, file: Path) -> None:
        """Write one npz."""
        with file.open("wb") as stream:
            np.savez(stream, **{item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def load(cls, file: Path) -> "Provenance":
        """Read what `save` wrote, or say why not; nothing in it is executed."""
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                found = cls(*(arrays[item.name] for item in fields(cls)))
        except FileNotFoundError:
            raise FileNotFoundError(f"{file} is missing: nobody can tell what this model has seen.") from None
        except Exception as error:  # a damaged archive raises almost anything
            raise ValueError(f"{file} is damaged ({type(error).__name__}).") from None
        shapes = [(found.patients.ndim, 1), (found.prints.shape[1:], (fingerprint.VARIANTS, 4)), (found.role.ndim, 1)]
        kinds = {found.patients.dtype, found.pixels.dtype, found.prints.dtype}
        same = found.pixels.shape == found.role.shape == found.prints.shape[:1]
        if not same or kinds != {np.dtype(np.uint64)} or any(has != wanted for has, wanted in shapes):
            raise ValueError(f"{file} is damaged: its arrays are not what Ribcage writes.")
        return found


@dataclass(frozen=True)
class Leak:
    """What a model has seen of the pictures it is to be tested on."""

    patients: int
    """Test patients that were in training or selection."""
    pictures: int
    """Test pictures of such patients."""
    identical: int
    """Test pictures seen bit for bit."""
    alike: int
    """Test pictures of which a near-copy was seen (identical ones too)."""
    tested: int

    def __bool__(self) -> bool:
        return bool(self.pictures or self.identical or self.alike)

    def __str__(self) -> str:
        return (
            f"Of {self.tested:,} test pictures, {self.pictures:,} show {self.patients:,} patients that the model has "
            f"seen in training or selection; {self.alike:,} are copies of pictures it has seen, {self.identical:,} of "
            "them to the bit"
        )


def leak(provenance: Provenance, tested: Fingerprints) -> Leak:
    """Look for the tested pictures and their patients in what a model has seen."""
    known = np.isin(tested.patients, provenance.patients) & (tested.patients > 0)
    identical = np.isin(tested.pixels, provenance.pixels) & (tested.pixels > 0)
    alike = identical.copy()
    alike[fingerprint.matches(tested.prints, provenance.prints).first] = True
    patients = len(np.unique(tested.patients[known]))
    return Leak(patients, int(known.sum()), int(identical.sum()), int(alike.sum()), len(tested.pixels))
