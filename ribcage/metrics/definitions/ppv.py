"""Positive predictive value, precision: the share of positive images among those with a score at or above the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(label="PPV", part=("tp",), whole=("tp", "fp"), order=40, tables=())
