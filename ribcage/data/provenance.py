"""Provenance: fingerprints of a model's training and validation data, with which tests on the same data are
detected."""

from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from ribcage.data import site_key
from ribcage.data.collection import Datasets
from ribcage.imaging import fingerprint
from ribcage.runtime import files


@dataclass(frozen=True)
class Provenance:
    """Fingerprints of a model's training and validation data, which do not reveal it."""

    patients: np.ndarray
    """(M,) uint64 hashes of dataset and patient, without unknown patients."""
    pixels: np.ndarray
    """(N,) uint64 hashes of stored pixels."""
    prints: np.ndarray
    """(N, V, 4) uint64 fingerprints."""
    role: np.ndarray
    """(N,) 0 training, 1 validation."""
    selected: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """(L,) hashes of patients in validation but not in training; empty in older files."""
    unknown: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    """(K,) names of weights and tables it was trained with whose own training data is unknown."""
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    """(S,) names of the site keys with which private patients were hashed; empty in older files."""
    anonymous: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    """(0 or 1,) True if this is a union, one part of which has images but no patient identifiers."""

    @classmethod
    def of(cls, data: Datasets, training: np.ndarray, selection: np.ndarray) -> "Provenance":
        """Provenance of training and validation rows. In linked folders only patients are known."""
        rows = np.concatenate([training, selection])
        role = np.repeat([0, 1], [len(training), len(selection)]).astype(np.uint8)
        found = [one.fingerprints for one in data]
        prints, pixels, patients = (
            np.concatenate([getattr(part, name) for part in found])[rows] for name in ("prints", "pixels", "patients")
        )
        known = np.unique(patients[patients > 0])
        keys = np.array(cls.check_key(data), np.str_)
        selected = np.setdiff1d(known, patients[role == 0])
        return cls(known, pixels, prints, role, selected, np.empty(0, np.str_), keys)

    @staticmethod
    def check_key(data: Datasets) -> list[str]:
        """The name of the site key if it is needed for the patients of these data; raises if there is no valid one."""
        private = any(one.private and (one.index.patient_codes.keys != "").any() for one in data)
        return [site_key.identity()] if private else []

    @classmethod
    def nothing(cls, *unknown: str) -> "Provenance":
        """Provenance of random weights, or of the named sources, whose training data is unknown."""
        none = np.empty(0, np.uint64)
        prints = np.empty((0, fingerprint.VARIANTS, 4), np.uint64)
        return cls(none, none, prints, np.empty(0, np.uint8), none, np.array(unknown, np.str_))

    def __or__(self, other: "Provenance") -> "Provenance":
        """Union of both. Images that one was trained on count as training, even if the other only used them for
        validation."""
        new = ~np.isin(other.pixels, self.pixels[self.pixels > 0])
        trained = np.isin(self.pixels, other.pixels[other.role == 0]) & (self.pixels > 0)
        return Provenance(
            np.union1d(self.patients, other.patients),
            np.append(self.pixels, other.pixels[new]),
            np.concatenate([self.prints, other.prints[new]]),
            np.append(np.where(trained, np.uint8(0), self.role), other.role[new]),
            np.setdiff1d(np.union1d(self.selected, other.selected), np.union1d(self.trained, other.trained)),
            np.union1d(self.unknown, other.unknown),
            np.union1d(self.keys, other.keys),
            np.array([True] if self.without_patients or other.without_patients else [], np.bool_),
        )

    @property
    def without_patients(self) -> bool:
        """Whether the model was trained on data without patient identifiers, alone or beside other data."""
        return bool(self.anonymous.any()) or bool(len(self.pixels) and not len(self.patients))

    @property
    def of_other_sites(self) -> bool:
        """Whether patients were hashed with a key other than this site's."""
        return bool(len(self.keys)) and bool(set(self.keys.tolist()) - {site_key.identity()})

    @property
    def trained(self) -> np.ndarray:
        """Hashes of the patients in training."""
        return np.setdiff1d(self.patients, self.selected)

    def save(self, part: Path) -> None:
        """Write one npz file."""
        with part.open("wb") as stream:
            np.savez(stream, **{item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def load(cls, file: Path) -> "Provenance":
        """Read what `save` wrote; ValueError if it is invalid. Nothing in the file is executed."""
        try:
            files.refuse_packed(file)
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                named = [one.name for one in fields(cls) if one.default_factory is MISSING or one.name in arrays]
                found = cls(**{name: arrays[name] for name in named})
        except FileNotFoundError:
            raise FileNotFoundError(f"{file} is missing: the training data of this model are unknown.") from None
        except Exception as error:  # a damaged archive raises almost anything
            raise ValueError(f"{file} is damaged ({type(error).__name__}).") from None
        found = replace(found, prints=fingerprint.with_all_variants(found.prints))
        flat = (found.patients, found.role, found.selected, found.unknown, found.keys, found.anonymous)
        shapes = [(found.prints.shape[1:], (fingerprint.VARIANTS, 4)), *((one.ndim, 1) for one in flat)]
        shapes += [(found.unknown.dtype.kind, "U"), (found.keys.dtype.kind, "U"), (found.anonymous.dtype.kind, "b")]
        kinds = {found.patients.dtype, found.pixels.dtype, found.prints.dtype, found.selected.dtype}
        same = found.pixels.shape == found.role.shape == found.prints.shape[:1]
        if not same or kinds != {np.dtype(np.uint64)} or any(has != wanted for has, wanted in shapes):
            raise ValueError(f"{file} is damaged: its arrays are not in Ribcage's format.")
        return found
