"""Average precision: the step-wise area under the precision–recall curve, without interpolation."""

import numpy as np

from ribcage.metrics.definitions.base import Ranked


def precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """The mean of the precision over the recall."""
    called = true + false
    shares = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    return (np.diff(true, axis=0, prepend=0.0) * shares).sum(axis=0) / true[-1]


METRIC = Ranked(label="AP", steps=precision, order=10, mean_from=200)
"""Of few positives AP is too large on average, for all findings alike: the interval of their mean would hold the truth
too rarely (`benchmarks/coverage.py --parts rare`)."""
