"""Specificity: the share of negative images with a score below the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(
    label="specificity", heading="spec.", part=("tn",), whole=("fp", "tn"), order=30, wide=False,
    tables=("findings", "subgroups", "card"),
)  # fmt: skip
