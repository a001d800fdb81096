"""Mask: a binary mask as run lengths, in pixels of the image on which it was drawn.

Only the smallest rectangle that contains the mask is stored, so a mask of a small structure in a large image takes
little memory and time. Runs go along the lines of this rectangle and alternate, beginning with pixels outside the mask;
each is a 16-bit number, and a longer run is divided by a run of length 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.imaging.gray_image import Limits

LONGEST_RUN = 65535
MOST_RUNS = 2_000_000
"""Limit on the runs of a mask; the outline of a lung takes about two for each line of the image."""


@dataclass(frozen=True)
class Mask:
    """A binary mask; one without pixels has columns = lines = 0."""

    width: int
    """Size of the image on which it was drawn."""
    height: int
    left: int = 0
    """Corner of the rectangle in this image."""
    top: int = 0
    columns: int = 0
    """Size of the rectangle."""
    lines: int = 0
    runs: bytes = b""
    """Little-endian 16-bit run lengths; pixels after the last run are outside the mask."""

    @classmethod
    def of_pixels(cls, pixels: np.ndarray) -> "Mask":
        """From (H, W) pixels, which belong to the mask if they are not 0."""
        inside = np.ascontiguousarray(pixels, bool).view(np.uint8)
        height, width = inside.shape
        check_mask_size(width, height)
        left, top, columns, lines = cv2.boundingRect(inside)
        if not lines:
            return cls(width, height)
        flat = np.zeros(lines * columns + 2, np.uint8)
        flat[1:-1] = inside[top : top + lines, left : left + columns].ravel()
        return cls(width, height, left, top, columns, lines, _coded(np.flatnonzero(flat[1:] != flat[:-1])))

    @classmethod
    def of_sizes(cls, sizes: Sequence[int], runs: bytes) -> "Mask":
        """From width, height, left, top, columns and lines."""
        width, height, left, top, columns, lines = (int(size) for size in sizes)
        return cls(width, height, left, top, columns, lines, runs)

    @classmethod
    def of_spans(cls, spans: np.ndarray, width: int, height: int) -> "Mask":
        """From (n, 2) first and end of ranges of pixels, counted along the lines of the image; ranges may overlap."""
        check_mask_size(width, height)
        first, end = _united(spans)
        if not len(first):
            return cls(width, height)
        top, bottom = int(first[0] // width), int((end[-1] - 1) // width)
        whole = (first // width != (end - 1) // width).any()  # a range continues on the next line
        left = 0 if whole else int((first % width).min())
        columns = (width if whole else int(((end - 1) % width).max()) + 1) - left
        first, last = ((each // width - top) * columns + each % width - left for each in (first, end - 1))
        edges = np.stack(_united(np.stack([first, last + 1], axis=1)), axis=1).ravel()
        return cls(width, height, left, top, columns, bottom - top + 1, _coded(edges))

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.frombuffer(self.runs, "<u2")[1::2].sum(dtype=np.int64))

    def pixels(self) -> np.ndarray:
        """(lines, columns) uint8: 1 in the mask and 0 elsewhere in the rectangle."""
        lengths = np.frombuffer(self.runs, "<u2")
        values = np.zeros(len(lengths), np.uint8)
        values[1::2] = 1
        flat, inside = np.zeros(self.lines * self.columns, np.uint8), np.repeat(values, lengths)
        flat[: len(inside)] = inside
        return flat.reshape(self.lines, self.columns)

    def full(self) -> np.ndarray:
        """(H, W) uint8: the mask in the image on which it was drawn."""
        image = np.zeros((self.height, self.width), np.uint8)
        image[self.top : self.top + self.lines, self.left : self.left + self.columns] = self.pixels()
        return image

    def transposed(self) -> "Mask":
        """The mask with lines and columns exchanged."""
        turned = Mask.of_pixels(self.pixels().T) if self.lines else Mask(1, 1)
        return Mask(self.height, self.width, self.top, self.left, turned.columns, turned.lines, turned.runs)


def check_mask_size(width: int, height: int) -> None:
    """Raise ValueError unless an image of this size may have a mask."""
    Limits().check_size("the mask", width, height)


def mask_problems(sizes: np.ndarray, runs: Sequence[object]) -> list[str]:
    """What is wrong with masks from a file: (n, 6) width, height, left, top, columns, lines, and their runs."""
    width, height, left, top, columns, lines = sizes.astype(np.int64).T
    problems = []
    if (
        (sizes < 0).any()
        or (left + columns > width).any()
        or (top + lines > height).any()
        or (np.maximum(width, 1) * np.maximum(height, 1) > Limits().max_pixels).any()
    ):
        problems.append("a mask is outside its image, or the image is too large")
    elif not all(isinstance(one, bytes) and len(one) % 2 == 0 and len(one) <= 2 * MOST_RUNS for one in runs):
        problems.append("the run lengths of a mask are damaged")
    elif not all(
        int(np.frombuffer(one, "<u2").sum(dtype=np.int64)) <= area  # type: ignore[call-overload]
        for one, area in zip(runs, (columns * lines).tolist(), strict=True)
    ):
        problems.append("a run of a mask ends outside its rectangle")
    return problems


def _united(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and end of the ranges that contain all of these, in order and apart from each other."""
    spans = spans[spans[:, 1] > spans[:, 0]]
    if not len(spans):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    furthest = np.maximum.accumulate(spans[:, 1])
    new = np.flatnonzero(spans[1:, 0] > furthest[:-1]) + 1
    return spans[np.concatenate([[0], new]), 0], furthest[np.concatenate([new - 1, [len(spans) - 1]])]


def _coded(edges: np.ndarray) -> bytes:
    """Run lengths from the places at which the mask begins and ends, in turn."""
    if len(edges) > MOST_RUNS:
        raise ValueError(f"the mask has {len(edges):,} runs; the limit is {MOST_RUNS:,}.")
    lengths = np.diff(edges, prepend=0)
    for place in np.flatnonzero(lengths > LONGEST_RUN)[::-1].tolist():
        whole, rest = divmod(int(lengths[place]), LONGEST_RUN)
        lengths = np.concatenate([lengths[:place], [LONGEST_RUN, 0] * whole, [rest], lengths[place + 1 :]])
    return lengths.astype("<u2").tobytes()
