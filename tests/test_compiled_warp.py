"""The compiled warp computes what OpenCV computes."""

import cv2
import numpy as np
import pytest
import torch

from ribcage.imaging.augment import View, apply, compiled_warp, draw_numbers, gentle_view, plain_view, strong_view
from ribcage.imaging.augment.numbers import noise_bank

MEAN, STD = 0.401, 0.25
EVERYTHING = View(
    (48, 64), crop=(0.3, 1.0), ratio=(0.7, 1.4), flip=0.5, rotation=180, shift=0.5, zoom=(0.3, 1.5), brightness=0.2,
    contrast=0.3, gamma=0.5, blur_probability=0.5, noise=0.05, erase_probability=0.5,
)  # fmt: skip
needs_opencv_5 = pytest.mark.skipif(
    cv2.__version__ < "5", reason="OpenCV 4 rounds differently and is then used for all images"
)


def sampled(values: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation in float64, with zeros around the image."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(float)
    at_x, at_y = (matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] for k in (0, 1))
    left, top = np.floor(at_x).astype(int), np.floor(at_y).astype(int)
    total = np.zeros(size)
    for down, across in np.ndindex(2, 2):
        r, c = top + down, left + across
        inside = (r >= 0) & (r < len(values)) & (c >= 0) & (c < values.shape[1])
        weight = (1 - np.abs(at_y - r)) * (1 - np.abs(at_x - c))
        total += weight * np.where(inside, values[r.clip(0, len(values) - 1), c.clip(0, values.shape[1] - 1)], 0)
    return total


def warped(part: np.ndarray, table: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.full(size, np.nan, np.float32)
    still, bank = np.zeros(1, np.float32), noise_bank(out.size)
    compiled_warp.LevelWarp(table[None], matrix[None], still, np.zeros(1, np.int64), bank)(0, part, out)
    return out


@needs_opencv_5
def test_this_machine_uses_it() -> None:
    assert compiled_warp.equals_opencv()


@pytest.mark.parametrize("view", [EVERYTHING, gentle_view((48, 64)), strong_view(64), plain_view(32)])
@pytest.mark.parametrize("side", [1, 2, 40, 64, 150])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_batches_are_bit_identical(view: View, side: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blur, noise, erasing and downsampling; also for images of one pixel."""
    images = np.random.default_rng(side).integers(0, np.iinfo(dtype).max + 1, (20, side, side)).astype(dtype)
    images.setflags(write=False)
    numbers = draw_numbers(view, 0, 0, np.arange(20), 0, side)
    batches = []
    for first in (0, 1 << 60):
        monkeypatch.setattr(compiled_warp, "OPENCV_FIRST", first)
        batches.append(apply(images, numbers, MEAN, STD))
    assert batches[0].isfinite().all() and torch.equal(*batches)


def test_it_is_the_bilinear_interpolation_of_the_table_s_values() -> None:
    random = np.random.default_rng(0)
    table = np.concatenate([[0], random.normal(size=255)]).astype(np.float32)
    for height, width in ((1, 1), (1, 7), (9, 1), (2, 2), (33, 50)):
        whole = random.integers(0, 256, (height + 2, width + 2), np.uint8)  # what lies around the part must not count
        part = whole[1:-1, 1:-1]
        for angle, scale in ((0, 1), (3, 0.1), (45, 0.5), (180, 1.3), (-100, 30)):
            matrix = cv2.getRotationMatrix2D((width / 3, height / 2), angle, scale)
            wanted = sampled(table[part].astype(float), matrix, (24, 48))
            np.testing.assert_allclose(warped(part, table, matrix, (24, 48)), wanted, atol=2e-3 if scale > 9 else 1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, 2.0**62])
@pytest.mark.parametrize("place", [*np.ndindex(2, 3)])
def test_nothing_is_read_outside_the_part_whatever_the_matrix(bad: float, place: tuple[int, int]) -> None:
    table = np.where(np.arange(256) == 7, 0, -1).astype(np.float32)
    table[0] = 5
    part = np.full((20, 30), 7, np.uint8)
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    matrix[place] = bad
    out = warped(part, table, matrix, (16, 32))
    assert ((out >= 0) & (out <= 5)).all()


def test_noise_outside_the_bank_and_other_types_are_refused() -> None:
    bank, table = np.ones(100, np.float32), np.ones((1, 256), np.float32)
    out, level = np.empty((5, 16), np.float32), np.zeros((1, 1), np.uint8)
    for start, levels in ((21, level), (-1, level), (0, level.astype(np.uint16))):
        warp = compiled_warp.LevelWarp(table, np.ones((1, 2, 3)), np.ones(1, np.float32), np.array([start]), bank)
        with pytest.raises(ValueError, match=r"^Image 0 "):
            warp(0, levels, out)
