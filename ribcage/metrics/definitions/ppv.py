"""Positive predictive value, precision: the share of positive images among those that reach the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(label="PPV", part=("tp",), whole=("tp", "fp"), order=40, tables=())
