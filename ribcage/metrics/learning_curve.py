"""Learning curve: AUROC as a function of the number of training images, with forecasts for more.

    y(n) = a - b n^-c        0 <= b,  a <= 1,  c in EXPONENTS

This power law with three parameters is usual for learning curves (Viering & Loog 2023,
https://doi.org/10.1109/TPAMI.2022.3220744). It is fitted by weighted least squares to the mean of several random
training subsets per count. Its uncertainty has two sources, both of which are in all intervals:

- the training images: s(n)^2, the variance over training sets, is estimated from the subsets as a power of n. Subsets
  of n of N images share n / N of them on average, so that the variance between them is (1 - n / N) s(n)^2, and the
  variance of the mean of R of them is ((1 - n / N) / R + n / N) s(n)^2.
- the test images: the covariance of the AUROCs of all counts, from the influences of patients (`placements`).

A parametric bootstrap draws new means from both, fits the curve to each, and adds the variance of a new training set to
the forecast. If the curve fits the means worse than their variances allow, the variances are multiplied by chi^2 per
degree of freedom. No forecast is made from fewer than 4 counts, or if the AUROC does not increase significantly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

FEWEST_COUNTS = 4
EXPONENTS = np.geomspace(0.1, 1.5, 57)
"""Values of c that are tried; exponents of learning curves are between 0.1 and 1.5."""
MOST_AHEAD = 10.0
"""Largest factor of a forecast."""
RESAMPLES = 2000


@dataclass(frozen=True)
class CurvePoints:
    """AUROCs of models that were trained on random subsets."""

    counts: np.ndarray
    """(K,) training images, ascending."""
    values: np.ndarray
    """(K, R) AUROC of each subset; NaN where there are fewer subsets."""
    pulls: np.ndarray
    """(M, K) influences of test patients on the mean over the subsets, whose products sum to the covariance."""
    available: int
    """Training images from which the subsets were drawn."""

    @property
    def means(self) -> np.ndarray:
        """(K,)"""
        return np.nanmean(self.values, 1)

    @property
    def repeats(self) -> np.ndarray:
        """(K,)"""
        return (~np.isnan(self.values)).sum(1)

    @property
    def overlap(self) -> np.ndarray:
        """(K,) mean share of the images that two subsets have in common."""
        return np.minimum(self.counts / self.available, 1.0)


@dataclass(frozen=True)
class SubsetVariance:
    """The variance over training sets, exp(level) n^slope."""

    level: float
    slope: float
    freedom: float
    """Degrees of freedom of the estimate."""

    def at(self, counts: np.ndarray) -> np.ndarray:
        """The variance for so many images."""
        return np.exp(self.level + self.slope * np.log(counts))


@dataclass(frozen=True)
class Forecast:
    """The AUROC for a number of images that were not available."""

    images: float
    value: float
    low: float
    """Limits of the prediction interval for a model that is trained on a new set of so many images."""
    high: float
    gain: float
    """Difference from the curve at the largest count, and its limits."""
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class FittedCurve:
    """The curve, its parameters from each resample, and the forecasts."""

    a: float
    b: float
    c: float
    parameters: np.ndarray
    """(B, 3) a, b and c of each resample; n is relative to the largest count."""
    largest: float
    forecasts: tuple[Forecast, ...]

    def band(self, images: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value and limits of the curve itself at these numbers of images."""
        drawn = _curve(self.parameters, images / self.largest)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return _curve(np.array([[self.a, self.b, self.c]]), images / self.largest)[0], low, high


def point_intervals(points: CurvePoints, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(K,) limits of the mean AUROC of each count, with the variance over subsets and over test patients."""
    test = (points.pulls**2).sum(0)
    subsets = subset_variance(points)
    own = 0.0 if subsets is None else subsets.at(points.counts) * _mean_share(points)
    freedom = np.inf if subsets is None else subsets.freedom
    total = test + own
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = np.where(own > 0, total**2 / (own**2 / freedom), np.inf) if subsets else np.full(len(test), np.inf)
    half = _t_quantile((1 + level) / 2, joint) * np.sqrt(total)
    return np.clip(points.means - half, 0, 1), np.clip(points.means + half, 0, 1)


def subset_variance(points: CurvePoints) -> SubsetVariance | None:
    """The variance over training sets, from counts with at least two subsets; None without any."""
    known = (points.repeats > 1) & (points.overlap < 1)
    if not known.any():
        return None
    variances = np.nanvar(points.values[known], 1, ddof=1) / (1 - points.overlap[known])
    weights = points.repeats[known] - 1.0
    x, y = np.log(points.counts[known]), np.log(np.maximum(variances, 1e-10))
    # the mean of log chi^2_k / k is about -1 / k
    y = y + 1 / weights
    if len(x) < 3:
        return SubsetVariance(float(np.average(y, weights=weights)), 0.0, float(weights.sum()))
    middle = np.average(x, weights=weights)
    spread = np.average((x - middle) ** 2, weights=weights)
    slope = float(np.clip(np.average((x - middle) * y, weights=weights) / spread, -2.0, 0.0))
    level = float(np.average(y, weights=weights) - slope * middle)
    return SubsetVariance(level, slope, float(max(weights.sum() - 2, 1)))


def why_no_forecast(points: CurvePoints, level: float = 0.95) -> str:
    """Why no curve can be fitted; "" if one can."""
    if len(points.counts) < FEWEST_COUNTS:
        return f"A forecast needs at least {FEWEST_COUNTS} numbers of images, not {len(points.counts)}."
    subsets = subset_variance(points)
    if subsets is None:
        return "A forecast needs at least 2 random subsets of each number of images, to estimate their variance."
    own = subsets.at(points.counts[[0, -1]]) * _mean_share(points)[[0, -1]]
    variance = own.sum() + ((points.pulls[:, -1] - points.pulls[:, 0]) ** 2).sum()
    gain = points.means[-1] - points.means[0]
    half = float(_t_quantile((1 + level) / 2, np.array([subsets.freedom]))[0] * np.sqrt(variance))
    if gain - half > 0:
        return ""
    first, last = (f"{count:,.0f}" for count in points.counts[[0, -1]])
    return (
        f"The AUROC does not increase significantly from {first} to {last} images (by {gain:+.3f}, {100 * level:g} % "
        f"interval {gain - half:+.3f} to {gain + half:+.3f}), so nothing can be forecast from it."
    ).replace("-0.", "−0.")


def fit_learning_curve(
    points: CurvePoints,
    factors: Sequence[float] = (2.0, 5.0, 10.0),
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FittedCurve:
    """The curve and forecasts for these multiples of the largest count; ValueError with `why_no_forecast`."""
    if reason := why_no_forecast(points, level):
        raise ValueError(reason)
    if wrong := [factor for factor in factors if not 1 < factor <= MOST_AHEAD]:
        raise ValueError(f"A forecast is for more than 1 to {MOST_AHEAD:g} times the images, not {wrong[0]:g}.")
    subsets = subset_variance(points)
    assert subsets
    largest = float(points.counts[-1])
    x = points.counts / largest
    variance = subsets.at(points.counts) * _mean_share(points)
    fitted = _fit(points.means[None], x, variance)
    misfit = ((points.means - _curve(fitted, x)[0]) ** 2 / variance).sum() / (len(x) - 3)
    variance = variance * max(1.0, misfit)
    random = np.random.default_rng(seed)
    scale = np.sqrt(subsets.freedom / random.chisquare(subsets.freedom, (resamples, 1)))  # as Student's t
    drawn = points.means + random.normal(size=(resamples, len(x))) * scale * np.sqrt(variance)
    drawn += random.normal(size=(resamples, len(points.pulls))) @ points.pulls
    parameters = _fit(drawn, x, variance)
    ends = [(1 - level) / 2, (1 + level) / 2]
    now, now_drawn = _curve(fitted, np.ones(1))[0, 0], _curve(parameters, np.ones(1))[:, 0]
    forecasts = []
    for factor in factors:
        at = np.array([factor])
        value, curves = _curve(fitted, at)[0, 0], _curve(parameters, at)[:, 0]
        new = random.normal(size=resamples) * scale[:, 0] * np.sqrt(subsets.at(at * largest)[0])
        low, high = np.quantile(curves + new, ends)
        gain_low, gain_high = np.quantile(curves - now_drawn, ends)
        limits = (max(0.0, float(low)), min(1.0, float(high)))
        forecasts.append(
            Forecast(factor * largest, float(value), *limits, float(value - now), float(gain_low), float(gain_high))
        )
    a, b, c = fitted[0].tolist()
    return FittedCurve(a, b, c, parameters, largest, tuple(forecasts))


def _mean_share(points: CurvePoints) -> np.ndarray:
    """(K,) variance of the mean over the subsets, as a multiple of the variance over training sets."""
    return (1 - points.overlap) / points.repeats + points.overlap


def _curve(parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(B, X) a - b x^-c"""
    a, b, c = parameters.T[:, :, None]
    return a - b * x[None] ** -c


def _fit(means: np.ndarray, x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """(B, 3) parameters for each row of means (B, K): linear in a and b, for each exponent."""
    weights = 1 / (variance + 1e-8)
    weights = weights / weights.sum()
    best, errors = np.zeros((len(means), 3)), np.full(len(means), np.inf)
    centre = means @ weights  # (B,)
    for c in EXPONENTS:
        basis = -(x**-c)
        middle = basis @ weights
        b = ((means - centre[:, None]) * (weights * (basis - middle))).sum(1) / (weights * (basis - middle) ** 2).sum()
        b = np.maximum(b, 0.0)
        a = centre - b * middle
        bound = ((1 - means) * (weights * -basis)).sum(1) / (weights * basis**2).sum()  # b where a is 1
        a, b = np.where(a > 1, 1.0, a), np.where(a > 1, np.maximum(bound, 0.0), b)
        error = (weights * (means - (a[:, None] + b[:, None] * basis)) ** 2).sum(1)
        better = error < errors
        best[better] = np.stack([a, b, np.full(len(a), c)], 1)[better]
        errors = np.minimum(errors, error)
    return best


def _t_quantile(share: float, freedom: np.ndarray) -> np.ndarray:
    """Quantiles of Student's t distribution: exact for 1 and 2 degrees of freedom, to which broken numbers below 3 are
    rounded down, else by the expansion of Cornish and Fisher (to 0.2 % for the limits of 95 % intervals)."""
    z, v = NormalDist().inv_cdf(share), np.maximum(freedom, 3.0)
    terms = (
        (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )  # fmt: skip
    many = z + sum(term / v ** (power + 1) for power, term in enumerate(terms))
    two = (2 * share - 1) / math.sqrt(2 * share * (1 - share))
    return np.where(freedom < 2, math.tan(math.pi * (share - 0.5)), np.where(freedom < 3, two, many))
