"""Saliency maps as images: a map over an image, boxes in it, a sheet with the maps of all findings."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ribcage.imaging import gray_image
from ribcage.inference import explanation
from ribcage.inference.explanation import HALF
from ribcage.reports.tiles import Tile, tile_sheet
from ribcage.runtime import files

STRENGTH = 0.6
"""Opacity of the colours at the highest saliency: the image stays visible below them."""
BOX = (255, 179, 71)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, red first: a gray image under a saliency map of the same size.

    The colours get lighter with the saliency, so they can be read in grayscale and with colour blindness; where it is 0
    the image is unchanged. A contour surrounds what has at least half of the highest saliency.
    """
    gray, _ = gray_image.to_depth(pixels, 8)
    warm = np.clip(heat, 0, 1)[..., None]
    colours = cv2.applyColorMap(np.rint(255 * heat.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = STRENGTH * warm
    mixed = np.rint(gray[..., None] * (1 - share) + colours * share).astype(np.uint8)
    return outlined(mixed, heat)


def outlined(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image with a white contour on a black one around at least half of the highest saliency."""
    most = float(heat.max(initial=0))
    if most <= 0:
        return image
    around, _ = cv2.findContours((heat >= HALF * most).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn, width = np.ascontiguousarray(image), max(1, round(max(heat.shape) / 400))
    for colour, thick in (((0, 0, 0), 3 * width), ((255, 255, 255), width)):
        cv2.drawContours(drawn, around, -1, colour, thick)
    return drawn


def with_boxes(pixels: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """(H, W, 3) uint8, red first: a gray image and boxes of x, y, width, height in its pixels."""
    gray, _ = gray_image.to_depth(pixels, 8)
    drawn, width = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), max(1, round(max(gray.shape) / 300))
    for colour, thick in (((0, 0, 0), 3 * width), (BOX, width)):
        for x, y, wide, high in boxes:
            last = round(x + wide) - 1, round(y + high) - 1
            cv2.rectangle(drawn, (round(x), round(y)), last, colour, thick)
    return drawn


def saliency_tiles(
    pixels: np.ndarray,
    saliency: explanation.FileSaliency,
    probabilities: Mapping[str, float],
    above_threshold: Collection[str],
    side: int = 360,
) -> list[Tile]:
    """The image, and for each finding its saliency map and probability."""
    width, height = explanation.shrunk_size(saliency.size, side)
    gray, _ = gray_image.to_depth(pixels, 8)
    small = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    own = [
        Tile(overlay(small, saliency.heat(name, side)), name, f"{100 * value:.1f} %", name in above_threshold)
        for name, value in probabilities.items()
    ]
    return [Tile(cv2.cvtColor(small, cv2.COLOR_GRAY2RGB), "original"), *own]


# ---- files


def save_png(image: np.ndarray, file: Path) -> None:
    """An image, red first, as PNG."""
    _write(cv2.imencode(".png", image[..., ::-1])[1].tobytes(), file)


def save_tile_sheet(images: Sequence[Tile], title: str, foot: str, file: Path) -> None:
    """Tiles as SVG."""
    _write(tile_sheet(title, foot, images).encode(), file)


def _write(data: bytes, file: Path) -> None:
    """Atomically."""
    with files.explained(file.parent, "Free some."):
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(file) as part:
            part.write_bytes(data)
