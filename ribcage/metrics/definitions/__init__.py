"""Metrics of a classifier's report, one file each. A file's name is the metric's name, in metrics.json, too.

A file has a docstring whose first line defines the metric, and METRIC, one
of the kinds in `base`. Evaluation, pages, comparison and docs list the files of this folder in their ORDER.
"""

import importlib
import pkgutil
from functools import cache

import numpy as np

from ribcage.metrics.definitions.base import Metric, Need, OfSums, Table
from ribcage.metrics.thresholds import ConfusionCounts

HELPERS = ("base",)
"""Files of this folder that are no metrics."""


def metric_names() -> tuple[str, ...]:
    """All metrics, as tables list them."""
    return tuple(_metrics(tuple(__path__)))


def load_metric(name: str) -> Metric:
    """The definition of a metric."""
    return _metrics(tuple(__path__))[name]


def metrics_of(need: Need) -> tuple[str, ...]:
    """Those that are computed from scores alone, at a threshold, or from probabilities."""
    return tuple(name for name in metric_names() if load_metric(name).needs == need)


def metrics_in(table: Table) -> tuple[str, ...]:
    """Those with a column or a row in this table of a report."""
    return tuple(name for name in metric_names() if table in load_metric(name).tables)


def rates(counts: ConfusionCounts) -> dict[str, np.ndarray]:
    """Every metric that is a function of these counts; NaN where it is undefined."""
    sums, known = vars(counts), {name: load_metric(name) for name in metrics_of("threshold")}
    return {name: one.of(sums) for name, one in known.items() if isinstance(one, OfSums) and one.own is None}


@cache
def _metrics(folders: tuple[str, ...]) -> dict[str, Metric]:
    """Those in these folders, in their order."""
    names = sorted(module.name for module in pkgutil.iter_modules(folders) if module.name not in HELPERS)
    found: dict[str, Metric] = {name: importlib.import_module(f"{__name__}.{name}").METRIC for name in names}
    return dict(sorted(found.items(), key=lambda one: one[1].order))
