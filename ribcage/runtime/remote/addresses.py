"""Addresses: which places are remote, and how their addresses are written.

Options are of type Path, which merges the two slashes of `s3://bucket/key` into one. Such a path is therefore still
recognised as remote, and `address` writes it with both slashes again.
"""

import posixpath
import re
from pathlib import Path

SCHEMES = {
    "s3": "ribcage[remote]",
    "gs": "gcsfs",
    "hf": "huggingface_hub",
    "az": "adlfs",
    "abfs": "adlfs",
    "memory": "fsspec",
}
"""Scheme of an address → the package that provides its file system."""
FORM = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/]|$)(.*)", re.DOTALL)
LOCAL_FORM = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.DOTALL)
LONGEST = 1024
"""Limit on the bytes of an address, that of an S3 key."""


def is_remote(place: Path | str) -> bool:
    """Whether this is a remote address, of one of the SCHEMES."""
    found = FORM.fullmatch(str(place))
    return bool(found and found[1] in SCHEMES)


def parse_place(word: str) -> Path:
    """The path of a place as typed: a local path, `file:///…`, or a remote address, which is checked."""
    if local := LOCAL_FORM.fullmatch(word):
        return Path(local[1])
    found = FORM.fullmatch(word)
    if found and "://" in word and found[1] not in SCHEMES:
        raise ValueError(
            f"Addresses that begin with {found[1]}:// are not supported. Supported: file://, "
            f"{', '.join(f'{name}://' for name in SCHEMES if name != 'memory')}."
        )
    return Path(address(word)) if found and found[1] in SCHEMES else Path(word)


def address(place: Path | str) -> str:
    """The address of a remote place, without a slash at the end; ValueError if it is invalid or has credentials."""
    found = FORM.fullmatch(str(place))
    if not found or found[1] not in SCHEMES:
        raise ValueError(f"{place} is not a remote address.")
    scheme, rest = found[1], found[2].rstrip("/")
    if "@" in rest.partition("/")[0]:  # hf://datasets/user/name@revision is allowed
        raise ValueError(
            f"An address that begins with {scheme}:// contains a user name or password before @. Remove it, and pass "
            f"credentials through environment variables or configuration files (docs/remote.md)."
        )
    if not is_plain(rest):
        raise ValueError(
            f"{scheme}://{rest!r} is not a valid address: write it as {scheme}://BUCKET/FOLDER, without empty parts, "
            f"'.', '..' or control characters."
        )
    if len(rest.encode("utf-8", "surrogateescape")) > LONGEST:
        raise ValueError(f"An address that begins with {scheme}:// has more than {LONGEST} bytes.")
    return f"{scheme}://{rest}"


def is_plain(path: str) -> bool:
    """Whether a path has no empty parts, '.', '..' or control characters, so that it stays within its folder."""
    return not any(step in ("", ".", "..") for step in path.split("/")) and all(ord(letter) >= 32 for letter in path)


def scheme_of(place: Path | str) -> str:
    """The scheme of an address, such as s3."""
    return address(place).partition(":")[0]


def child(place: Path | str, name: str) -> str:
    """The address of an object below a folder."""
    return address(f"{address(place)}/{name}")


def split_address(place: Path | str) -> tuple[str, str]:
    """The address of the folder, and the object's name in it."""
    whole = address(place)
    folder, name = posixpath.split(whole)
    if folder.endswith(":/"):
        raise ValueError(f"{whole} is the address of a whole bucket, not of a file in it.")
    return folder, name


def address_text(place: Path | str) -> str:
    """A place as text for people: an address with both slashes, any other path as it is."""
    return address(place) if is_remote(place) else str(place)
