"""The gray image that every reader returns, and the steps from decoded pixels to it: one channel, upright, 8 or 16
bits."""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

Depth = Literal[8, 16]


class UnreadableError(ValueError):
    """A file is not a readable image; the message is one line."""

    def __init__(self, reason: str) -> None:
        line = " ".join(reason.split())
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in line))


@dataclass(frozen=True)
class Limits:
    """Limits on the size of image files."""

    max_pixels: float = 100e6
    max_bytes: float = 512e6
    max_aspect: float = 100.0
    """Longer side over shorter side."""

    def check_bytes(self, name: str, count: int) -> None:
        """Refuse an empty file and one that is too large."""
        if count == 0:
            raise UnreadableError(f"{name} is empty.")
        if count > self.max_bytes:
            raise UnreadableError(
                f"{name} has a size of {count / 1e6:,.0f} MB; the limit is {self.max_bytes / 1e6:,.0f} MB."
            )

    def check_size(self, name: str, width: int, height: int) -> None:
        """Refuse an image without pixels, with too many, or of an extreme shape."""
        if width < 1 or height < 1:
            raise UnreadableError(
                f"{name} declares a size of {width} x {height} pixels, but an image must have at least one pixel."
            )
        if width * height > self.max_pixels:
            raise UnreadableError(
                f"{name} declares {width} x {height} pixels; the limit is {self.max_pixels / 1e6:,.0f} million pixels."
            )
        if max(width, height) > self.max_aspect * min(width, height):
            raise UnreadableError(f"{name} has {width} x {height} pixels, which is too narrow for a radiograph.")


@dataclass(frozen=True)
class Note:
    """What was done to an image when it was read."""

    text: str
    caution: bool = False
    """Whether a user of the image should see the note, because the image may differ from what it should be."""

    def __str__(self) -> str:
        """The form in which notes are stored and printed; `parse` reads it."""
        return f"{CAUTION}{self.text}" if self.caution else self.text

    @classmethod
    def parse(cls, written: str) -> "Note":
        """A note from its written form."""
        return cls(written.removeprefix(CAUTION), written.startswith(CAUTION))


CAUTION = "caution: "
"""Beginning of a written note with `caution`."""


@dataclass(frozen=True)
class GrayImage:
    """A gray image over the full range of its dtype, dark where the radiograph shows air."""

    pixels: np.ndarray
    """(H, W) uint8 or uint16. If decoded at reduced size, it still covers exactly the whole image."""
    width: int
    height: int
    """Size of the original image, upright (EXIF orientation applied) and before any reduction."""
    notes: tuple[Note, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    """DICOM only: patient, study, view, sex, age, manufacturer, modality, body, transfer_syntax."""

    @property
    def note_texts(self) -> tuple[str, ...]:
        """The notes in their written form."""
        return tuple(map(str, self.notes))


# 10- to 14-bit detectors are often saved unscaled in 16 bits; a scaled radiograph always uses the top two bits.
FEW_BITS = 14


def to_gray(pixels: np.ndarray, what: str) -> tuple[np.ndarray, list[Note]]:
    """One channel of (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, and notes on the conversion."""
    if pixels.ndim == 2:
        return pixels, []
    blue, green, red, *alpha = cv2.split(pixels)
    if cv2.norm(blue, green, cv2.NORM_INF) == 0 == cv2.norm(green, red, cv2.NORM_INF):
        one, notes = green, [] if what.startswith("gray") else [Note(f"{what} with grey pixels")]
    else:
        one, notes = (
            cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2GRAY),
            [Note(f"colour ({what}) converted to greyscale")],
        )
    top = np.iinfo(pixels.dtype).max
    if alpha and cv2.minMaxLoc(alpha[0])[0] < top:
        one, notes = cv2.multiply(one, alpha[0], scale=1 / top), [*notes, Note("transparent pixels set to black")]
    return one, notes


def upright(pixels: np.ndarray, orientation: int) -> tuple[np.ndarray, list[Note]]:
    """The image turned by its EXIF orientation (tag 274), and a note if that changed it."""
    if orientation == 1:
        return pixels, []
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip), [Note(f"turned (EXIF {orientation})")]


def to_depth(pixels: np.ndarray, depth: Depth, bits: int | None = None) -> tuple[np.ndarray, list[Note]]:
    """The image in 8 or 16 bits; 0 and 2^bits - 1 (`bits` None: the dtype's maximum) become black and white.

    White does not depend on the image's brightest pixel: images of one detector stay comparable.
    """
    if pixels.dtype == np.uint8:
        return (pixels, []) if depth == 8 else (pixels.astype(np.uint16) * 257, [Note("8 bit converted to 16")])
    top, notes = (1 << (bits or 16)) - 1, list[Note]()
    if bits is not None and bits < 16:
        notes = [Note(f"{bits} bit stored in 16: 0-{top} scaled to the full range")]
    elif (used := int(pixels.max()).bit_length()) <= FEW_BITS:
        notes = [Note(f"only {used} of 16 bits are used, so the image may be too dark", caution=True)]
    if depth == 8:
        return cv2.convertScaleAbs(pixels, alpha=255 / top), [*notes, Note("16 bit converted to 8")]
    return (pixels if top == 65535 else _stretched(pixels, top)), notes


def _stretched(pixels: np.ndarray, top: int) -> np.ndarray:
    table = np.rint(np.arange(top + 1) * (65535 / top)).astype(np.uint16)
    return np.take(table, pixels)
