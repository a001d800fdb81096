"""JPEGs decoded at 1/8 of their size from the means of their blocks."""

import itertools

import cv2
import numpy as np
import pytest

from ribcage.imaging import image_file, jpeg_block_means
from ribcage.imaging.jpeg_scan import read_scan


def jpeg(height: int, width: int, quality: int, noise: float, *options: int) -> bytes:
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
    pixels = np.clip(ramp + np.random.default_rng(quality).normal(0, noise, ramp.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *options])[1].tobytes()


def by_opencv(data: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)


@pytest.mark.parametrize(("quality", "noise"), [(5, 90), (50, 3), (75, 30), (95, 2), (100, 0), (100, 200)])
def test_pixels_equal_those_of_opencv(quality: int, noise: float) -> None:
    for size, options in itertools.product(((8, 8), (203, 97), (640, 488)), ((), (cv2.IMWRITE_JPEG_OPTIMIZE, 1))):
        data = jpeg(*size, quality, noise, *options)
        assert np.array_equal(jpeg_block_means.decode_block_means(data), by_opencv(data))


def test_damaged_pixels_are_decoded_as_by_opencv_or_left_to_it() -> None:
    """OpenCV reports no error: it fills in what it cannot decode."""
    chance, good = np.random.default_rng(0), jpeg(96, 80, 90, 20)
    start, equal = read_scan(good).start, 0
    for _ in range(600):
        bad = np.frombuffer(good, np.uint8).copy()
        bad[chance.integers(start, len(bad), chance.integers(1, 4))] = chance.choice([0, 255, 217, 208, 77], 1)
        found = jpeg_block_means.decode_block_means(bad.tobytes())
        if found is not None:
            assert np.array_equal(found, by_opencv(bad.tobytes()))
            equal += 1
    assert 100 < equal < 600


def test_the_compiled_loop_stays_within_its_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As plain Python, which would raise an IndexError: compiled, it would read what lies beside."""
    monkeypatch.setattr(jpeg_block_means, "compiled", lambda loop: loop)
    good = jpeg(24, 16, 95, 20)
    assert np.array_equal(jpeg_block_means.decode_block_means(good), by_opencv(good))
    for cut, end in itertools.product(range(3, 40), (b"", b"\xff", b"\xff\x00")):
        assert jpeg_block_means.decode_block_means(good[: -cut - 40] + end) is None


@pytest.mark.parametrize("kind", [cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL])
def test_other_kinds_of_jpeg_are_left_to_opencv(kind: int) -> None:
    assert jpeg_block_means.decode_block_means(jpeg(64, 64, 90, 3, kind, 1)) is None
    colour = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    assert jpeg_block_means.decode_block_means(colour) is None


def test_an_image_is_the_same_whichever_decoder_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data, called = jpeg(1601, 1800, 90, 10), []
    decode = jpeg_block_means.decode_block_means
    monkeypatch.setattr(jpeg_block_means, "decode_block_means", lambda data: called.append(1) or decode(data))
    read = []
    for first in (1 << 60, 0):
        monkeypatch.setattr(jpeg_block_means, "OPENCV_FIRST", first)
        read.append(image_file.decode_image(data, "x.jpg", min_side=200))
        assert len(called) == (first == 0)
    assert np.array_equal(read[0].pixels, read[1].pixels) and read[0].note_texts == read[1].note_texts
