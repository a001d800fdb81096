"""Addresses: which places are remote, and how their addresses are written.

Options are of type Path, which merges the two slashes of `s3://bucket/key` into one. Such a path is therefore still
recognised as remote, and `address` writes it with both slashes again. `hf:OWNER/NAME` is short for `hf://OWNER/NAME`.
"""

import functools
import posixpath
import re
from pathlib import Path

SCHEMES = {
    "s3": "ribcage[remote]",
    "gs": "ribcage[gs]",
    "hf": "huggingface_hub",
    "az": "adlfs",
    "abfs": "adlfs",
    "memory": "fsspec",
}
"""Scheme of an address → the package that provides its file system."""
PAGE = "docs/remote.md"
REFUSED = frozenset(
    ("http", "https", "local", "data", "dir", "reference", "generic", "root", "zip", "tar", "libarchive", "git",
     "github", "gist", "jupyter", "jlab", "pyscript", "dask", "dbfs", "wandb", "async_wrapper", "asyncwrapper",
     "asynclocal", "cached", "filecache", "simplecache", "blockcache")
)  # fmt: skip
"""Schemes that fsspec knows, but that name no folder of files on a server, or none that can be listed and written."""
FORM = re.compile(r"([a-z][a-z0-9+.-]+):(?:/{1,2}|(?<=^hf:))(?=[^/]|$)(.*)", re.DOTALL)
TYPED = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+)://")
LOCAL_FORM = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.DOTALL | re.IGNORECASE)
SECRETS = re.compile(r"[?&;][^=/]*(key|token|secret|sig|password|credential)[^=/]*=", re.IGNORECASE)
LONGEST = 1024
"""Limit on the bytes of an address, that of an S3 key."""


def is_remote(place: Path | str) -> bool:
    """Whether this is a remote address: its scheme is one of SCHEMES or of the others that fsspec knows."""
    found = FORM.fullmatch(str(place))
    return bool(found and is_scheme(found[1]))


def is_scheme(name: str) -> bool:
    """Whether addresses with this scheme can be used, if their package is installed."""
    return name in SCHEMES or name in _other_schemes()


def _other_schemes() -> frozenset[str]:
    """The schemes of fsspec beside SCHEMES, with those that other packages have registered."""
    try:
        from fsspec.registry import available_protocols, registry
    except ImportError:
        return frozenset()
    return _usable((*available_protocols(), *registry))


@functools.lru_cache(maxsize=4)
def _usable(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names) - REFUSED - {"file"}


def is_typed_address(word: str) -> bool:
    """Whether a word as typed begins as an address, of whatever scheme."""
    return bool(LOCAL_FORM.fullmatch(word) or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", word)) or is_remote(word)


def parse_place(word: str) -> Path:
    """The path of a place as typed: a local path, `file:///…`, or a remote address, which is checked."""
    if local := LOCAL_FORM.fullmatch(word):
        return Path(local[1])
    typed = TYPED.match(word)
    if typed and not is_scheme(typed[1].lower()):
        raise ValueError(
            f"Addresses that begin with {typed[1]}:// are not supported. Supported: file://, "
            f"{', '.join(f'{name}://' for name in SCHEMES if name != 'memory')} and others ({PAGE})."
        )
    if typed:
        return Path(address(typed[1].lower() + word[typed.end(1) :]))
    return Path(address(word)) if is_remote(word) else Path(word)


def address(place: Path | str) -> str:
    """The address of a remote place, without a slash at the end; ValueError if it is invalid or has credentials."""
    found = FORM.fullmatch(str(place))
    if not found or not is_scheme(found[1]):
        raise ValueError(f"{place} is not a remote address.")
    scheme, rest = found[1], found[2].rstrip("/")
    if "@" in rest.partition("/")[0] or SECRETS.search(rest):  # hf://datasets/user/name@revision is allowed
        raise ValueError(
            f"An address that begins with {scheme}:// contains a user name, password or key (before @ or after ?). "
            f"Remove it, and pass credentials through environment variables or configuration files ({PAGE})."
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


# ---- addresses in texts

_copies: dict[str, str] = {}
"""Local folder → the address that it is a copy of."""


def stands_for(folder: Path, place: Path | str) -> None:
    """Note that a local folder is a copy of a remote one, whose address is written in texts instead."""
    _copies[str(folder)] = address(place)


def stands_alone(folder: Path) -> None:
    """The opposite of `stands_for`."""
    _copies.pop(str(folder), None)


def address_text(place: Path | str) -> str:
    """A place as text for people: an address with both slashes, also of a local copy; any other path as it is."""
    if is_remote(place):
        return address(place)
    for above in (Path(place), *Path(place).parents) if _copies else ():
        if known := _copies.get(str(above)):
            return posixpath.join(known, *Path(place).relative_to(above).parts)
    return str(place)


def with_addresses(text: str) -> str:
    """A text for people in which paths of local copies, and addresses with one slash, are written as addresses."""
    for folder in sorted(_copies, key=len, reverse=True):
        known = _copies[folder].replace("\\", r"\\")
        text = re.sub(rf"{re.escape(folder)}(?=$|[/\s,.:;'\")\]])", known, text)
    return re.sub(r"(?<![\w:/.-])([a-z][a-z0-9+.-]+):/(?=[^/\s])", _two_slashes, text)


def _two_slashes(found: "re.Match[str]") -> str:
    return f"{found[1]}://" if is_scheme(found[1]) else found[0]
