"""Objects: list, read, write and remove remote objects.

Every request has a time limit, and is repeated with growing pauses when the connection fails or is too slow. An object
that is written appears whole or not at all. Errors are one line (`errors.py`).
"""

import asyncio
import contextlib
import functools
import hashlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ribcage.runtime import files
from ribcage.runtime.digest import DamagedError
from ribcage.runtime.remote import addresses, errors

Kind = TypeVar("Kind")
VARIABLE = "RIBCAGE_REMOTE_TIMEOUT"
TIMEOUT = 60.0
"""Seconds that a request may take; longer transfers may take as many seconds for each BLOCK."""
BLOCK = 8 << 20
"""Bytes read by one request."""
CONNECTIONS = 4
"""Blocks of an object that are read at the same time."""
PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a failed request is repeated."""
HUB = "hf://"
"""Addresses in the Hugging Face Hub."""
REPEATED_ELSEWHERE = (HUB, "gs://", "gcs://")
"""Addresses for which the library of the file system repeats failed requests for content itself, up to five times."""
VERSION_KEYS = ("ETag", "etag", "generation", "blob_id", "oid", "md5Hash", "mtime", "LastModified", "created")
"""What file systems call the version of an object; the first that is there is used."""
TIME_KEYS = ("LastModified", "last_modified", "updated", "mtime", "created")
"""What file systems call the time of the last change of an object; the first that is there is used."""


@dataclass(frozen=True)
class RemoteFile:
    """An object that exists."""

    address: str
    size: int
    """Bytes."""
    version: str
    """Changes when the object is replaced; "" if unknown."""
    modified: float | None = field(default=None, compare=False)
    """Time of the last change in seconds since 1970, if the file system tells it."""


class ShortReplyError(ConnectionError):
    """Fewer bytes arrived than were requested."""


class UnreadableSourceError(OSError):
    """The connection to a source of many files has failed, as opposed to one of the files."""


_remembered: dict[str, RemoteFile] = {}


def remember(found: Iterable[RemoteFile]) -> None:
    """Remember objects from a listing instead of those before, so that `remembered` needs no request for each."""
    global _remembered
    _remembered = {one.address: one for one in found}


def remembered(place: Path | str) -> RemoteFile:
    """An object from the last listing that was remembered, or as it is now; FileNotFoundError if there is none."""
    return _remembered.get(addresses.address(place)) or describe(place)


def read_source_file(place: Path | str, limit: Callable[[int], None]) -> bytes:
    """The content of one of many files; UnreadableSourceError if the connection failed. `limit` is called with the size
    first."""
    try:
        found = remembered(place)
        limit(found.size)
        return read_file(found)
    except FileNotFoundError:
        raise FileNotFoundError(f"{addresses.address(place)} does not exist.") from None
    except OSError as error:
        raise UnreadableSourceError(str(error)) from error


def describe(place: Path | str) -> RemoteFile:
    """Size and version of an object; FileNotFoundError if there is none."""
    address = addresses.address(place)
    found = _request(address, "info")
    if found.get("type") != "file":
        raise FileNotFoundError(f"{address} is a folder, not a file.")
    return _remote_file(address, found)


def exists(place: Path | str) -> bool:
    """Whether there is an object at this address."""
    with contextlib.suppress(FileNotFoundError):
        describe(place)
        return True
    return False


def is_there(place: Path | str) -> bool:
    """Whether there is a local file or folder, or at an address an object or a folder with files."""
    if not addresses.is_remote(place):
        return Path(place).exists()
    with contextlib.suppress(FileNotFoundError):
        return exists(place) or bool(list_files(place))
    return False


def list_files(place: Path | str) -> dict[str, RemoteFile]:
    """All objects below a folder, by their paths relative to it, sorted; FileNotFoundError if there are none."""
    folder = addresses.address(place)
    prefix = _path(folder) + "/"
    found = _request(folder, "find", withdirs=False, detail=True)
    below = {
        name.lstrip("/").removeprefix(prefix.lstrip("/")): facts
        for name, facts in found.items()
        if facts.get("type") == "file" and name.lstrip("/").startswith(prefix.lstrip("/"))
    }
    if not below:
        raise FileNotFoundError(f"{folder} does not exist or contains no files.")
    return {name: _remote_file(f"{folder}/{name}", below[name]) for name in sorted(below) if addresses.is_plain(name)}


def read_bytes(place: Path | str, limit: int | None = None) -> bytes:
    """The content of an object; ValueError if it has more than `limit` bytes."""
    found = describe(place)
    if limit is not None and found.size > limit:
        raise ValueError(f"{found.address} is larger than {files.format_bytes(limit)}.")
    return read_file(found)


def read_file(found: RemoteFile) -> bytes:
    """The content of an object whose size is known; raises unless all bytes arrived."""
    return _read(found, 0, found.size)


def read_head(found: RemoteFile, count: int) -> bytes:
    """The first bytes of an object, or all if it has fewer."""
    return _read(found, 0, min(count, found.size))


def download(found: RemoteFile, part: Path) -> str:
    """Write an object into an existing file in blocks; returns its SHA-256. Raises unless all bytes of one version
    arrived; if the version is unknown, the caller has to check the SHA-256."""
    hashed, count = hashlib.sha256(), max(1, round(found.size / BLOCK))
    edges = [found.size * number // count for number in range(count + 1)]  # equal blocks: no request for a few bytes
    with files.open_regular(part, "r+b") as stream, ThreadPoolExecutor(CONNECTIONS) as pool:
        for first in range(0, count, CONNECTIONS):
            some = edges[first : first + CONNECTIONS + 1]
            for block in pool.map(functools.partial(_read, found), some[:-1], some[1:]):
                hashed.update(block)
                stream.write(block)
        stream.truncate(found.size)
    if found.version and describe(found.address) != found:
        raise ConnectionError(f"{found.address} was replaced while it was being read. Run the same command again.")
    return hashed.hexdigest()


def _read(found: RemoteFile, start: int, end: int) -> bytes:
    """As `read_range`, which is repeated if it fails for a while, unless the file system itself has done so."""
    request = functools.partial(read_range, found, start, end)
    return request() if found.address.startswith(REPEATED_ELSEWHERE) else _repeated(found.address, request)


def read_range(found: RemoteFile, start: int, end: int) -> bytes:
    """The bytes of an object from `start` to before `end`, without repeating the request."""
    if start == end:
        return b""
    moved = max(0, end - start - BLOCK)
    block: bytes = _once(found.address, "cat_file", start=start, end=end, bytes_moved=moved, **_read_options(found))
    if len(block) != end - start:
        raise ShortReplyError(
            f"{found.address} ended after {start + len(block):,} of {found.size:,} bytes. Run the same command again."
        )
    return block


def _read_options(found: RemoteFile) -> dict[str, Any]:
    """Options by which a file system reads no more than what was asked for, and does not ask for the size again."""
    return {"size": found.size, "cache_type": "none"} if found.address.startswith(HUB) else {}


def upload(file: Path, place: Path | str) -> RemoteFile:
    """Write a local file to an address. The object appears whole or not at all; one that was there is replaced."""
    address, size = addresses.address(place), file.stat().st_size
    _request(address, "put_file", before=(str(file),), bytes_moved=size)
    return _require_size(address, size)


def write_bytes(data: bytes, place: Path | str) -> RemoteFile:
    """Write bytes to an address, as `upload` does."""
    address = addresses.address(place)
    _request(address, "pipe_file", after=(data,), bytes_moved=len(data))
    return _require_size(address, len(data))


def upload_folder(folder: Path, place: Path | str, names: list[str], last: str) -> None:
    """Write files of a local folder to an address. The file `last`, without which the folder cannot be opened, is
    removed first and written last, so that files of two versions are never opened together."""
    remove(addresses.child(place, last))
    for name in [*(name for name in names if name != last), last]:
        upload(folder / name, addresses.child(place, name))


def remove(place: Path | str) -> None:
    """Remove an object, if there is one."""
    address = addresses.address(place)
    with contextlib.suppress(FileNotFoundError):
        describe(address)
        _request(address, "rm_file")


def timeout() -> float:
    """Seconds that a request may take."""
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text or TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ValueError(f"{VARIABLE} must be a number of seconds above 0, not {text!r}.")
    return seconds


def forget_connections() -> None:
    """Open new connections for the next requests, with the environment of that time."""
    _connected.cache_clear()


# ---- requests


def _request(address: str, method: str, **options: Any) -> Any:
    """The result of a method of the file system, which is repeated if it fails for a while."""
    return _repeated(address, functools.partial(_once, address, method, **options))


def _repeated(address: str, request: Callable[[], Kind]) -> Kind:
    for pause in (*PAUSES, None):
        try:
            return request()
        except OSError as error:
            if pause is None or not errors.is_passing(error):
                raise
            time.sleep(pause)
    raise AssertionError(address)


def _once(
    address: str,
    method: str,
    *,
    before: tuple[object, ...] = (),
    after: tuple[object, ...] = (),
    bytes_moved: int = 0,
    **options: Any,
) -> Any:
    """The result of a method of the file system; every error is explained.

    before, after: the method's arguments before and after the path.
    """
    system, path = _filesystem(address), _path(address)
    try:
        return _within(timeout() * (1 + bytes_moved / BLOCK), system, method, *before, path, *after, **options)
    except (TypeError, AttributeError, NameError):  # mistakes in a program
        raise
    except Exception as error:
        if errors.is_unexplained(error) and method == "info":  # a reply to HEAD has no content: ask again by GET
            with contextlib.suppress(FileNotFoundError):
                _once(address, "cat_file", start=0, end=1)
        raise errors.explained(error, address) from error


def _within(seconds: float, system: Any, method: str, *words: Any, **options: Any) -> Any:
    """Call a method; TimeoutError after so many seconds, if the file system can be interrupted."""
    own = getattr(system, f"_{method}", None) if system.async_impl else None
    if own is None:
        if method in ("info", "find") and isinstance(getattr(system, "dircache", None), dict):
            system.dircache.clear()  # some file systems keep listings whatever they are told
        return getattr(system, method)(*words, **options)
    waiting = asyncio.run_coroutine_threadsafe(asyncio.wait_for(own(*words, **options), seconds), system.loop)
    try:
        return waiting.result()
    except BaseException:
        waiting.cancel()
        raise


def _require_size(address: str, size: int) -> RemoteFile:
    there = describe(address)
    if there.size != size:
        raise DamagedError(
            f"{address} has {there.size:,} bytes, but {size:,} bytes were written. Run the same command again."
        )
    return there


def _remote_file(address: str, facts: dict[str, Any]) -> RemoteFile:
    key = next((key for key in VERSION_KEYS if facts.get(key)), "")
    marks = _seconds(facts[key]) if key in TIME_KEYS else facts.get(key)  # times may have another type in a listing
    modified = next((_seconds(facts[key]) for key in TIME_KEYS if facts.get(key)), None)
    return RemoteFile(address, int(facts["size"]), str(marks or "").strip('"'), modified)


def _seconds(found: object) -> float | None:
    """A time in seconds since 1970; None if it is no time."""
    if isinstance(found, str):
        with contextlib.suppress(ValueError):
            found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else None


def _path(address: str) -> str:
    """The path of an address in its file system."""
    path: str = _filesystem(address)._strip_protocol(address)
    return path


def _filesystem(address: str) -> Any:
    scheme = addresses.scheme_of(address)
    with _with_package(scheme):
        import fsspec

        own = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(address)  # such as the host of sftp://
    system = _connected(scheme, tuple(sorted(own.items())), os.getpid())
    if system.async_impl:
        return system
    return _connected(scheme, tuple(sorted(own.items())), os.getpid(), _thread_number())


_threads = threading.local()
_numbers = itertools.count(1)


def _thread_number() -> int:
    """A number of this thread, which no other thread has or had."""
    if not hasattr(_threads, "number"):
        _threads.number = next(_numbers)
    return int(_threads.number)


@functools.lru_cache(maxsize=64)
def _connected(scheme: str, own: tuple[tuple[str, Any], ...], process: int, thread: int = 0) -> Any:
    """The file system of a scheme, shared by all threads of a process (thread 0) or for one thread, since only file
    systems whose methods are asynchronous can be used by several threads at the same time.

    own: options from the address.
    """
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True, **dict(own)}
    if scheme == "s3":
        options["config_kwargs"] = dict(_s3_defaults())
    with _with_package(scheme):
        import fsspec

        system = fsspec.filesystem(scheme, **options)
    if scheme == "hf":
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it prints a warning for every repeated request
    if hasattr(system, "retries"):
        system.retries = 1  # requests are repeated here
    return system


@contextlib.contextmanager
def _with_package(scheme: str) -> Iterator[None]:
    """Raise ImportError with the line that installs the package of a scheme, if it is missing."""
    try:
        yield
    except ImportError as error:
        package = addresses.SCHEMES.get(scheme) or getattr(error.__cause__, "name", None)
        advice = f"Install it with: pip install '{package}'" if package else f"See {addresses.PAGE}."
        raise ImportError(f"Addresses that begin with {scheme}:// need another package. {advice}") from None


def _s3_defaults() -> Iterator[tuple[str, Any]]:
    """Time limits and retries of botocore, unless fsspec's configuration sets them."""
    from fsspec.config import conf

    yield from ({"retries": {"total_max_attempts": 1}, "connect_timeout": timeout(), "read_timeout": timeout(),
                 "max_pool_connections": 64} | conf.get("s3", {}).get("config_kwargs", {})).items()  # fmt: skip
