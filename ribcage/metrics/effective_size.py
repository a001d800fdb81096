"""Variances over patients, and the effective number of independent observations that they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def effective_size(value: np.ndarray, variance: np.ndarray, patients: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """(F,) Wilson's n.

    variance: estimated over patients.
    patients: the equivalent number of patients with equal weights; with fewer than two there is no variance and no
      interval.
    alone: n if only the number of patients were known.
    """
    weight = 8 * (np.maximum(patients, 1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = (1 + weight * value * (1 - value)) / (1 / alone + weight * variance)
    return np.where(np.isnan(value) | np.isnan(variance) | (patients <= 1), np.nan, n)


@dataclass(frozen=True)
class Patients:
    """The patients that an estimate is based on; arrays (F,)."""

    count: np.ndarray
    amount: np.ndarray
    """Equivalent number of patients with equal weights; 0 for fewer than two."""

    @classmethod
    def of(cls, weights: Sequence[np.ndarray]) -> "Patients":
        """From the weights of the patients for each finding, 0 for patients that do not count."""
        counts = np.array([(one > 0).sum() for one in weights], np.float64)
        return cls(counts, np.array([amount(one) for one in weights], np.float64))

    def fewer(self, other: "Patients") -> "Patients":
        """For each finding, the side with fewer patients."""
        own = self.amount <= other.amount
        return Patients(np.where(own, self.count, other.count), np.where(own, self.amount, other.amount))

    @property
    def bessel(self) -> np.ndarray:
        """(F,) Bessel's correction, by which squares about an estimated mean are too small; NaN for one patient."""
        return np.divide(self.count, self.count - 1, out=np.full(len(self.count), np.nan), where=self.count > 1)


def amount(weights: np.ndarray) -> float:
    """Equivalent number of equally weighted patients: (sum w)^2 / sum w^2; 0 for fewer than two. Kish 1965, Survey
    Sampling, 11.7"""
    return float(weights.sum() ** 2 / (weights**2).sum()) if (weights > 0).sum() > 1 else 0.0


def ratio(parts: np.ndarray, wholes: np.ndarray, counted: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(F,) ratio of sums over patients, and its effective size by the jackknife variance. A variance from residuals
    would be too small where one patient has many of the images.

    parts, wholes: (patients, F); a patient whose whole is 0 does not count.
    counted: (F,) number of images in the wholes, if parts and wholes count images: the effective size never exceeds it,
      and equals it if each image is of another patient.
    """
    patients = Patients.of(list(wholes.T))
    value, variance = jackknife(parts, wholes)
    if counted is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = np.maximum(variance * (1 - 1 / counted), value * (1 - value) / counted)
    return value, effective_size(value, variance, patients.amount, patients.amount)


def jackknife(parts: np.ndarray, wholes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F,) ratio of sums over patients (patients, F), and its variance; NaN for one patient."""
    total, patients = wholes.sum(axis=0), Patients.of(list(wholes.T))
    value = np.divide(parts.sum(axis=0), total, out=np.full(total.shape, np.nan), where=total > 0)
    rest = total - wholes
    moved = np.divide(parts - value * wholes, rest, out=np.zeros(wholes.shape), where=rest > 0)
    return value, (moved**2).sum(axis=0) / patients.bessel
