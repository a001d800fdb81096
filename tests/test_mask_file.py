"""Masks in image files: two gray levels, or one level of several; bombs and photographs are refused."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from ribcage.imaging.mask import Mask
from ribcage.imaging.mask_file import read_mask

DRAWN = cv2.circle(np.zeros((60, 80), np.uint8), (30, 25), 17, 1, -1)


def written(file: Path, pixels: np.ndarray) -> Path:
    file.write_bytes(cv2.imencode(file.suffix, pixels)[1].tobytes())
    return file


@pytest.mark.parametrize("top", [1, 7, 255, 65535])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_any_two_levels_are_a_mask(tmp_path: Path, name: str, top: int) -> None:
    pixels = DRAWN.astype(np.uint16 if top > 255 else np.uint8) * np.array(top, np.uint16 if top > 255 else np.uint8)
    assert read_mask(written(tmp_path / name, pixels)) == Mask.of_pixels(DRAWN)


def test_smoothed_edges_are_cut_at_half_and_colours_are_gray(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(DRAWN * np.uint8(255), (3, 3), 0.5)
    assert read_mask(written(tmp_path / "a.png", smooth)) == Mask.of_pixels(smooth >= 128)
    colours = cv2.cvtColor(DRAWN * np.uint8(255), cv2.COLOR_GRAY2BGR)
    assert read_mask(written(tmp_path / "b.png", colours)) == Mask.of_pixels(DRAWN)


def test_one_level_of_several_is_a_structure(tmp_path: Path) -> None:
    levels = DRAWN.copy()
    levels[50:, :10] = 2
    file = written(tmp_path / "a.png", levels)
    assert [read_mask(file, value) for value in (1, 2, 3)] == [
        Mask.of_pixels(DRAWN), Mask.of_pixels(levels == 2), Mask(80, 60)
    ]  # fmt: skip


@pytest.mark.parametrize("levels", [(1, 2), (2, 3), (3, 2), (128, 255), (1, 255), (10, 11), (9, 10), (10, 200)])
@pytest.mark.parametrize("side", [2, 3, 12])
def test_a_file_with_two_structures_is_refused(tmp_path: Path, levels: tuple[int, int], side: int) -> None:
    pixels = np.zeros((90, 120), np.uint8)
    pixels[20 : 20 + side, 5:45] = levels[0]
    pixels[20:50, 80:110] = levels[1]
    with pytest.raises(ValueError, match=r"a\.png has 3 "):
        read_mask(written(tmp_path / "a.png", pixels))


def test_a_file_of_one_bright_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png"):
        read_mask(written(tmp_path / "a.png", np.full((6, 9), 255, np.uint8)))


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_compressed_and_enlarged_masks_are_read(tmp_path: Path, quality: int) -> None:
    large = cv2.circle(np.zeros((300, 300), np.uint8), (120, 140), 70, 255, -1)
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
    assert read_mask(tmp_path / "a.jpg").area == pytest.approx(np.count_nonzero(large), rel=0.005)
    smooth = cv2.resize(large, (600, 600), interpolation=cv2.INTER_LINEAR)
    assert read_mask(written(tmp_path / "b.png", smooth)) == Mask.of_pixels(smooth >= 128)


def test_a_black_file_is_an_empty_mask(tmp_path: Path) -> None:
    assert read_mask(written(tmp_path / "a.png", np.zeros((6, 9), np.uint8))) == Mask(9, 6)


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"no image", bomb(), b"GIF89a"])
def test_a_file_that_is_no_mask_is_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png") as error:
        read_mask(tmp_path / "a.png")
    assert "\n" not in str(error.value)


def test_a_radiograph_is_no_mask(tmp_path: Path) -> None:
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 6), np.uint8), (60, 60))
    with pytest.raises(ValueError, match=r"a\.png"):
        read_mask(written(tmp_path / "a.png", image))
