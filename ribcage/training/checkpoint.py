"""Checkpoints: everything a run needs to resume exactly where it stopped, written atomically.

The previous checkpoint is kept. Each ends with its SHA-256; if the newer one is damaged, the older one is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import torch
from torch import Tensor

from ribcage.bundle.formats.reading.torch_files import cheap_calls
from ribcage.runtime import digest, files

FORMAT = 2
FILE, OLDER, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"


class TrainerState(TypedDict):
    """All that a trainer needs to resume."""

    step: int
    method: dict[str, Tensor]
    optimizer: dict[str, object]
    average: dict[str, Tensor] | None
    """The averaged weights with --ema."""
    scale: NotRequired[dict[str, Tensor] | None]
    """The scale of the loss in fp16; older checkpoints have none."""


class SavedRun(TypedDict):
    """What a checkpoint holds."""

    run: TrainerState
    standing: dict[str, float]
    """The best validation so far, and how long ago it was."""


def save_checkpoint(file: Path, state: Mapping[str, object], *, again: bool = False) -> None:
    """Write a checkpoint. The one before becomes the older one after the new one is safe on disk.

    again: the checkpoint before is of the same step; it is replaced, and the older one is kept.
    """
    with files.explained(file.parent, "Free some space; the last checkpoint is intact."), files.atomic(file) as part:
        with files.disk_errors(part):
            torch.save({"ribcage": FORMAT, **state}, part)
        digest.append_digest(part)
        files.sync(part)
        if file.exists() and not again:
            file.replace(file.with_name(OLDER))


def has_checkpoint(folder: Path) -> bool:
    """Whether a run in this folder has saved a checkpoint."""
    return any((folder / name).exists() for name in (FILE, OLDER))


def newest(folder: Path) -> tuple[Path, str]:
    """The newest intact checkpoint, and a warning if that is not the last one written."""
    damaged = []
    for name in (FILE, OLDER):
        try:
            digest.check_appended_digest(folder / name, "")
        except FileNotFoundError:
            continue
        except digest.DamagedError as error:
            damaged.append(str(error).strip())
        else:
            return folder / name, " ".join(
                [*damaged, f"Resuming from the older checkpoint, {name}."]
            ) if damaged else ""
    if damaged:
        raise ValueError(
            f"{' '.join(damaged)} No intact checkpoint is left to resume from. Restore a copy, or start a new run."
        )
    raise FileNotFoundError(f"{folder / FILE} does not exist: there is no checkpoint to resume from.")


def load_checkpoint(file: Path) -> SavedRun:
    """Read a checkpoint without executing anything in it."""
    try:
        digest.check_appended_digest(file, "")
        files.refuse_packed(file)
        with cheap_calls():
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist: there is no checkpoint to resume from.") from None
    except digest.DamagedError as error:
        raise ValueError(f"{str(error).strip()} The run cannot be resumed from it.") from None
    except Exception as error:
        raise ValueError(f"{file} is damaged or is not a Ribcage checkpoint ({type(error).__name__}).") from None
    if not isinstance(state, dict) or state.get("ribcage") != FORMAT:
        raise ValueError(f"{file} was written by another version of Ribcage.")
    return cast(SavedRun, state)  # a trainer that restores it checks what is in it
