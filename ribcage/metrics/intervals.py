"""Intervals and p-values: what bootstrap and DeLong both answer with."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """Values with their confidence limits and standard errors; arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray


def plain(value: np.ndarray, error: np.ndarray, level: float = 0.95) -> Interval:
    """value ± z · error."""
    reach = NORMAL.inv_cdf((1 + level) / 2) * error
    return Interval(value, value - reach, value + reach, error)


def logit(value: np.ndarray, error: np.ndarray, level: float = 0.95) -> Interval:
    """Limits that are symmetric on the scale log(v / (1 - v)), so they stay between 0 and 1. At 0 and 1 the estimated
    error is 0, which is not a finding but a lack of data: the limits are NaN."""
    inside = (value > 0) & (value < 1)
    safe = np.where(inside, value, 0.5)
    reach = NORMAL.inv_cdf((1 + level) / 2) * error / (safe * (1 - safe))
    middle = np.log(safe / (1 - safe))
    low, high = (np.where(inside, 1 / (1 + np.exp(-(middle + side * reach))), np.nan) for side in (-1, 1))
    return Interval(value, low, high, error)


def two_sided(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """p-value of value = 0 if it is normal with this standard error."""
    z = np.divide(np.abs(value), error, out=np.full(np.shape(value), np.nan), where=np.asarray(error) > 0)
    p = np.array([np.nan if np.isnan(one) else 2 * NORMAL.cdf(-one) for one in z.ravel()]).reshape(z.shape)
    return np.where((value == 0) & (error == 0), 1.0, p)  # the same answers: no sign of a difference


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for asking so many questions at once; NaN is no question.
    Holm 1979, https://www.jstor.org/stable/4615733: p_(i) = max over j ≤ i of (m - j + 1) p_(j)"""
    p = np.asarray(p, np.float64)
    asked = np.flatnonzero(~np.isnan(p))
    order = asked[np.argsort(p[asked], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
