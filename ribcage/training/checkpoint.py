"""Checkpoints: everything a run needs to resume exactly where it stopped, written atomically.

A checkpoint is a file or, if the weights are divided among processes, a folder:

checkpoint/
├── run.pt            everything that is not divided
├── 0.safetensors     the rows of each tensor that rank 0 had, and so on for each rank
└── SHA256SUMS        digests of these rows; written last

The previous checkpoint is kept, and is used if the newer one is damaged. A file ends with its SHA-256.
"""

import errno
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from ribcage.bundle.formats.reading.torch_files import cheap_calls
from ribcage.runtime import digest, files
from ribcage.training.shards import SavedTensor, read_shards

FORMAT = 2
FILE, OLDER, DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"
FOLDER, OLDER_FOLDER, DAMAGED_FOLDER = "checkpoint", "checkpoint.previous", "checkpoint.damaged"
REST = "run.pt"
PLACES = {FILE: DAMAGED, FOLDER: DAMAGED_FOLDER, OLDER: "", OLDER_FOLDER: ""}
"""Checkpoints of a run folder from the newest to the oldest → the name of one that is found to be damaged."""
UNREADABLE = {getattr(errno, name) for name in ("EIO", "EBADMSG", "EUCLEAN") if hasattr(errno, name)}
"""Errors of a disk or file system that has lost the content of a file."""
FREE_SPACE = "Free some space; checkpoints that were written before are intact."


class TrainerState(TypedDict):
    """All that a trainer needs to resume."""

    step: int
    method: dict[str, Tensor]
    """In a state that was read from a folder, tensors in it and below may be SavedTensors."""
    optimizer: dict[str, object]
    average: dict[str, Tensor] | None
    """The averaged weights with --ema."""
    frozen: NotRequired[str]
    """Digest of the weights that are not trained, which are left out; older checkpoints have them."""
    scale: NotRequired[dict[str, Tensor] | None]
    """The scale of the loss in fp16; older checkpoints have none."""


class SavedRun(TypedDict):
    """What a checkpoint holds."""

    run: TrainerState
    standing: dict[str, float]
    """The best validation so far, and how long ago it was."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and values of tensors, in this order."""
    found = hashlib.sha256()
    for name, value in tensors.items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def save_checkpoint(file: Path, state: Mapping[str, object], *, again: bool = False) -> None:
    """Write a checkpoint. The one before becomes the older one after the new one is safe on disk.

    again: the checkpoint before is of the same step; it is replaced, and the older one is kept.
    """
    with files.explained(file.parent, FREE_SPACE), files.atomic(file) as part:
        _write(part, state)
        make_way(file.parent, but=FILE if again else "")


def begin_folder(part: Path, rest: Mapping[str, object]) -> None:
    """Make the folder of a new checkpoint, with all that is not divided. What is left of an earlier one is removed."""
    with files.explained(part.parent, FREE_SPACE):
        for left in part.parent.glob(f"{FOLDER}.*.part"):
            _remove(left)
        part.mkdir()
        _write(part / REST, rest)


def replace_rest(folder: Path, rest: Mapping[str, object]) -> bool:
    """Replace all that is not divided in the newest checkpoint, which is of the same step; False if it is no folder."""
    if not (folder / FOLDER).is_dir():
        return False
    with files.explained(folder, FREE_SPACE), files.atomic(folder / FOLDER / REST) as part:
        _write(part, rest)
    return True


def _write(part: Path, state: Mapping[str, object]) -> None:
    with files.disk_errors(part):
        torch.save({"ribcage": FORMAT, **state}, part)
    digest.append_digest(part)
    files.sync(part)


def make_way(folder: Path, but: str = "") -> None:
    """Make the newest checkpoint the older one, after a new one is safe on disk. One with the name `but` stays."""
    for name, older in ((FILE, OLDER), (FOLDER, OLDER_FOLDER)):
        if name != but and (folder / name).exists():
            for stale in {OLDER, OLDER_FOLDER} - ({OLDER} if older == OLDER else set()):
                _remove(folder / stale)
            (folder / name).replace(folder / older)


def set_damaged_aside(folder: Path, used: str) -> None:
    """Rename checkpoints that are newer than the one used: they are damaged."""
    for name in list(PLACES)[: list(PLACES).index(used)]:
        if PLACES[name] and (folder / name).exists():
            _remove(folder / PLACES[name])
            (folder / name).replace(folder / PLACES[name])


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif place.is_symlink() or place.exists():
        place.unlink()


def has_checkpoint(folder: Path) -> bool:
    """Whether a run in this folder has saved a checkpoint."""
    return any((folder / name).exists() for name in PLACES)


def newest(folder: Path) -> tuple[Path, str]:
    """The newest intact checkpoint, and a warning if that is not the last one written."""
    damaged = []
    for name in PLACES:
        try:
            _check(folder / name)
        except FileNotFoundError:
            continue
        except digest.DamagedError as error:
            damaged.append(str(error).strip())
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            damaged.append(f"{folder / name} cannot be read ({error.strerror}): the disk may be failing.")
        else:
            return folder / name, " ".join(
                [*damaged, f"Resuming from the older checkpoint, {name}."]
            ) if damaged else ""
    if damaged:
        raise ValueError(
            f"{' '.join(damaged)} No intact checkpoint is left to resume from. Restore a checkpoint from a backup, or "
            f"start a new run."
        )
    raise FileNotFoundError(f"{folder / FILE} does not exist: there is no checkpoint to resume from.")


def _check(place: Path) -> None:
    """Raise DamagedError unless a checkpoint is as it was written."""
    if not place.is_dir():
        digest.check_appended_digest(place, "")
        return
    refuse_links(place)
    listed = digest.recorded_digests(place)
    if not listed or not (place / REST).exists():
        raise digest.DamagedError(f"{place} is incomplete.")
    digest.check_appended_digest(place / REST, "")
    digest.check_folder(place, "")
    if unlisted := [file.name for file in place.glob("*.safetensors") if file.name not in listed]:
        raise digest.DamagedError(f"{place} is damaged: {digest.SUMS} does not list {unlisted[0]}.")
    try:
        read_shards(place / name for name in listed)
    except ValueError as error:
        raise digest.DamagedError(f"{place} is damaged: {error}.") from None


def refuse_links(folder: Path) -> None:
    """Raise if the folder of a checkpoint or a file in it is a symbolic link."""
    for file in (folder, *folder.iterdir()):
        files.refuse_links(folder.parent, file)


def load_checkpoint(place: Path) -> SavedRun:
    """Read a checkpoint without executing anything in it. Of a folder, tensors are read when they are used; `newest`
    has checked their digests."""
    if not place.is_dir():
        return _load_file(place)
    refuse_links(place)
    state = _load_file(place / REST)
    try:
        for path, tensor in read_shards(place / name for name in digest.recorded_digests(place)).items():
            _insert(state, path, tensor)
    except Exception as error:
        raise ValueError(f"{place} is damaged or is not a Ribcage checkpoint ({type(error).__name__}).") from None
    return state


def _insert(state: Any, path: str, tensor: SavedTensor) -> None:
    """Put a tensor in its place in nested dicts."""
    *keys, last = path.split("/")
    for key in keys:
        state = state[int(key) if key.isdecimal() else key]
    state[last] = tensor


def _load_file(file: Path) -> SavedRun:
    try:
        digest.check_appended_digest(file, "")
        files.refuse_packed(file)
        with cheap_calls():
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist: there is no checkpoint to resume from.") from None
    except digest.DamagedError as error:
        raise ValueError(f"{str(error).strip()} The run cannot be resumed from this checkpoint.") from None
    except Exception as error:
        raise ValueError(f"{file} is damaged or is not a Ribcage checkpoint ({type(error).__name__}).") from None
    if not isinstance(state, dict) or state.get("ribcage") != FORMAT:
        raise ValueError(f"{file} was written by another version of Ribcage.")
    return cast(SavedRun, state)  # a trainer that restores it checks what is in it
