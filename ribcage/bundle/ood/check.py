"""The fitted OOD check: its parameters, the classes of vectors, and its file in a bundle."""

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ribcage.bundle import counterexamples
from ribcage.imaging import appearance

FILE = "ood.npz"
CLASSES = ("usual", "mirrored", *counterexamples.ALTERED, "lateral", "other")
MIRRORED, LATERAL, OTHER = (CLASSES.index(name) for name in ("mirrored", "lateral", "other"))
FIRST_ALTERED = MIRRORED + 1
LARGEST = 1 << 20
"""Maximum size of the file in bytes."""


@dataclass(frozen=True, eq=False)
class OODCheck:
    """The parameters of an OOD check, and statistics of its training and held-out images."""

    weights: np.ndarray
    """(D, K)"""
    bias: np.ndarray
    """(K,)"""
    mean: np.ndarray
    """(D,) mean of the training images' vectors."""
    components: np.ndarray
    """(C, D) float16"""
    limits: np.ndarray
    """(3,) limits of s, of z_usual - z_mirrored, and of the distance."""
    fitted_on: int
    """Number of training images."""
    held_out: int
    """Number of held-out images that the limits were set on."""
    alarms: np.ndarray
    """(K,) how many held-out images are flagged, by class; [0]: by distance only."""
    altered: np.ndarray
    """(K,) how many are flagged after mirroring, turning or inverting; 0 for the other classes."""
    ages: np.ndarray
    """(2,) number of training images with known age, and of children among them."""
    views: np.ndarray
    """(2,) number of training images with known view, and of laterals among them."""
    learnt: bool = True
    """Whether the model was trained on these images; False: only its thresholds were chosen on them."""

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """(N, K) z of vectors (N, D)."""
        return np.asarray(vectors @ self.weights + self.bias)

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) length of the component of x - m outside the principal components."""
        rest = vectors - self.mean
        along = rest @ self.components.astype(np.float32).T
        return np.asarray(np.sqrt(np.maximum((rest * rest).sum(axis=1) - (along * along).sum(axis=1), 0)))

    def noticed(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) int: the class of a flagged image, 0 if it is flagged by distance only, -1 if it is not flagged."""
        z = self.scores(vectors)
        looks = FIRST_ALTERED + z[:, FIRST_ALTERED:].argmax(axis=1)
        found = np.where(self.distances(vectors) > self.limits[2], 0, -1)
        found = np.where(z[:, 0] - z[:, MIRRORED] < self.limits[1], MIRRORED, found)
        return np.where(usualness(z) < self.limits[0], looks, found)

    def save(self, part: Path) -> None:
        """Write as one npz."""
        with part.open("wb") as stream:
            np.savez(stream, **{item.name: getattr(self, item.name) for item in fields(self)})


def usualness(z: np.ndarray) -> np.ndarray:
    """(N,) s of scores (N, K)."""
    return np.asarray(np.logaddexp(z[:, 0], z[:, MIRRORED]) - np.logaddexp.reduce(z[:, FIRST_ALTERED:], axis=1))


def load_check(folder: Path) -> OODCheck | None:
    """The check of a bundle; None if it has none."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = [one.file_size for one in archive.infolist()]
        if sum(sizes) > LARGEST:
            raise ValueError(f"{sum(sizes):,} bytes")
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {item.name: arrays[item.name] for item in fields(OODCheck)}
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f"{file} is damaged ({type(error).__name__}). Train or calibrate the model again.") from None
    if not _whole(found):
        raise ValueError(f"{file} is damaged: its arrays are not in Ribcage's format.")
    return OODCheck(**{**found, **{name: found[name].item() for name in ("fitted_on", "held_out", "learnt")}})


def _whole(found: dict[str, np.ndarray]) -> bool:
    """Whether all arrays have the right type and shape and valid values."""
    length, many = appearance.LENGTH, len(CLASSES)
    shapes: dict[str, tuple[int, ...]] = {"weights": (length, many), "bias": (many,), "mean": (length,)}
    shapes |= {"components": (found["components"].shape[0] if found["components"].ndim else 0, length), "limits": (3,)}
    shapes |= {"alarms": (many,), "altered": (many,), "ages": (2,), "views": (2,)}
    counts = ("fitted_on", "held_out", "alarms", "altered", "ages", "views", "learnt")
    if any(one.shape != shapes.get(name, ()) for name, one in found.items()):
        return False
    if any(one.dtype.kind not in ("ib" if name in counts else "f") for name, one in found.items()):
        return False
    return all(np.isfinite(one).all() for one in found.values()) and all((found[name] >= 0).all() for name in counts)
