"""Cache: local copies of whole remote objects, in a folder of limited size.

CACHE/copies/KEY/FOLDER/NAME   the copy; KEY is a hash of the folder's address, so that files of a folder lie together
CACHE/facts/KEY/NAME.json      address, version and SHA-256 of the object; its modification time is the copy's last use
CACHE/parts/…                  objects that are being downloaded
CACHE/trees/…                  copies of folders with subfolders, which are removed when their process ends

CACHE is RIBCAGE_CACHE (default: `ribcage/remote` in the user's cache folder); its size is limited to
RIBCAGE_CACHE_SIZE. Copies that were not used for the longest time are removed to make room, but never one in use: who
uses a copy holds a shared lock on it, who removes it needs an exclusive one. Locks end with their process. On file
systems without locks, a copy may be removed while it is in use; memory maps of it stay valid there, too.
"""

import atexit
import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ribcage.runtime import digest, files, typed_json
from ribcage.runtime.cache_folder import user_cache_folder
from ribcage.runtime.remote import addresses, objects
from ribcage.runtime.remote.objects import RemoteFile, ShortReplyError

FOLDER_VARIABLE, SIZE_VARIABLE = "RIBCAGE_CACHE", "RIBCAGE_CACHE_SIZE"
SIZE = "50GB"
"""Default limit on the size of the cache."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", re.IGNORECASE)
WAIT = 0.02
"""Seconds between two looks at whether another process has finished a download."""
LONGEST_NAME = 200
"""Limit on the bytes of a file name."""
ADVICE = f"Free some space, or set {FOLDER_VARIABLE} to a folder on a larger disk."


@dataclass(frozen=True)
class CopyFacts:
    """What is known about a copy."""

    address: str
    version: str
    sha256: str
    size: int
    mtime_ns: int
    """Modification time of the copy; a file with another one is not the copy that these facts describe."""


class CachedFile:
    """A copy in use: `with open_copy(address) as copy: … copy.path …`. It is not removed before it is closed."""

    def __init__(self, path: Path, handle: int, facts: CopyFacts) -> None:
        self.path, self.facts = path, facts
        self._handle: int | None = handle

    def close(self) -> None:
        """Allow that the copy is removed. Memory maps of it must have been dropped, or the disk has less space than
        the cache assumes."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> "CachedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class CacheFullError(OSError):
    """An object does not fit into the cache, because other copies in it are in use."""


class _WrongHashError(Exception):
    """An object does not have the SHA-256 that it should have."""


_kept: dict[Path, CachedFile] = {}
_kept_lock = threading.Lock()
TREES = "trees"
"""Folder of the cache for copies of folders with subfolders."""
_trees = contextlib.ExitStack()
atexit.register(_trees.close)


def local_copy(place: Path | str, *, size: int | None = None, sha256: str | None = None) -> Path:
    """A local copy of an object, which is not removed from the cache while this process runs.

    size, sha256: what the object must have, if known; DamagedError otherwise. With sha256, a copy needs no request.
    """
    copy = open_copy(place, size=size, sha256=sha256)
    with _kept_lock:
        _kept[copy.path] = copy
    return copy.path


def local_place(place: Path | str) -> Path:
    """A local file or folder itself; of a remote one, a local copy (of a folder, with the files directly in it)."""
    if not addresses.is_remote(place):
        return Path(place)
    return local_copy(place) if objects.exists(place) else local_folder(place)


def local_file(folder: Path, name: str) -> Path:
    """A file of a local or remote folder; of a remote one, a local copy."""
    return local_copy(addresses.child(folder, name)) if addresses.is_remote(folder) else folder / name


def local_folder(place: Path | str) -> Path:
    """Local copies of all files that lie directly in a remote folder. Files that are not there any more are removed."""
    address = addresses.address(place)
    found = [one for name, one in objects.list_files(address).items() if "/" not in name]
    if not found:
        raise FileNotFoundError(f"{address} contains no files.")
    copies = [local_copy(one.address) for one in found]
    for left in set(copies[0].parent.iterdir()) - set(copies):
        left.unlink(missing_ok=True)
    return copies[0].parent


def local_tree(place: Path | str, is_wanted: Callable[[str], bool]) -> Path:
    """A local folder with copies of those files below a remote folder whose relative paths are wanted. It is removed
    when the process ends."""
    address = addresses.address(place)
    found = {name: one for name, one in objects.list_files(address).items() if is_wanted(name)}
    above = cache_folder() / TREES
    above.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in above.iterdir():
        if files.is_written(left) is False:  # its process was killed
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(dir=above))
    _trees.enter_context(_removed_at_end(made))
    folder = made / address.rpartition("/")[2]
    folder.mkdir()
    addresses.stands_for(folder, address)
    for name, one in found.items():
        file = folder.joinpath(*name.split("/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        with open_copy(one.address) as copy, files.explained(file, ADVICE):
            shutil.copyfile(copy.path, file)
        if one.modified is not None:
            os.utime(file, (one.modified, one.modified))
    return folder


@contextlib.contextmanager
def _removed_at_end(folder: Path) -> Iterator[None]:
    """Remove a folder at the end of the block; until then, it is locked."""
    try:
        with files.only_writer(folder):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def release(path: Path) -> None:
    """Allow that a copy which `local_copy` returned is removed."""
    with _kept_lock:
        copy = _kept.pop(path, None)
    if copy is not None:
        copy.close()


def open_copy(place: Path | str, *, size: int | None = None, sha256: str | None = None) -> CachedFile:
    """A local copy of an object, which is not removed from the cache until it is closed; see `local_copy`."""
    entry = _Entry(addresses.address(place))
    cache_limit()  # an invalid limit is an error even if nothing has to be downloaded
    if sha256 and (copy := entry.opened(lambda facts: facts.sha256 == sha256)):
        return copy
    if sha256 and size is not None:  # one request is enough; what it returns is checked
        with contextlib.suppress(FileNotFoundError, ShortReplyError, _WrongHashError):
            return entry.filled(RemoteFile(entry.address, size, ""), sha256)
    found = objects.describe(place)
    if size is not None and found.size != size:
        raise digest.DamagedError(
            f"{found.address} has {found.size:,} bytes instead of {size:,}: it was written only in part, or was "
            f"replaced. Upload it again."
        )
    for _ in range(2):  # again if a transfer was damaged
        with contextlib.suppress(_WrongHashError):
            return entry.opened(lambda facts: _is_of(facts, found, sha256)) or entry.filled(found, sha256)
    raise digest.DamagedError(f"{found.address} is damaged: its SHA-256 digest does not match. Upload it again.")


def path_of_copy(place: Path | str) -> Path:
    """Where the copy of an object is, if there is one."""
    return _Entry(addresses.address(place)).copy


def cache_folder() -> Path:
    """The folder of the cache."""
    return user_cache_folder(FOLDER_VARIABLE, "remote")


def cache_limit() -> int:
    """Limit on the size of the cache in bytes."""
    text = os.environ.get(SIZE_VARIABLE, "").strip() or SIZE
    found = SIZE_FORM.fullmatch(text)
    unit = found[2].upper() if found else "?"
    unit = unit if unit in UNITS else f"{unit}B"
    if not found or unit not in UNITS:
        raise ValueError(f"{SIZE_VARIABLE} must be a size such as {SIZE} or 500MB, not {text!r}.")
    return int(float(found[1]) * UNITS[unit])


def used_bytes() -> int:
    """Bytes of all files in the cache, complete or being downloaded."""
    return sum(size for _, size, _ in _stored(cache_folder()))


# ---- one object


class _Entry:
    """Where the copy of an object is."""

    def __init__(self, address: str) -> None:
        folder, name = addresses.split_address(address)
        root, key = cache_folder(), hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        above = folder.rpartition("/")[2]
        for one in (name, above):
            if len(one.encode("utf-8", "surrogateescape")) > LONGEST_NAME or "\0" in one:
                raise ValueError(f"{address} has a name that is longer than {LONGEST_NAME} bytes.")
        self.root, self.address = root, address
        self.copy = root / "copies" / key / above / name
        self.facts = _facts_file(root, self.copy)
        addresses.stands_for(self.copy.parent, folder)
        self.part = root / "parts" / f"{key}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"

    def opened(self, wanted: Callable[[CopyFacts], bool]) -> CachedFile | None:
        """The copy, if there is one that is intact and wanted."""
        for _ in range(10):
            try:
                handle = os.open(self.copy, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            except FileNotFoundError:
                return None
            files.lock(handle, shared=True)
            if files.has_name(handle, self.copy):  # it may have been removed or replaced meanwhile
                facts = _read_facts(self.facts)
                if facts and facts.address == self.address and _matches(handle, facts) and wanted(facts):
                    with contextlib.suppress(OSError):  # a cache that only others may write
                        os.utime(self.facts)
                    return CachedFile(self.copy, handle, facts)
                os.close(handle)
                return None
            os.close(handle)
        return None

    def filled(self, found: RemoteFile, sha256: str | None) -> CachedFile:
        """Download the object, if nobody else does so at this time; _WrongHashError if it has another SHA-256."""
        with files.explained(self.root, ADVICE):
            self.part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                handle = os.open(self.part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
                try:
                    # Whoever downloads the same object keeps the lock when the part has become the copy.
                    while not files.lock(handle, wait=False) and files.has_name(handle, self.part):
                        time.sleep(WAIT)
                    if not files.has_name(handle, self.part):
                        os.close(handle)
                        continue
                    if copy := self.opened(lambda facts: _is_of(facts, found, sha256)):
                        self.part.unlink()
                        os.close(handle)
                        return copy
                    if copy := self._downloaded(found, sha256, handle):
                        return copy
                except BaseException:
                    with contextlib.suppress(OSError):
                        self.part.unlink()
                    os.close(handle)
                    raise

    def _downloaded(self, found: RemoteFile, wanted: str | None, handle: int) -> CachedFile | None:
        """Download into the part, which becomes the copy; None if it was removed at once."""
        os.ftruncate(handle, 0)
        _make_room(self.root, found.size, found.address, lambda: os.ftruncate(handle, found.size))
        sha256 = objects.download(found, self.part)
        if wanted and sha256 != wanted:
            raise _WrongHashError
        files.sync(self.part)
        facts = CopyFacts(found.address, found.version, sha256, found.size, os.fstat(handle).st_mtime_ns)
        with _locked_cache(self.root):  # whoever makes room removes copies, their facts and empty folders
            self.copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_text(self.facts, json.dumps(dataclasses.asdict(facts), indent=1) + "\n")
            self.part.replace(self.copy)
        files.lock(handle, shared=True)
        if files.has_name(handle, self.copy):
            return CachedFile(self.copy, handle, facts)
        os.close(handle)
        return None


def _is_of(facts: CopyFacts, found: RemoteFile, sha256: str | None) -> bool:
    """Whether a copy has this SHA-256 or, if it is unknown, is of this version, which must be known."""
    return facts.sha256 == sha256 if sha256 else (facts.version, facts.size) == (found.version or None, found.size)


def _matches(handle: int, facts: CopyFacts) -> bool:
    status = os.fstat(handle)
    return (status.st_size, status.st_mtime_ns) == (facts.size, facts.mtime_ns)


def _read_facts(file: Path) -> CopyFacts | None:
    """The facts of a copy; None if there are none or they are invalid."""
    try:
        return typed_json.from_json(CopyFacts, files.read_json(file))
    except (OSError, ValueError):
        return None


# ---- the whole cache


def _make_room(root: Path, needed: int, address: str, reserve: Callable[[], None]) -> None:
    """Remove copies until `needed` more bytes fit, then reserve them; OSError if they do not fit."""
    limit = cache_limit()
    if needed > limit:
        raise OSError(
            f"{address} has a size of {files.format_bytes(needed)}, but the cache is limited to "
            f"{files.format_bytes(limit)}. Set {SIZE_VARIABLE} to a larger size."
        )
    with _locked_cache(root):
        stored = sorted(_stored(root), key=lambda one: one[2])
        excess = sum(size for _, size, _ in stored) + needed - limit
        for file, size, _ in stored:
            if excess <= 0:
                break
            if _removed(root, file):
                excess -= size
        if excess > 0:
            raise CacheFullError(
                f"{address} has a size of {files.format_bytes(needed)} and does not fit into the cache, because too "
                f"many of the other files in it are in use. Set {SIZE_VARIABLE} (currently "
                f"{files.format_bytes(limit)}) to a larger size."
            )
        if shutil.disk_usage(root).free < needed:
            raise OSError(errno.ENOSPC, "the disk is full")
        reserve()


@contextlib.contextmanager
def _locked_cache(root: Path) -> Iterator[None]:
    handle = os.open(root / files.LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        files.lock(handle)
        yield
    finally:
        os.close(handle)


def _stored(root: Path) -> Iterator[tuple[Path, int, int]]:
    """All copies and parts of a cache, their sizes in bytes, and when they were used last."""
    for file in [*(root / "copies").glob("*/*/*"), *(root / "parts").glob("*")]:
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            used = 0  # the remains of a killed download go first; those of a running one are locked
            with contextlib.suppress(FileNotFoundError):
                used = _facts_file(root, file).stat().st_mtime_ns
            yield file, status.st_size, used


def _facts_file(root: Path, copy: Path) -> Path:
    return root / "facts" / copy.parts[-3] / f"{copy.name}.json"


def _removed(root: Path, file: Path) -> bool:
    """Remove a copy or the part of a download that was killed, unless it is in use."""
    try:
        handle = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        if not files.lock(handle, wait=False) or not files.has_name(handle, file):
            return False
        file.unlink()
    finally:
        os.close(handle)
    if file.parent != root / "parts":
        with contextlib.suppress(OSError):
            _facts_file(root, file).unlink(missing_ok=True)
            file.parent.rmdir()
            file.parent.parent.rmdir()
    return True
