"""F1 score: the harmonic mean of sensitivity and PPV."""

import numpy as np

from ribcage.metrics.definitions.base import Ratio, Sums
from ribcage.metrics.thresholds import share


def f1(sums: Sums) -> np.ndarray:
    """2 J / (1 + J) of J = TP / (TP + FP + FN); NaN without positives."""
    tp, fp, fn = (sums[name] for name in ("tp", "fp", "fn"))
    return np.where(tp + fn > 0, share(2 * tp, 2 * tp + fp + fn), np.nan)


METRIC = Ratio(label="F1", part=("tp",), whole=("tp", "fp", "fn"), value=f1, kind="f1", positives=True, order=60)
