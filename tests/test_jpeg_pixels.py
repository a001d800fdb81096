"""The pixels are those of OpenCV, or there are none."""

import io
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from PIL import Image

from ribcage.imaging import image_file, jpeg_pixels


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OPENCV_FIRST", "KNOWN_AFTER"):
        monkeypatch.setattr(jpeg_pixels, name, 0)
    yield
    jpeg_pixels._uses.cache_clear()


def radiograph(height: int, width: int, grain: float = 4.0) -> np.ndarray:
    random = np.random.default_rng(height)
    smooth = cv2.resize(random.uniform(0, 255, (6, 6)), (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth + random.normal(0, grain, smooth.shape)).clip(0, 255).astype(np.uint8)


def coded(pixels: np.ndarray, quality: int = 95, *, progressive: int = 0, restart: int = 0, optimise: int = 0) -> bytes:
    settings = {
        cv2.IMWRITE_JPEG_QUALITY: quality,
        cv2.IMWRITE_JPEG_PROGRESSIVE: progressive,
        cv2.IMWRITE_JPEG_RST_INTERVAL: restart,
        cv2.IMWRITE_JPEG_OPTIMIZE: optimise,
    }
    return cv2.imencode(".jpg", pixels, [each for pair in settings.items() for each in pair])[1].tobytes()


def wanted(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 7), (64, 200), (130, 97), (320, 390)])
def test_pixels_equal_those_of_opencv(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    images = (radiograph(*size), random.integers(0, 256, size, np.uint8), 255 * random.integers(0, 2, size, np.uint8))
    for pixels in images:
        for quality in (1, 20, 75, 95, 100):
            data = coded(pixels, quality, optimise=quality % 2)
            found = jpeg_pixels.decode_gray(data)
            assert found is not None and found.dtype == np.uint8 and np.array_equal(found, wanted(data))


def test_an_image_file_is_read_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = coded(radiograph(100, 120)), []
    decode = jpeg_pixels.decode_gray
    monkeypatch.setattr(jpeg_pixels, "decode_gray", lambda data: calls.append(data) or decode(data))
    assert np.array_equal(image_file.decode_image(data, "").pixels, wanted(data)) and calls == [data]


def test_unusual_files_are_left_to_opencv() -> None:
    pixels = radiograph(40, 60)
    for data in (
        coded(pixels, progressive=1),
        coded(pixels, restart=2),
        coded(cv2.merge([pixels, pixels[::-1], pixels])),
        coded(pixels)[:300],
        coded(pixels)[:-400] + b"\xff\xd9",
        b"",
    ):
        assert jpeg_pixels.decode_gray(data) is None


def test_tables_that_occur_once_are_left_to_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_pixels, "KNOWN_AFTER", 3)
    data = coded(radiograph(40, 60), optimise=1)
    assert [jpeg_pixels.decode_gray(data) is None for _ in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize("optimise", [0, 1])
def test_damaged_files_give_the_pixels_of_opencv_or_none(optimise: int) -> None:
    """Whatever byte is changed: a decoder that reads or writes outside its arrays would end the process."""
    random, decoded = np.random.default_rng(0), 0
    data = coded(radiograph(48, 80), 90, optimise=optimise)
    damages = [(645, 82)], *(  # the first: a run of zeros beyond the end of a block, and the next code with it
        [(int(place), int(random.choice([0, 255, random.integers(256)]))) for place in places]
        for places in (random.integers(2, len(data) - 2, random.integers(1, 4)) for _ in range(300))
    )  # fmt: skip
    for damage in damages:
        damaged = bytearray(data)
        for place, byte in damage:
            damaged[place] = byte
        found = jpeg_pixels.decode_gray(bytes(damaged))
        if found is not None:
            decoded += 1
            assert np.array_equal(found, wanted(bytes(damaged)))
    assert decoded > 25


def test_pillow_s_files_are_decoded_too() -> None:
    stream = io.BytesIO()
    Image.fromarray(radiograph(50, 70)).save(stream, "JPEG", quality=90)
    assert np.array_equal(jpeg_pixels.decode_gray(stream.getvalue()), wanted(stream.getvalue()))
