"""Models by name: timm's, and ours of `architectures/`."""

import re
from typing import Any

import timm

from ribcage.models import architectures as architectures  # registers ours with timm
from ribcage.runtime.spelling import did_you_mean

NAME = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?", re.ASCII)
"""Name of a timm model, and after a dot the tag of its weights."""


def is_known(name: str) -> bool:
    """Whether timm or `architectures/` has this model. A name with a source before it (hf-hub:…) counts as unknown,
    since timm would access the network for it."""
    if not NAME.fullmatch(name) or not timm.is_model(name.split(".")[0]):
        return False
    try:
        return bool(timm.get_pretrained_cfg(name))
    except RuntimeError:  # a tag that timm does not know
        return False


def model_names() -> list[str]:
    """Names of all architectures."""
    return list(timm.list_models())


def known_model(name: str) -> str:
    """The name, if there is such a model; else ValueError."""
    if not is_known(name):
        names = model_names()
        raise ValueError(
            f"Unknown model {name!r}.{did_you_mean(name, names)} 'ribcage profile --list' lists all {len(names):,} "
            "models."
        )
    return name


def pretrained_config(name: str) -> Any:
    """timm's configuration of a model: its input size, first layer, and the normalisation that its weights expect."""
    return timm.get_pretrained_cfg(name)
