"""The range of values that is shown where no window can be used: between percentiles, without outliers."""

import numpy as np

# Without a usable window: percentiles of the pixels that become black and white, and the share of their distance by
# which the range is widened.
ROBUST = (1.0, 99.0)
WIDENED = 0.1


def robust_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float, str]:
    """Values for black and white without a window, robust to letters, markers and borders.

    The darkest and the brightest value are left out (borders and letters), as are few pixels far from all others. The
    range goes from the 1st to the 99th percentile of the rest, widened by a tenth on both sides, but not beyond the
    values that occur.
    """
    seen = values[counts > 0]
    if not len(seen):
        return 0.0, 0.0, "range 0 to 0"
    least, most = float(seen.min()), float(seen.max())
    between = np.where((values > least) & (values < most), counts, 0)
    between = between if between.sum() else counts
    low, high = percentiles_of_counts(values, _without_outliers(values, between), ROBUST)
    wider = WIDENED * (high - low)
    low, high = max(low - wider, least), min(high + wider, most)
    whole = (low, high) == (least, most)
    return low, high, f"range {low:.6g} to {high:.6g}{'' if whole else f' of {least:.6g} to {most:.6g}'}"


def _without_outliers(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The counts without outliers: up to a twentieth of the pixels at either end whose distance to all others exceeds
    the range of those others."""
    order = np.argsort(values, kind="stable")
    ordered, number = values[order], counts[order]
    there = np.flatnonzero(number)
    total, below = number.sum(), np.cumsum(number[there])
    gaps = np.diff(ordered[there])
    first, last = 0, len(there) - 1
    body = np.subtract(*percentiles_of_counts(values, counts, (95.0, 5.0)))
    for place in np.flatnonzero(gaps > max(body, 0)):
        if below[place] <= 0.05 * total:
            first = max(first, int(place) + 1)
        elif total - below[place] <= 0.05 * total:
            last = min(last, int(place))
    kept = np.zeros_like(counts)
    kept[order[there[first : last + 1]]] = number[there[first : last + 1]]
    return kept if kept.sum() else counts


def percentiles_of_counts(values: np.ndarray, counts: np.ndarray, asked: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of values with these counts."""
    values, counts = values[counts > 0], counts[counts > 0]
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    places = [int(np.searchsorted(below, share / 100 * below[-1])) for share in asked]
    first, last = (float(values[order[min(place, len(order) - 1)]]) for place in places)
    return first, last
