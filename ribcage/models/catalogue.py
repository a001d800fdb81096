"""Models by name: timm's, and ours of `architectures/`."""

import re
from typing import Any

import timm

from ribcage.models import architectures as architectures  # ours are then known to timm
from ribcage.runtime.spelling import did_you_mean

NAME = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?", re.ASCII)
"""A model of timm's, and after a dot which of its weights."""


def is_known(name: str) -> bool:
    """Whether timm, or `architectures/`, has such a model. A name with a source before it (hf-hub:…) is none:
    timm would ask the network for it."""
    if not NAME.fullmatch(name) or not timm.is_model(name.split(".")[0]):
        return False
    try:
        return bool(timm.get_pretrained_cfg(name))
    except RuntimeError:  # a tag that timm does not know
        return False


def known_model(name: str) -> str:
    """The name, if there is such a model."""
    if not is_known(name):
        names = timm.list_models()
        raise ValueError(
            f"Unknown model {name!r}.{did_you_mean(name, names)} Any of timm's {len(names):,} models will do."
        )
    return name


def pretrained_config(name: str) -> Any:
    """What timm knows of a model: the size it needs, its first layer, the means and spreads its weights expect."""
    return timm.get_pretrained_cfg(name)
