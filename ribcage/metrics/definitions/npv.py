"""Negative predictive value: the share of negative images among those that do not reach the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(label="NPV", part=("tn",), whole=("fn", "tn"), order=41, tables=())
