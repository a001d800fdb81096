"""Digest: SHA-256 digests of files, stored beside them or at their end, to detect damage.

A folder lists the digests of its files in `SHA256SUMS`, in the format of `sha256sum --check SHA256SUMS`. A file that is
replaced on its own ends with its digest as a last line (`append_digest`), so that the two cannot get separated; readers
of zip files ignore that line.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from ribcage.runtime import files

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([^/\\]+)")
"""A digest and the name of a file in the same folder."""
PREFIX = b"\nsha256 "
APPENDED = len(PREFIX) + 64 + 1
"""Length in bytes of the line with the digest at the end of a file."""
MAX_BYTES = 1 << 20
"""Limit on the bytes read from a SHA256SUMS, enough for thousands of files."""


class DamagedError(ValueError):
    """A file does not hold the bytes that were written."""


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with files.regular(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_digest(file: Path, expected: str, advice: str) -> None:
    """Raise DamagedError unless the file has this digest; `advice` is a sentence on what to do."""
    if file_digest(file) != expected:
        raise DamagedError(f"{file} is damaged: its SHA-256 digest does not match. {advice}")


# ---- the files of a folder


def digest_lines(written: Mapping[str, Path]) -> str:
    """The text of SHA256SUMS, from name in the folder → file with the content, which may still be a temporary file."""
    return "".join(f"{file_digest(file)}  {name}\n" for name, file in written.items())


def recorded_digests(folder: Path) -> dict[str, str]:
    """Name → digest from the folder's SHA256SUMS; empty where there is none (older folders)."""
    try:
        with files.regular(folder / SUMS).open("rb") as stream:
            text = stream.read(MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise DamagedError(f"{folder / SUMS} is damaged: it is not text.") from None
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    if None in found or any(line and line[2] in (".", "..", SUMS) for line in found):
        raise DamagedError(f"{folder / SUMS} is damaged: each line must contain a digest and a file name.")
    return {line[2]: line[1] for line in found if line}


def check_folder(folder: Path, advice: str) -> None:
    """Raise DamagedError if a file listed in the folder's SHA256SUMS is missing or has another digest."""
    for name, expected in recorded_digests(folder).items():
        if not (folder / name).is_file():
            raise DamagedError(f"{folder / name} is missing, but {SUMS} lists it. {advice}")
        check_digest(folder / name, expected, advice)


# ---- a single file, with its digest at the end


def append_digest(file: Path) -> None:
    """Append the digest of the file's content to the file."""
    line = PREFIX + file_digest(file).encode() + b"\n"
    with files.open_regular(file, "ab") as stream:
        stream.write(line)


def check_appended_digest(file: Path, advice: str) -> None:
    """Raise DamagedError unless the file ends with the digest of the content before it."""
    size = files.regular(file).stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - APPENDED))
        line = stream.read(APPENDED)
        if not (line.startswith(PREFIX) and line.endswith(b"\n") and len(line) == APPENDED):
            raise DamagedError(
                f"{file} does not end with its SHA-256 digest: the file is truncated, or was written by another "
                f"version of Ribcage. {advice}"
            )
        stream.seek(0)
        hashed, left = hashlib.sha256(), size - APPENDED
        while left and (block := stream.read(min(left, 1 << 20))):
            hashed.update(block)
            left -= len(block)
    if hashed.hexdigest().encode() != line[len(PREFIX) : -1]:
        raise DamagedError(f"{file} is damaged: its SHA-256 digest does not match. {advice}")
