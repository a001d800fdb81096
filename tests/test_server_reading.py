"""Reading processes: a dead or slow one costs one file, and none knows a secret."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from servers import cloud, png

from ribcage.imaging.gray_image import Limits, UnreadableError
from ribcage.server import reading

pytestmark = pytest.mark.integration
TOKEN = "a-token-of-enough-letters"


def test_a_reading_process_that_dies_takes_one_file_with_it() -> None:
    reader = reading.Reader(Limits(), 60)
    sent = png(np.random.default_rng(0).integers(0, 256, (4000, 4000), np.uint8))
    assert reader.read(reading.Task("a", square=(32, "pad")), png(cloud())).pixels.shape == (32, 32)
    threading.Timer(0.01, reader.process.kill).start()
    with pytest.raises(UnreadableError, match=r"^b .*decoder"):
        reader.read(reading.Task("b", square=(32, "pad")), sent)
    assert reader.read(reading.Task("c", square=(32, "pad")), sent).width == 4000
    reader.process.kill()  # by somebody else, while it had nothing to do
    reader.process.wait()
    assert reader.read(reading.Task("d"), png(cloud())).width == 90
    reader.end()


def test_a_file_that_takes_too_long_is_given_up() -> None:
    reader = reading.Reader(Limits(), 60)
    reader.read(reading.Task("a"), png(cloud()))
    reader.seconds = 0.01
    with pytest.raises(UnreadableError, match=r"\bb .*0\.01 s"):
        reader.read(reading.Task("b"), png(np.random.default_rng(0).integers(0, 256, (4000, 4000), np.uint8)))
    reader.end()


@pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="there is no /proc here")
def test_a_reading_process_knows_no_secret_and_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", TOKEN)
    reader = reading.Reader(Limits(max_pixels=1e6), 60)
    reader.read(reading.Task("a"), png(cloud()))
    inside = Path(f"/proc/{reader.process.pid}")
    assert TOKEN.encode() not in (inside / "environ").read_bytes()
    limit = re.search(r"Max address space\s+(\d+)", (inside / "limits").read_text(encoding="utf-8"))
    assert limit and int(limit[1]) == reading.BASE_MEMORY + reading.BYTES_OF_A_PIXEL * 1_000_000
    reader.end()
