"""Files: atomic writes, one writer at a time, limits for files from outside, and errors that say what to do."""

import contextlib
import errno
import json
import os
import shutil
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK = ".lock"
LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # a file system without locks, as on some clusters
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_JSON_BYTES = 1 << 27
"""Limit on the size of a JSON file."""
MAX_INTEGER_DIGITS = 300
"""Limit on the digits of an integer in JSON: larger ones do not fit into a float."""


def open_regular(file: Path, mode: str, *, rights: int = 0o666, **how: Any) -> Any:
    """`file.open` that refuses symbolic links: one in a folder from elsewhere may point to any file."""

    def opener(path: str, flags: int) -> int:
        with contextlib.suppress(FileNotFoundError):
            kind = os.lstat(path).st_mode
            if not stat.S_ISREG(kind):  # opening a pipe would block until it has a reader
                what = "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
                raise OSError(f"{file} is {what} and is therefore not used. Remove it, or choose another folder.")
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), rights)

    return open(file, mode, opener=opener, **how)


def regular(file: Path) -> Path:
    """The file itself unless it is a pipe or a device, which might be read without end, or be replaced."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(f"{file} is not a regular file and is therefore not used. Remove it, or choose another file.")
    return file


def read_json(file: Path, **how: Any) -> Any:
    """Content of a JSON file; ValueError if it is invalid, nested too deeply, or has an integer too large for a
    float."""
    if regular(file).stat().st_size > MAX_JSON_BYTES:
        raise ValueError("the file is too large")
    try:
        return json.loads(file.read_text(encoding="utf-8"), **({"parse_int": _integer} | how))
    except RecursionError:
        raise ValueError("the file is nested too deeply") from None


def _integer(text: str) -> int:
    """Parse an integer of JSON."""
    if len(text) > MAX_INTEGER_DIGITS:
        raise ValueError(f"the file contains a number with {len(text):,} digits")
    return int(text)


def refuse_packed(file: Path) -> None:
    """Raise if a zip file is compressed. Ribcage writes its files uncompressed; this refuses decompression bombs."""
    with zipfile.ZipFile(regular(file)) as archive:
        if sum(one.file_size for one in archive.infolist()) > file.stat().st_size:
            raise ValueError("the file is compressed, but Ribcage writes such files uncompressed")


@contextlib.contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A new, empty temporary file, which replaces `file` when the block ends without error and is removed otherwise.

    A leftover temporary file, or a link with its name, is removed and never written to. A device, a pipe or a folder
    with the name of `file` is refused, as it would be replaced.
    """
    with contextlib.suppress(FileNotFoundError):
        regular(file)
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    open_regular(part, "x").close()
    try:
        yield part
        sync(part)
        part.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def refuse_links(root: Path, folder: Path) -> None:
    """Raise if a component of `folder` below `root` is a symbolic link: files written there would land elsewhere."""
    for below in (folder, *folder.parents):
        if below == root:
            return
        if below.is_symlink():
            raise OSError(
                f"{below} is a symbolic link, and Ribcage does not write through symbolic links. Remove it, or pass "
                f"--out."
            )


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically and create its folder. File names that are not valid UTF-8 are written as escapes,
    which JSON reads back."""
    with explained(file, "Free some."):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")


def sync(file: Path) -> None:
    """Wait until the file's content is on disk."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Refuse a second writer in the same folder; the lock is released when its process ends, however it ends."""
    if os.name == "nt":  # an open file cannot be removed there
        yield
        return
    file = folder / LOCK
    with contextlib.ExitStack() as held:
        for patience in (True, True, False):  # `is_written` holds the lock for a moment
            handle = held.enter_context(open_regular(file, "a"))
            locked = try_lock(handle.fileno())
            if locked is None or (locked and has_name(handle.fileno(), file)):
                break
            if not patience:
                raise OSError(
                    f"Another process is writing to {folder}. Wait until it has finished, or choose another folder."
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def lock(handle: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file, or return False if others hold it; True on systems without locks."""
    return try_lock(handle, shared=shared, wait=wait) is not False


def try_lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Whether an open file could be locked; None on systems without locks."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in LOCKLESS:
            return None
        if error.errno in (errno.EAGAIN, errno.EACCES) and not wait:
            return False
        raise
    return True


def has_name(handle: int, file: Path) -> bool:
    """Whether an open lock file still exists under its name; if its last owner removed it meanwhile, its lock is
    void."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), file.stat())
    return False


def is_written(folder: Path) -> bool | None:
    """Whether a process is writing to the folder now; None where the system cannot tell."""
    if os.name == "nt":
        return None
    try:
        with open_regular(folder / LOCK, "r") as handle:
            locked = try_lock(handle.fileno(), shared=True)
    except OSError:  # no process has written there since the last one ended
        return False
    return None if locked is None else not locked


@contextlib.contextmanager
def explained(folder: Path, advice: str) -> Iterator[None]:
    """Turn the errors of a full disk and of a read-only target into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OSError(f"No space is left on the disk to write {folder}. {advice}") from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise OSError(f"{folder} cannot be written ({error.strerror}). Choose another folder.") from None
        raise


@contextlib.contextmanager
def disk_errors(part: Path) -> Iterator[None]:
    """Raise the OSError of a failed write that a writer in C++, such as torch's, hides behind a RuntimeError."""
    try:
        yield
    except RuntimeError:
        with part.open("ab") as stream:  # the disk itself says why
            stream.write(bytes(1 << 20))
        raise


def require_space(folder: Path, needed: int, advice: str = "Free some space, or use a smaller --size.") -> None:
    """Raise if the disk of `folder` has fewer free bytes than needed."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"Writing {folder} requires {format_bytes(needed)}, but only {format_bytes(free)} are free on the disk. "
            f"{advice}"
        )


def format_bytes(count: int) -> str:
    """A number of bytes in MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count > 1e8 else f"{count / 1e6:,.1f} MB"
