"""Ribcage: one tool for the whole life of a chest-radiograph model. Research use only.

Every command is a function here, with the same options: `ribcage import phantom --out data/phantom` is
`ribcage.import_("phantom", out="data/phantom")`. Nothing heavy is loaded before it is used.
"""

import importlib
from typing import Any

from ribcage.runtime.telemetry import off as _off

_off()  # what ONNX Runtime and OpenVINO would report of their use
__version__ = "0.1.0"

# Name → where it lives. Commands need no line here.
_PLACES = {
    "open": "data.dataset_folder",
    "Index": "data.index",
    "Loader": "data.loader",
    "View": "imaging.augment",
    "gentle_view": "imaging.augment",
    "Policy": "data.label_policy",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"ribcage.{_PLACES[name]}"), name)
    api = importlib.import_module("ribcage.api")
    if name in api.function_names():
        return api.verb(name)
    from ribcage.runtime.spelling import did_you_mean

    raise AttributeError(
        f"The package ribcage has no attribute {name!r}.{did_you_mean(name, [*_PLACES, *api.function_names()])}"
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, *importlib.import_module("ribcage.api").function_names()])
