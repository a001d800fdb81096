"""Accuracy: the share of images on the right side of the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(
    label="accuracy", heading="acc.", part=("tp", "tn"), whole=("tp", "fp", "fn", "tn"), order=70, wide=False
)
