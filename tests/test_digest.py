"""Digests detect a flipped bit, zeroed bytes and a truncated file, whichever byte is concerned."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ribcage.runtime import digest

SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "flipped bit": lambda whole: whole[:700] + bytes([whole[700] ^ 4]) + whole[701:],
    "zeroed bytes": lambda whole: whole[:300] + bytes(64) + whole[364:],
    "cut off": lambda whole: whole[:-1],
    "cut short": lambda whole: whole[:100],
    "nothing left": lambda whole: b"",
    "longer": lambda whole: whole + b"\n",
    "the digest itself": lambda whole: whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:],
}


def made(file: Path) -> Path:
    file.write_bytes(bytes(range(256)) * 5)
    return file


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_sealed_file_that_is_not_what_was_written_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = made(tmp_path / "file")
    digest.append_digest(file)
    digest.check_appended_digest(file, "")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(digest.DamagedError, match=r"file.*Import again"):
        digest.check_appended_digest(file, "Import again.")


def test_a_changed_file_of_a_folder_is_named(tmp_path: Path) -> None:
    written = {name: made(tmp_path / name) for name in ("a.bin", "影像 b.bin")}
    digest.check_folder(tmp_path, "")  # an older folder has no digests
    (tmp_path / digest.SUMS).write_text(digest.digest_lines(written), encoding="utf-8")
    digest.check_folder(tmp_path, "")
    (tmp_path / "影像 b.bin").write_bytes(SPOILED["flipped bit"]((tmp_path / "a.bin").read_bytes()))
    with pytest.raises(digest.DamagedError, match=r"影像 b\.bin is damaged.*Import again"):
        digest.check_folder(tmp_path, "Import again.")
    (tmp_path / "影像 b.bin").unlink()
    with pytest.raises(digest.DamagedError, match=r"影像 b\.bin is missing"):
        digest.check_folder(tmp_path, "")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_the_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / digest.SUMS).write_text(digest.digest_lines({"a.bin": made(tmp_path / "a.bin")}))
    subprocess.run(["sha256sum", "--check", "--strict", digest.SUMS], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("line", ["../a.bin", "/etc/passwd", "..", "sub/a.bin", "SHA256SUMS"])
def test_no_digest_is_of_a_file_elsewhere(tmp_path: Path, line: str) -> None:
    (tmp_path / digest.SUMS).write_text(f"{'0' * 64}  {line}\n")
    with pytest.raises(digest.DamagedError, match="SHA256SUMS is damaged"):
        digest.recorded_digests(tmp_path)
