"""Variances over patients, and the effective number of independent observations that they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def effective_size(value: np.ndarray, variance: np.ndarray, patients: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """(F,) Wilson's n.

    variance: estimated over patients.
    patients: how many of equal weight there are behind it; with fewer than two there is no variance and no interval.
    alone: n if nothing were known but the number of patients.
    """
    weight = 8 * (np.maximum(patients, 1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = (1 + weight * value * (1 - value)) / (1 / alone + weight * variance)
    return np.where(np.isnan(value) | np.isnan(variance) | (patients <= 1), np.nan, n)


@dataclass(frozen=True)
class Patients:
    """Who is behind an estimate; arrays (F,)."""

    count: np.ndarray
    amount: np.ndarray
    """As many equal ones; 0 where there are fewer than two."""

    @classmethod
    def of(cls, weights: Sequence[np.ndarray]) -> "Patients":
        """The weights of the patients of each finding, 0 for who is none of them."""
        counts = np.array([(one > 0).sum() for one in weights], np.float64)
        return cls(counts, np.array([amount(one) for one in weights], np.float64))

    def fewer(self, other: "Patients") -> "Patients":
        """Of two sides, the one with fewer, finding by finding."""
        own = self.amount <= other.amount
        return Patients(np.where(own, self.count, other.count), np.where(own, self.amount, other.amount))

    @property
    def bessel(self) -> np.ndarray:
        """(F,) by how much the squares about an estimated mean are too small; NaN of one patient."""
        return np.divide(self.count, self.count - 1, out=np.full(len(self.count), np.nan), where=self.count > 1)


def amount(weights: np.ndarray) -> float:
    """How many equal patients (K,) weights of patients amount to: (sum w)^2 / sum w^2; 0 of fewer than two.
    Kish 1965, Survey Sampling, 11.7"""
    return float(weights.sum() ** 2 / (weights**2).sum()) if (weights > 0).sum() > 1 else 0.0


def ratio(parts: np.ndarray, wholes: np.ndarray, counted: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(F,) the ratio of sums over patients, and its effective size by the variance of the jackknife: how far the
    ratio moves without each patient. Residuals would underestimate it where one patient has many of the images.

    parts, wholes: (patients, F); a patient without a whole takes no part.
    counted: (F,) how many images the wholes count, if parts and wholes count images: the effective size never exceeds
    it, and equals it if each image is of another patient.
    """
    patients = Patients.of(list(wholes.T))
    value, variance = jackknife(parts, wholes)
    if counted is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = np.maximum(variance * (1 - 1 / counted), value * (1 - value) / counted)
    return value, effective_size(value, variance, patients.amount, patients.amount)


def jackknife(parts: np.ndarray, wholes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F,) the ratio of sums over patients (patients, F), and its variance; NaN of one patient."""
    total, patients = wholes.sum(axis=0), Patients.of(list(wholes.T))
    value = np.divide(parts.sum(axis=0), total, out=np.full(total.shape, np.nan), where=total > 0)
    rest = total - wholes
    moved = np.divide(parts - value * wholes, rest, out=np.zeros(wholes.shape), where=rest > 0)
    return value, (moved**2).sum(axis=0) / patients.bessel
