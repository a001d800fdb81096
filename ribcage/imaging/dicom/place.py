"""Shutter, orientation and pixel aspect ratio of a DICOM image, and other warnings from its header."""

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ribcage.imaging.dicom.elements import element_numbers, element_value
from ribcage.imaging.gray_image import Note

if TYPE_CHECKING:
    from pydicom import Dataset

LEAST_OPEN = 0.05
"""A shutter is ignored if it leaves less than this share of the image."""
SQUARE = 0.01
"""Relative difference of its sides below which a pixel counts as square."""
MOST_VERTICES = 4096


def shutter(dataset: "Dataset", width: int, height: int) -> tuple[np.ndarray | None, float, list[Note]]:
    """(H, W) bool mask of the open area (None: everything), the gray 0 … 1 of the rest, and notes."""
    shapes = [shape.strip().upper() for shape in _words(dataset, "ShutterShape")]
    notes = [Note("a bitmap shutter was ignored", caution=True)] if "BITMAP" in shapes else []
    if not {"RECTANGULAR", "CIRCULAR", "POLYGONAL"}.intersection(shapes):
        return None, 0.0, notes
    open_ = np.ones((height, width), bool)
    done: list[str] = []
    for shape, inside in (("RECTANGULAR", _rectangle), ("CIRCULAR", _circle), ("POLYGONAL", _polygon)):
        if shape not in shapes:
            continue
        part = inside(dataset, width, height)
        if part is None:
            notes.append(Note(f"a {shape.lower()} shutter is invalid and was ignored", caution=True))
        else:
            open_, done = open_ & part, [*done, shape.lower()]
    if not done or open_.all():
        return None, 0.0, notes
    if open_.mean() < LEAST_OPEN:
        ignored = f"a shutter that covers all but {100 * open_.mean():.0f} % of the image was ignored"
        return None, 0.0, [*notes, Note(ignored, caution=True)]
    level = min(max((element_numbers(dataset, "ShutterPresentationValue") or [0.0])[0], 0.0), 65535.0) / 65535
    return open_, level, [*notes, Note(f"area outside the {' and '.join(done)} shutter set to {_gray(level)}")]


def _gray(level: float) -> str:
    return {0.0: "black", 1.0: "white"}.get(level, f"{100 * level:.0f} % grey")


def _rectangle(dataset: "Dataset", width: int, height: int) -> np.ndarray | None:
    """PS3.3 C.7.6.11: edges are pixels, counted from 1."""
    edges = [
        element_numbers(dataset, f"Shutter{name}Edge")[:1]
        for name in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
    ]
    if not all(edges):
        return None
    left, right, upper, lower = (int(np.clip(edge[0], -(1 << 30), 1 << 30)) for edge in edges)
    if left > right or upper > lower:
        return None
    inside = np.zeros((height, width), bool)
    inside[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return inside


def _circle(dataset: "Dataset", width: int, height: int) -> np.ndarray | None:
    """Row and column of its centre, and its radius in pixels along a row."""
    centre, radius = (
        element_numbers(dataset, "CenterOfCircularShutter"),
        element_numbers(dataset, "RadiusOfCircularShutter"),
    )
    if len(centre) != 2 or not radius or radius[0] <= 0:
        return None
    tall = _aspect(dataset)[0] or 1.0
    down, across = (np.arange(height) + 1 - centre[0]) * tall, np.arange(width) + 1 - centre[1]
    return down[:, None] ** 2 + across**2 <= radius[0] ** 2


def _polygon(dataset: "Dataset", width: int, height: int) -> np.ndarray | None:
    """Pairs of row and column."""
    ends = element_numbers(dataset, "VerticesOfThePolygonalShutter")
    if len(ends) < 6 or len(ends) % 2 or len(ends) > 2 * MOST_VERTICES:
        return None
    corners = np.clip(np.array(ends).reshape(-1, 2)[:, ::-1] - 1, -(1 << 20), 1 << 20).round().astype(np.int32)
    return cv2.fillPoly(np.zeros((height, width), np.uint8), [corners], 1).astype(bool)


def cautions(dataset: "Dataset") -> list[Note]:
    """Warnings about properties in the header that are not applied to the image."""
    texts = _orientation(dataset)
    ratio, source = _aspect(dataset)
    if ratio and abs(ratio - 1) > SQUARE:
        texts.append(f"pixels are not square ({source}) but {ratio:.3g} times as high as wide, read as square")
    if "YES" in (word.upper() for word in _words(dataset, "BurnedInAnnotation")):
        texts.append("text may be burned into the pixels (BurnedInAnnotation YES)")
    flips = {"ImageHorizontalFlip": ("Y", "mirrored"), "ImageRotation": ("", "turned")}
    for keyword, (value, how) in flips.items():
        word = next(iter(_words(dataset, keyword)), "").upper()
        if (word == value) if value else word not in ("", "0"):
            texts.append(f"{keyword} ({how}) was not applied")
    return [Note(text, caution=True) for text in texts]


def _orientation(dataset: "Dataset") -> list[str]:
    """Orientation by PatientOrientation, the directions of rows and columns towards the sides of the patient. In a
    frontal image, rows run to the patient's left and columns to the feet, AP as PA."""
    sides = [word.upper() for word in _words(dataset, "PatientOrientation")]
    if len(sides) != 2 or not all(side and set(side) <= set("APRLHF") for side in sides):
        return []
    across, down = (side[0] for side in sides)
    tag = "PatientOrientation " + "/".join(side[:3] for side in sides)
    if down == "F":
        return [f"mirrored ({tag})"] if across == "R" else []
    if down == "H":
        return [f"upside down ({tag})" if across != "L" else f"upside down and mirrored ({tag})"]
    if across not in "HF":
        return []
    mirrored = " and mirrored" if across + down in ("FL", "HR") else ""
    return [f"turned by 90 degrees{mirrored} ({tag})"]


def _aspect(dataset: "Dataset") -> tuple[float, str]:
    """Height over width of a pixel and the element that gives it; 0 where none does."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        sides = element_numbers(dataset, keyword)
        if len(sides) == 2 and min(sides) > 0:
            return sides[0] / sides[1], keyword
    return 0.0, ""


def _words(dataset: "Dataset", keyword: str) -> list[str]:
    value: Any = element_value(dataset, keyword)
    several = [value] if isinstance(value, str | int | float) else value or []
    return [str(one).strip() for one in several]
