"""A sample of the corpus of hostile files: each is read or refused in one line."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import SERVER

from benchmarks import hostile
from ribcage import cli
from ribcage.imaging import image_file

EACH = 40
"""Inputs of a kind; `python -m benchmarks.hostile` reads 100,000 in all."""


def slice_of(folder: str, told: "multiprocessing.Queue[tuple[str, int, str, str]]") -> None:
    made = hostile.sound(Path(folder))
    for kind in hostile.KINDS:
        hostile.worker(kind, range(EACH), made, told, SERVER.Value("q", 0))
    told.put(("end", 0, "", ""))


def test_a_slice_of_the_corpus_meets_no_fault(tmp_path: Path) -> None:
    told = SERVER.Queue()
    reader = SERVER.Process(target=slice_of, args=(str(tmp_path), told))
    reader.start()
    found = list(iter(lambda: told.get(timeout=240), ("end", 0, "", "")))
    reader.join(60)
    assert reader.exitcode == 0
    assert [one for one in found if one[2] != "counts"] == []
    counts = sum((Counter(json.loads(said)) for *_, said in found), Counter())
    assert set(counts) == {"read", "refused"} and min(counts.values()) > EACH


def test_a_codec_prints_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    """Several threads decode a damaged JPEG; what Python prints meanwhile is not lost."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    damaged = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    damaged[-400:-200] = b"\xff\xd9" * 100
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _tried(bytes(damaged)), range(20)))
    assert capfd.readouterr().err == ""
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


def _tried(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        image_file.decode_image(data, "a.jpg")


def test_what_python_prints_while_a_codec_works_is_seen() -> None:
    code = """
import sys
from ribcage import cli
from ribcage.runtime import terminal
def dispatch(words):
    with terminal.quiet_codecs:
        print("seen", file=sys.stderr)
    return 0
cli.dispatch = dispatch
sys.exit(cli.main(["x"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "seen\n"


def test_an_endless_text_from_a_file_is_cut() -> None:
    said = cli.error_line(ValueError("begin " + "A" * 100_000 + " end"))
    assert said.startswith("begin ") and said.endswith(" end") and len(said) < 2000
