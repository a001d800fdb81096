"""Trackers: one file for each experiment tracker that a run can also be logged to. A file's name is the tracker's name.

None of their packages is imported before a run is tracked.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence

from ribcage.runtime.spelling import did_you_mean
from ribcage.training.trackers.base import Tracker

HELPERS = ("base",)
"""Files of this folder that are not trackers."""


def tracker_names() -> tuple[str, ...]:
    """All trackers: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS))


def load_tracker(name: str) -> type[Tracker]:
    """The class of a tracker."""
    if name not in tracker_names():
        raise ValueError(
            f"Unknown tracker {name!r}.{did_you_mean(name, tracker_names())} Trackers: {', '.join(tracker_names())}."
        )
    module = importlib.import_module(f"ribcage.training.trackers.{name}")
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return next(kind for kind in found if issubclass(kind, Tracker))


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for an unknown tracker, and ImportError for one whose packages are not installed."""
    kinds = {name: load_tracker(name) for name in names}
    for name, kind in kinds.items():
        absent = [package for package in kind.packages if importlib.util.find_spec(package) is None]
        if absent:
            raise ImportError(f"--track {name} needs {', '.join(absent)}: pip install 'ribcage[{name}]'")
