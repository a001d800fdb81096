"""Cache folder: files that are derived from others, and removed when they have not been used for some time.

It is the folder RIBCAGE_INDEX_CACHE, else `ribcage/tables` in the user's cache folder. An entry is written by one
process and read by all. Its name is a hash of what it is derived from, so it never has to be updated.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ribcage.runtime import files

VARIABLE = "RIBCAGE_INDEX_CACHE"
DAYS = 30
"""Days after its last use for which an entry is kept."""
CONTENTS = "contents.json"
"""File of an entry with the size and the modification time of each other file."""


def user_cache_folder(variable: str, name: str) -> Path:
    """The folder in an environment variable, else `ribcage/NAME` in the user's cache folder; it may not exist yet."""
    own, home = os.environ.get(variable, ""), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if own:
            return Path(own).expanduser().absolute()
        return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "ribcage" / name
    except RuntimeError:
        raise OSError(f"No home folder was found for the cache. Set {variable} to a folder.") from None


def cache_entry(kind: str, name: str, write: Callable[[Path], None]) -> Path:
    """The folder of an entry, which `write` fills in if it does not exist, or if one of its files is missing or was
    changed; OSError if it can be neither read nor written."""
    place = user_cache_folder(VARIABLE, "tables") / kind
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    entry = place / name
    if not _is_intact(entry):
        with _turn(place / f"{name}.lock"):
            if not _is_intact(entry):
                _remove_unused(place)
                _remove(entry)
                _written(entry, write)
    if hasattr(os, "getuid") and entry.stat().st_uid != os.getuid():
        raise PermissionError(f"{entry} belongs to another user")
    with contextlib.suppress(OSError):
        os.utime(entry)
    return entry


def _written(entry: Path, write: Callable[[Path], None]) -> None:
    """Write an entry under another name first, so that it is complete if it exists."""
    part = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".part", dir=entry.parent))
    try:
        write(part)
        (part / CONTENTS).write_text(json.dumps(_contents(part)), encoding="utf-8")
        part.replace(entry)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _contents(entry: Path) -> dict[str, list[int]]:
    """Size and modification time of each file of an entry."""
    found = {one.name: one.stat() for one in entry.iterdir() if one.name != CONTENTS}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}


def _is_intact(entry: Path) -> bool:
    """Whether an entry exists and its files are as they were written."""
    try:
        return files.read_json(entry / CONTENTS) == _contents(entry)
    except (OSError, ValueError):
        return False


def _remove(entry: Path) -> None:
    """Remove an entry; processes that have mapped its files can still use them."""
    if entry.is_dir():
        old = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".part", dir=entry.parent))
        entry.replace(old / "damaged")
        shutil.rmtree(old, ignore_errors=True)


def _remove_unused(place: Path) -> None:
    """Remove the entries that were not used for DAYS days, and what was left by processes that were killed."""
    os.utime(place)
    now = place.stat().st_mtime  # by the clock of the file system
    for one in place.iterdir():
        with contextlib.suppress(OSError):
            if one.is_dir() and now - one.stat().st_mtime > DAYS * 86400:
                shutil.rmtree(one, ignore_errors=True)


@contextlib.contextmanager
def _turn(file: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in this block; the lock is released when its process ends. On
    systems without locks, several processes may write the same entry."""
    with files.open_regular(file, "a", rights=0o600) as stream:
        files.lock(stream.fileno())
        yield
