"""Accuracy: the share of images that are classified correctly at the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(
    label="accuracy", heading="acc.", part=("tp", "tn"), whole=("tp", "fp", "fn", "tn"), order=70, wide=False
)
