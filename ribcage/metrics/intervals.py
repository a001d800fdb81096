"""Wilson intervals for an effective number of independent observations.

Every number here is a proportion, or a mean of values between 0 and 1: a rate, AUROC, average precision, a mean over
findings. If the variance at a true value v is v (1 - v) / n, Wilson's interval contains all v within z standard errors
*at v* of the estimate. So the limits stay between 0 and 1, and the interval never has zero width: 5 of 5 is .566 to 1.
For counts of independent images n is their number. Otherwise n is estimated, the effective size (`effective_n`):

  1 / n = (1 / n0 + k V) / (1 + k v (1 - v)),    k = 8 (m - 1)

V is the estimated variance over patients, m the number of patients it is estimated from, n0 the effective size if only
their number is known. Where v is near 0 or 1 an estimated variance is unreliable (at 0 and 1 it is 0 for lack of data),
and n0 dominates; elsewhere V does. With one patient there is no variance and no interval.

Wilson 1927, https://doi.org/10.2307/2276774; the limit of counts that are nearly all or nearly none: Brown, Cai &
DasGupta 2001, https://doi.org/10.1214/ss/1009213286, section 4.1.1; n in place of the number of images: Korn & Graubard
1998. `benchmarks/coverage.py` measures the coverage of the intervals.
"""

from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import Literal, Self

import numpy as np

NORMAL = NormalDist()
Kind = Literal["mean", "count", "f1"]
"""Kind of estimate: a mean of values; a proportion of images; F1, via the proportion that it is a function of."""
LARGEST_ERROR = 0.5
"""Largest standard error of a value between 0 and 1; used in a mean for a finding whose own cannot be estimated."""


@dataclass(frozen=True)
class Interval:
    """Values with their confidence limits and standard errors; arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Proportions:
    """Estimates of each finding that lie between two ends, 0 and 1 unless `lowest` and `width` say otherwise. Variances
    and limits are those of the share of the way from one end to the other."""

    value: np.ndarray
    effective_n: np.ndarray
    """(F,) Wilson's n, the number of independent observations of equal variance. NaN: no interval."""
    vectors: np.ndarray
    """(K, F) vectors whose correlations are those of the estimates: resamples, or influence values of patients."""
    kind: Kind = "mean"
    bias: np.ndarray | float = 0.0
    """(F,) bias of the shares; the limits are those of the corrected shares."""
    lowest: float = 0.0
    width: float = 1.0

    @property
    def share(self) -> np.ndarray:
        """(F,) where the values lie, 0 to 1."""
        return (self.value - self.lowest) / self.width

    @property
    def error(self) -> np.ndarray:
        """(F,) standard errors; not 0 at the ends."""
        return self.width * self.share_error

    @property
    def share_error(self) -> np.ndarray:
        """(F,) of the share."""
        return standard_errors(self.share, self.effective_n, self.kind)

    @property
    def shared(self) -> np.ndarray:
        """(F,) how much of two counts' errors can be correlated: the added hit and miss (`errors`) are independent. So
        even two models with equal predictions differ by as much as one image may."""
        return np.ones(len(self.value)) if self.kind == "mean" else np.sqrt(self.effective_n / (self.effective_n + 2))

    def interval(self, level: float = 0.95) -> Interval:
        """Wilson's limits, which always include the value."""
        found = wilson(np.clip(self.share - self.bias, 0.0, 1.0), self.effective_n, level, self.kind)
        low, high = (self.lowest + self.width * limit for limit in (found.low, found.high))
        low, high = np.minimum(low, self.value), np.maximum(high, self.value)
        return Interval(self.value, low, high, self.error)

    def over(self, chosen: np.ndarray) -> Self:
        """The same, undefined for all findings but those chosen (F,)."""
        return replace(self, value=np.where(chosen, self.value, np.nan))

    def macro(self) -> Self:
        """The mean over defined findings. A finding without interval counts with the largest possible error."""
        kept = np.flatnonzero(~np.isnan(self.value))
        bias = np.broadcast_to(self.bias, self.value.shape)[kept]
        if len(kept) == 1:
            own = {name: getattr(self, name)[..., kept] for name in ("value", "effective_n", "vectors")}
            return replace(self, **own, bias=bias)
        if not len(kept):
            nothing = np.full(1, np.nan)
            return replace(self, value=nothing, effective_n=nothing, vectors=np.full((len(self.vectors), 1), np.nan))
        value, share, vectors = self.value[kept], self.share[kept], self.vectors[:, kept]
        error = errors_in_mean(share, self.effective_n[kept], self.kind)
        variance = combined_variance(error, correlations(vectors), np.full(len(kept), 1 / len(kept)))
        middle = np.where(np.isnan(self.effective_n[kept]), share, drawn_in(share, self.effective_n[kept])).mean()
        effective_n = max(middle * (1 - middle) / variance - 2, 0.0) if variance > 0 else np.nan
        defined = vectors[:, ~np.isnan(vectors).all(axis=0)]
        mean = defined.mean(axis=1, keepdims=True) if defined.size else vectors[:, :1]
        middle = value.mean(keepdims=True), np.full(1, effective_n), mean
        return replace(self, value=middle[0], effective_n=middle[1], vectors=middle[2], kind="mean", bias=bias.mean())


@dataclass(frozen=True)
class Paired:
    """a - b on the same images: limits at z standard errors, which include the correlation of both."""

    a: Proportions
    b: Proportions

    @property
    def value(self) -> np.ndarray:
        """(F,) the difference a - b."""
        return self.a.value - self.b.value

    @property
    def error(self) -> np.ndarray:
        """(F,) standard errors."""
        variances = [self._variance(np.array([place])) for place in range(len(self.value))]
        known = ~np.isnan(self.a.error + self.b.error)
        return self.a.width * np.where(known, np.sqrt(np.array(variances)), np.nan)

    def _variance(self, places: np.ndarray) -> float:
        """Variance of the mean difference of shares over these findings."""
        both = (self.a, self.b)
        own = np.concatenate([each.share_error[places] for each in both])
        alike = correlations(np.concatenate([each.vectors[:, places] for each in both], axis=1))
        kept = np.concatenate([each.shared[places] for each in both])
        alike = np.where(np.eye(len(own)), 1.0, alike * np.outer(kept, kept))
        return combined_variance(own, alike, np.repeat([1 / len(places), -1 / len(places)], len(places)))

    def interval(self, level: float = 0.95) -> Interval:
        """Limits within the range of differences."""
        return normal_interval(self.value, self.error, level, self.a.width)

    def p_value(self) -> np.ndarray:
        """(F,) two-sided p-value for no difference; below .05 where the 95 % interval excludes 0."""
        return two_sided(self.value, self.error)

    def over(self, chosen: np.ndarray) -> "Paired":
        """The same, undefined for all findings but those chosen (F,)."""
        return Paired(self.a.over(chosen), self.b.over(chosen))

    def macro(self) -> "MeanDifference":
        """The difference of the means over findings that are defined for both."""
        kept = np.flatnonzero(~np.isnan(self.value))
        if not len(kept):
            return MeanDifference(np.full(1, np.nan), np.full(1, np.nan))
        error = self.a.width * np.sqrt(np.full(1, self._variance(kept)))
        return MeanDifference(self.value[kept].mean(keepdims=True), error, self.a.width)


@dataclass(frozen=True)
class Gap:
    """a - b of one metric on different images, such as those of a subgroup and all others; a patient may have images in
    both. Limits are recovered from those of a and b and are asymmetric like these:

      lower = d - sqrt(A^2 + B^2 - 2 r A B),   A = a - a_low,   B = b_high - b,   r the correlation of a and b

    Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10; with a
    correlation Zou 2007, https://doi.org/10.1037/1082-989X.12.4.399.
    """

    a: Proportions
    b: Proportions
    """Its vectors are of the same patients or resamples as those of a."""

    @property
    def value(self) -> np.ndarray:
        """(F,) the difference a - b."""
        return self.a.value - self.b.value

    def interval(self, level: float = 0.95) -> Interval:
        """Limits within -1 and 1."""
        a, b = self.a.interval(level), self.b.interval(level)
        r = np.diagonal(correlations(np.concatenate([self.a.vectors, self.b.vectors], axis=1)), len(self.value))

        def both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            return np.sqrt(np.maximum(one**2 + other**2 - 2 * r * one * other, 0.0))

        low, high = both(a.value - a.low, b.high - b.value), both(a.high - a.value, b.value - b.low)
        return Interval(self.value, self.value - low, self.value + high, both(a.error, b.error))

    def macro(self) -> "Gap":
        """The difference of the means over findings that are defined on both sides."""
        kept = ~np.isnan(self.value)
        return Gap(self.a.over(kept).macro(), self.b.over(kept).macro())


@dataclass(frozen=True)
class MeanDifference:
    """A mean difference over findings: one number."""

    value: np.ndarray
    """(1,)"""
    error: np.ndarray
    width: float = 1.0

    def interval(self, level: float = 0.95) -> Interval:
        """Limits within the range of differences."""
        return normal_interval(self.value, self.error, level, self.width)

    def p_value(self) -> np.ndarray:
        """(1,) two-sided p-value for no difference."""
        return two_sided(self.value, self.error)


def wilson(value: np.ndarray, effective_n: np.ndarray, level: float = 0.95, kind: Kind = "mean") -> Interval:
    """All v with |value - v| <= z sqrt(v (1 - v) / effective_n)."""
    if kind == "f1":
        limits = wilson(value / (2 - value), effective_n, level, "count")
        low, high = (2 * end / (1 + end) for end in (limits.low, limits.high))
        return Interval(value, low, high, standard_errors(value, effective_n, kind))
    z = NORMAL.inv_cdf((1 + level) / 2)
    middle = (value * effective_n + z * z / 2) / (effective_n + z * z)
    reach = z / (effective_n + z * z) * np.sqrt(np.maximum(effective_n * value * (1 - value), 0.0) + z * z / 4)
    low, high = np.maximum(middle - reach, 0.0), np.minimum(middle + reach, 1.0)
    if kind == "count":
        low, high = (
            np.minimum(low, _of_few(value, effective_n, level)),
            np.maximum(high, 1 - _of_few(1 - value, effective_n, level)),
        )
    return Interval(value, low, high, standard_errors(value, effective_n, kind))


def standard_errors(value: np.ndarray, effective_n: np.ndarray, kind: Kind = "mean") -> np.ndarray:
    """(F,) standard errors with one more hit and miss: not 0 where the value is 0 or 1. For differences and means.
    Agresti & Caffo 2000, https://doi.org/10.1080/00031305.2000.10474560"""
    if kind == "f1":
        share = value / (2 - value)
        return standard_errors(share, effective_n) * 2 / (1 + drawn_in(share, effective_n)) ** 2  # F1 = 2 J / (1 + J)
    middle = drawn_in(value, effective_n)
    return np.sqrt(middle * (1 - middle) / (effective_n + 2))


def errors_in_mean(value: np.ndarray, effective_n: np.ndarray, kind: Kind = "mean") -> np.ndarray:
    """(F,) standard errors for the interval of a mean over findings. Those of rates are at least the unbiased estimate,
    sqrt(v (1 - v) / (n - 1)): with few images the added hit and miss make them too small, unless v is near 0 or 1."""
    added = standard_errors(value, effective_n, kind)
    if kind == "mean":
        return added
    share = value / (2 - value) if kind == "f1" else value
    slope = 2 / (1 + share) ** 2 if kind == "f1" else 1.0
    unbiased = slope * np.sqrt(np.maximum(share * (1 - share), 0.0) / np.maximum(effective_n - 1, 1.0))
    return np.maximum(added, unbiased)


def drawn_in(value: np.ndarray, effective_n: np.ndarray) -> np.ndarray:
    """(F,) the value with one more hit and miss."""
    return (value * effective_n + 1) / (effective_n + 2)


def normal_interval(value: np.ndarray, error: np.ndarray, level: float = 0.95, largest: float = 1.0) -> Interval:
    """value ± z · error, within -largest and largest."""
    reach = NORMAL.inv_cdf((1 + level) / 2) * error
    return Interval(value, np.maximum(value - reach, -largest), np.minimum(value + reach, largest), error)


def correlations(vectors: np.ndarray) -> np.ndarray:
    """(F, F) correlations of columns (K, F), where both are defined; 0 where one is constant."""
    known = ~np.isnan(vectors)
    counts = known.sum(axis=0)
    means = np.divide(np.where(known, vectors, 0.0).sum(axis=0), counts, out=np.zeros(len(counts)), where=counts > 0)
    apart = np.where(known, vectors - means, 0.0)
    products, squares = apart.T @ apart, (apart**2).T @ known.astype(np.float64)
    scale = np.sqrt(squares * squares.T)
    found = np.divide(products, scale, out=np.zeros(scale.shape), where=scale > 0)
    np.fill_diagonal(found, 1.0)
    return found


def combined_variance(error: np.ndarray, correlation: np.ndarray, weights: np.ndarray) -> float:
    """Variance of a weighted sum of estimates. Estimates without error count with the largest possible one; NaN if none
    has one."""
    if np.isnan(error).all():
        return float("nan")
    scaled = weights * np.where(np.isnan(error), LARGEST_ERROR, error)
    return max(float(scaled @ correlation @ scaled), 0.0)


def two_sided(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """p-value of value = 0 if it is normal with this standard error."""
    z = np.divide(np.abs(value), error, out=np.full(np.shape(value), np.nan), where=np.asarray(error) > 0)
    p = np.array([np.nan if np.isnan(one) else 2 * NORMAL.cdf(-one) for one in z.ravel()]).reshape(z.shape)
    return np.where((value == 0) & (error == 0), 1.0, p)  # identical predictions: no evidence of a difference


def concatenated(*parts: Interval) -> Interval:
    """Intervals concatenated into one."""
    return Interval(*(np.concatenate([getattr(part, side.name) for part in parts]) for side in fields(Interval)))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for multiple testing; NaN is not counted as a test. Holm 1979,
    https://www.jstor.org/stable/4615733: p_(i) = max over j ≤ i of (m - j + 1) p_(j)"""
    p = np.asarray(p, np.float64)
    asked = np.flatnonzero(~np.isnan(p))
    order = asked[np.argsort(p[asked], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _of_few(share: np.ndarray, effective_n: np.ndarray, level: float) -> np.ndarray:
    """Lower limit of a proportion of one to three observations: that of a Poisson count, one-sided. Its quantile is
    from Wilson & Hilferty 1931, https://doi.org/10.1073/pnas.17.12.684; for more than three it has no effect, 1."""
    count = share * effective_n
    few = count <= np.where(effective_n > 50, 3.0, 2.0) + 1e-9
    ninth = 1 / (9 * np.maximum(count, 1e-9))
    with np.errstate(invalid="ignore"):
        limit = share * np.maximum(1 - ninth + NORMAL.inv_cdf(1 - level) * np.sqrt(ninth), 0.0) ** 3
    return np.where(few, limit, 1.0)
