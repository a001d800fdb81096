"""Masks and points that move with the images of a batch."""

import cv2
import numpy as np

from ribcage.imaging.augment.numbers import Numbers


def warp_mask(pixels: np.ndarray, place: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8 mask of 0 and 1 that covers a box of the stored image → (H, W) uint8 in a view of it.

    place: (4,) x, y, width, height of the box in stored pixels.
    affine: (2, 3) matrix from the view to the stored image.

    The mask is resampled like the images: it is halved as long as the view has at most half of its resolution, then
    interpolated linearly. A pixel of the view belongs to the mask if the result is at least one half.
    """
    high, wide = pixels.shape
    matrix = (affine - [[0, 0, place[0]], [0, 0, place[1]]]) * (np.array([wide, high]) / place[2:])[:, None]
    halvings = max(int(np.log2(np.hypot(*matrix[:, :2].T).min())), 0)  # by the pixels of the mask for one of the view
    part: np.ndarray = pixels * np.uint8(255)
    factor = 1 << halvings
    if halvings:
        part = cv2.copyMakeBorder(part, 0, -high % factor, 0, -wide % factor, cv2.BORDER_CONSTANT, value=0)
    for _ in range(halvings):  # means of 2 x 2 pixels, for which OpenCV is fastest
        part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    matrix /= factor
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # integers at pixel centres
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(part, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return (moved >= 128).view(np.uint8)


def move_points(points: np.ndarray, numbers: Numbers) -> np.ndarray:
    """(M, 5) n, structure, number, x, y in stored pixels → the same in pixels of the batch; points outside the view are
    dropped."""
    height, width = numbers.size
    matrix = numbers.affine[points[:, 0].astype(np.int64)]
    moved = np.linalg.solve(matrix[:, :, :2], (points[:, 3:] - matrix[:, :, 2])[:, :, None])[:, :, 0]
    inside = ((moved >= 0) & (moved <= [width, height])).all(axis=1)
    return np.concatenate([points[:, :3], moved], axis=1)[inside].astype(np.float32)
