"""Grey PNGs decoded from their inflated rows."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from ribcage.imaging import codecs, image_file, jpeg_block_means, png_rows
from ribcage.imaging.gray_image import UnreadableError
from ribcage.imaging.headers import PNG


def png(rows: np.ndarray, width: int, bits: int, *, colour: int = 0, interlaced: int = 0, packed: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, interlaced)
    parts = ((b"IHDR", head), (b"IDAT", packed or zlib.compress(rows.tobytes())), (b"IEND", b""))
    return PNG + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)


def random_rows(height: int, width: int, bits: int, kind: int | None = None) -> np.ndarray:
    chance = np.random.default_rng(height)
    rows = chance.integers(0, 256, (height, 1 + width * bits // 8), np.uint8)
    rows[:, 0] = chance.integers(0, 5, height) if kind is None else kind
    return rows


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bits of each PNG that is decoded from its rows, as every grey one is here."""
    decode, seen = png_rows.gray_levels, []
    monkeypatch.setattr(png_rows, "OPENCV_FIRST", 0)
    monkeypatch.setattr(png_rows, "SMALLEST", 0)
    monkeypatch.setattr(png_rows, "gray_levels", lambda *given: seen.append(given[-1]) or decode(*given))
    return seen


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, None])
def test_pixels_equal_those_of_opencv(kind: int | None, bits: int, used: list[int]) -> None:
    for height, width in ((1, 1), (1, 70), (70, 1), (2, 3), (129, 83)):
        data = png(random_rows(height, width, bits, kind), width, bits)
        found = codecs.decode_levels(data, "x.png", image_file.Limits())
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found, expected) and found.dtype == expected.dtype
    assert used == [bits] * 5


@pytest.mark.parametrize("bits", [8, 16])
def test_the_compiled_loop_stays_within_its_arrays(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As plain Python, which would raise an IndexError."""
    rows = random_rows(20, 7, bits)
    compiled = png_rows.gray_levels(rows.tobytes(), 7, 20, bits)
    monkeypatch.setattr(png_rows, "compiled", lambda loop: loop)
    with np.errstate(over="ignore"):
        assert np.array_equal(png_rows.gray_levels(rows.tobytes(), 7, 20, bits), compiled)


def test_damaged_rows_are_refused_before_they_are_decoded(used: list[int]) -> None:
    rows = random_rows(9, 8, 8)
    invalid = rows.copy()
    invalid[4, 0] = 5
    packed = zlib.compress(rows.tobytes())
    streams = [packed[:-20], packed[:-1] + bytes([packed[-1] ^ 1]), b"no zlib stream"]
    bad_files = [png(invalid, 8, 8), png(rows, 9, 8), png(rows, 8, 16), *(png(rows, 8, 8, packed=p) for p in streams)]
    for bad in bad_files:
        with pytest.raises(UnreadableError, match=r"x\.png is damaged"):
            image_file.decode_image(bad, "x.png")
    assert used == []


def test_other_kinds_of_png_are_left_to_opencv(used: list[int]) -> None:
    image_file.decode_image(png(np.zeros((8, 2), np.uint8), 8, 1), "x.png")
    image_file.decode_image(png(np.zeros((8, 25), np.uint8), 8, 8, colour=2), "x.png")
    interlaced = np.zeros((1, 2), np.uint8)  # one pixel: one pass of one row
    image_file.decode_image(png(interlaced, 1, 8, interlaced=1), "x.png")
    assert used == []


def test_the_first_pngs_and_small_ones_are_left_to_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_rows, "_number", iter(range(1000)))
    found = [png_rows.is_worthwhile(png_rows.SMALLEST) for _ in range(png_rows.OPENCV_FIRST + 1)]
    assert found == [False] * png_rows.OPENCV_FIRST + [True]
    assert not png_rows.is_worthwhile(png_rows.SMALLEST - 1)


@pytest.mark.parametrize("module", [png_rows, jpeg_block_means])
def test_without_numba_opencv_decodes_all_files(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPENCV_FIRST", 0)
    size = () if module is jpeg_block_means else (1 << 20,)
    assert module.is_worthwhile(*size)  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "is_numba_installed", lambda: False)
    assert not module.is_worthwhile(*size)  # type: ignore[attr-defined]
