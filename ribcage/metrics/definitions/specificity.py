"""Specificity: the share of negative images whose scores do not reach the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(
    label="specificity", heading="spec.", part=("tn",), whole=("fp", "tn"), order=30, wide=False,
    tables=("findings", "subgroups", "card"),
)  # fmt: skip
