"""Mask encodings: the ways in which datasets publish masks in text – run lengths and polygons.

Nothing is decoded to pixels before its size is known to be within the limits; errors are a ValueError of one line.
"""

from collections.abc import Sequence

import numpy as np

from ribcage.imaging.mask import MOST_RUNS, Mask, check_mask_size

MOST_CROSSINGS = 20_000_000
"""Limit on the crossings of a polygon's edges with the lines of an image."""


def mask_of_pairs(
    text: str, width: int, height: int, *, relative: bool = False, by_column: bool = False, first: int = 0
) -> Mask:
    """The mask in pairs of a start and a length, as Kaggle writes run lengths.

    relative: starts are counted from the end of the previous run (SIIM-ACR), not from the first pixel.
    by_column: pixels are counted down the columns of the image, not along its lines.
    first: number of the first pixel.
    """
    check_mask_size(width, height)
    numbers = _numbers(text)
    if len(numbers) % 2:
        raise ValueError(f"the run lengths have {len(numbers):,} numbers; pairs of a start and a length were expected.")
    if len(numbers) and (numbers.min() < 0 or numbers.max() > width * height):
        raise ValueError(f"a run length is not within an image of {width} x {height} pixels.")
    starts, lengths = numbers[::2] - first, numbers[1::2]
    if relative:
        starts = np.cumsum(starts) + np.cumsum(lengths) - lengths
    return _mask_of_spans(np.stack([starts, starts + lengths], axis=1), width, height, by_column)


def mask_of_counts(counts: str | Sequence[int], width: int, height: int) -> Mask:
    """The mask in COCO's run lengths, which alternate and go down the columns: numbers, or the compressed text."""
    check_mask_size(width, height)
    lengths = _compressed(counts) if isinstance(counts, str) else np.asarray(counts)
    if lengths.ndim != 1 or len(lengths) > MOST_RUNS or (len(lengths) and lengths.dtype.kind not in "iu"):
        raise ValueError("the counts of a COCO mask are not a list of whole numbers.")
    pixels = width * height
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > pixels or int(lengths.sum()) != pixels:
        raise ValueError(f"the counts of a COCO mask do not add up to {width} x {height} pixels.")
    edges = np.cumsum(lengths.astype(np.int64))
    return _mask_of_spans(edges[: len(edges) // 2 * 2].reshape(-1, 2), width, height, by_column=True)


def mask_of_polygons(polygons: Sequence[np.ndarray], width: int, height: int) -> Mask:
    """The pixels whose centres are in one of these polygons, each (n, 2) x and y; parts outside the image are cut off.

    Coordinates are continuous: the centre of the first pixel is at (0.5, 0.5).
    """
    check_mask_size(width, height)
    spans = [_spans_of_polygon(np.asarray(one, np.float64), width, height) for one in polygons]
    return Mask.of_spans(np.concatenate([np.empty((0, 2), np.int64), *spans]), width, height)


def _mask_of_spans(spans: np.ndarray, width: int, height: int, by_column: bool) -> Mask:
    if len(spans) and (spans.min() < 0 or spans.max() > width * height):
        last = int(spans.max())
        raise ValueError(
            f"a run ends at pixel {last:,} of an image with {width} x {height} = {width * height:,} pixels."
        )
    return Mask.of_spans(spans, height, width).transposed() if by_column else Mask.of_spans(spans, width, height)


def _numbers(text: str) -> np.ndarray:
    words = text.split()
    if len(words) > MOST_RUNS:
        raise ValueError(f"the mask has {len(words):,} numbers; the limit is {MOST_RUNS:,}.")
    try:
        return np.array(words, np.int64).reshape(-1)
    except (ValueError, OverflowError):
        raise ValueError("the run lengths contain a value that is not a whole number.") from None


def _compressed(text: str) -> np.ndarray:
    """COCO's text as numbers: groups of 5 bits from the lowest on, the sixth bit set in all but the last of a number;
    from the third number on, differences to the last but one."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or len(codes) > 8 * MOST_RUNS or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("the compressed counts of a COCO mask are damaged.")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 6:
        raise ValueError("the compressed counts of a COCO mask contain a number that is too large.")
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values -= np.where(codes[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def _spans_of_polygon(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """(n, 2) ranges of pixels along the lines whose centres are inside, by the even-odd rule."""
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e7:
        raise ValueError("a polygon is not a list of points with finite x and y.")
    (x, y), (to_x, to_y) = points.T, np.roll(points, -1, axis=0).T
    low, high = (np.ceil(each(y, to_y) - 0.5).clip(0, height).astype(np.int64) for each in (np.minimum, np.maximum))
    counts = high - low  # lines whose centres the edge crosses
    if counts.sum() > MOST_CROSSINGS:
        raise ValueError(f"a polygon of {len(points):,} points crosses too many pixel rows of its image.")
    edge = np.repeat(np.arange(len(points)), counts)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + low[edge]
    slope = (to_x - x)[edge] / (to_y - y)[edge]
    column = np.ceil(x[edge] + (line + 0.5 - y[edge]) * slope - 0.5).clip(0, width).astype(np.int64)
    # sorted by line, then by column: every line is crossed an even number of times
    order = np.lexsort((column, line))
    return (line * width + column)[order].reshape(-1, 2)
