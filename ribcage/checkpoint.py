"""Checkpoint: everything a run needs to go on as if it had never stopped. Written whole or not at all."""

from pathlib import Path
from typing import Any

import torch

from ribcage import files

FORMAT = 1


def save(file: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the old one stays until the new one is safe on the disk."""
    with files.explained(file.parent, "Free some; the last checkpoint is whole."), files.atomic(file) as part:
        torch.save({"ribcage": FORMAT, **state}, part)


def load(file: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist: there is no checkpoint to go on from.") from None
    except Exception as error:
        raise ValueError(f"{file} is not a checkpoint of Ribcage, or damaged ({type(error).__name__}).") from None
    if not isinstance(state, dict) or state.get("ribcage") != FORMAT:
        raise ValueError(f"{file} is not a checkpoint of this version of Ribcage.")
    return state
