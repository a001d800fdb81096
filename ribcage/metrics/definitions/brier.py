"""Brier score: the mean squared difference between probability and label."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(
    label="Brier", needs="probabilities", part=("squared_error",), whole=("known",), counts=False, kind="mean",
    higher_is_better=False, order=90, tables=("findings",),
)  # fmt: skip
