"""Digest: the SHA-256 of files, kept beside them or at the end of one, so that flipped bits are noticed in time.

A folder keeps those of its files in `SHA256SUMS`, as `sha256sum --check SHA256SUMS` reads it. A file that is replaced
alone carries its own as its last line (`seal`), so that the two cannot part; readers of zip files look past that line.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from ribcage.runtime import files

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([^/\\]+)")
"""A digest and the name of a file in the same folder."""
MARK = b"\nsha256 "
SEAL = len(MARK) + 64 + 1
"""Bytes that a seal takes at the end of a file."""
MOST = 1 << 20
"""Bytes of a SHA256SUMS that are read; thousands of files need less."""


class DamagedError(ValueError):
    """A file does not hold the bytes that were written."""


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with files.regular(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_digest(file: Path, expected: str, advice: str) -> None:
    """Raise DamagedError unless the file has this digest; `advice` is the sentence that says what to do."""
    if file_digest(file) != expected:
        raise DamagedError(f"{file} is damaged: its SHA-256 does not match. {advice}")


# ---- of the files of a folder


def digest_lines(written: Mapping[str, Path]) -> str:
    """The text of SHA256SUMS: name in the folder → where the bytes lie now, which may be a temporary file."""
    return "".join(f"{file_digest(file)}  {name}\n" for name, file in written.items())


def recorded_digests(folder: Path) -> dict[str, str]:
    """Name → digest, as the folder's SHA256SUMS says; empty where there is none (older folders)."""
    try:
        with files.regular(folder / SUMS).open("rb") as stream:
            text = stream.read(MOST).decode("utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise DamagedError(f"{folder / SUMS} is damaged: it is not text.") from None
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    if None in found or any(line and line[2] in (".", "..", SUMS) for line in found):
        raise DamagedError(f"{folder / SUMS} is damaged: a line is not a digest and the name of a file beside it.")
    return {line[2]: line[1] for line in found if line}


def check_folder(folder: Path, advice: str) -> None:
    """Raise DamagedError where a file of the folder is not the one that its SHA256SUMS names, or is missing."""
    for name, expected in recorded_digests(folder).items():
        if not (folder / name).is_file():
            raise DamagedError(f"{folder / name} is missing, though {SUMS} names it. {advice}")
        check_digest(folder / name, expected, advice)


# ---- of a single file, at its end


def append_digest(file: Path) -> None:
    """Append the digest of all that the file holds so far."""
    line = MARK + file_digest(file).encode() + b"\n"
    with files.open_regular(file, "ab") as stream:
        stream.write(line)


def check_appended_digest(file: Path, advice: str) -> None:
    """Raise DamagedError unless the file ends with the digest of what stands before."""
    size = files.regular(file).stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - SEAL))
        line = stream.read(SEAL)
        if not (line.startswith(MARK) and line.endswith(b"\n") and len(line) == SEAL):
            raise DamagedError(
                f"{file} does not end with its SHA-256: it is truncated, or was written by another version. {advice}"
            )
        stream.seek(0)
        hashed, left = hashlib.sha256(), size - SEAL
        while left and (block := stream.read(min(left, 1 << 20))):
            hashed.update(block)
            left -= len(block)
    if hashed.hexdigest().encode() != line[len(MARK) : -1]:
        raise DamagedError(f"{file} is damaged: its SHA-256 does not match. {advice}")
