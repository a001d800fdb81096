"""Sensitivity, recall: the share of positive images whose scores reach the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(
    label="sensitivity", heading="sens.", part=("tp",), whole=("tp", "fn"), order=20, wide=False,
    tables=("findings", "subgroups", "card"),
)  # fmt: skip
