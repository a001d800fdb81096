"""Area under the ROC curve: the probability that a positive image outscores a negative one; ties count half."""

from dataclasses import dataclass

import numpy as np

from ribcage.metrics.definitions.base import Evidence, Ranked


@dataclass(frozen=True, kw_only=True)
class Area(Ranked):
    """With the variance of DeLong et al."""

    variance = "DeLong, clustered by patient"

    def effective_n(self, value: np.ndarray, drawn: np.ndarray, evidence: Evidence) -> np.ndarray:
        """By DeLong's variance; resamples are not needed."""
        return evidence.area_size


def area(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """One minus the share of pairs in the wrong order."""
    gained, beside = np.diff(true, axis=0, prepend=0.0), np.diff(false, axis=0, prepend=0.0)
    wrong = (gained * (false - beside / 2)).sum(axis=0)  # negatives above, and half of those beside
    return 1 - wrong / (true[-1] * false[-1])


METRIC = Area(label="AUROC", steps=area, order=0, tables=("findings", "comparison", "subgroups", "card"))
