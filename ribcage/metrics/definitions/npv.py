"""Negative predictive value: the share of negative images among those with a score below the threshold."""

from ribcage.metrics.definitions.base import Ratio

METRIC = Ratio(label="NPV", part=("tn",), whole=("fn", "tn"), order=41, tables=())
