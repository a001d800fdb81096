"""Colour in DICOM becomes gray: palettes, photometric interpretations, high bits."""

import numpy as np
import pydicom
import pytest
from dicoms import RAMP, dataset, read, written
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RLELossless,
)

from ribcage.imaging import image_file


@pytest.mark.parametrize(
    ("photometric", "note"),
    [
        ("RGB", "colour (RGB)"),
        ("YBR_FULL", "colour (YBR_FULL)"),
        ("PALETTE COLOR", "colour (PALETTE COLOR)"),
    ],
)
def test_colour_is_made_gray_and_noted(photometric: str, note: str) -> None:
    if photometric == "PALETTE COLOR":
        made = dataset(np.tile(np.arange(64, dtype=np.uint8), (64, 1)), 8, PhotometricInterpretation=photometric)
        for k, colour in enumerate(("Red", "Green", "Blue")):
            setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            entries = np.roll(np.arange(256), 20 * k).astype(np.uint16) * 257
            setattr(made, f"{colour}PaletteColorLookupTableData", entries.tobytes())
        expected = sum(w * np.roll(np.arange(256), 20 * k) for k, w in enumerate((0.299, 0.587, 0.114)))[:64]  # type: ignore[index]
    else:
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[...] = (200, 40, 90) if photometric == "RGB" else (93, 126, 204)  # the same colour
        made = dataset(pixels, 8, PhotometricInterpretation=photometric, PlanarConfiguration=0)
        expected = 0.299 * 200 + 0.587 * 40 + 0.114 * 90
    image = read(made, depth=8)
    assert np.abs(image.pixels - expected).max() <= 1.5
    assert any(note in one for one in image.notes)


def test_a_window_asked_for_of_colour_images_is_reported_missing() -> None:
    made = dataset(np.zeros((8, 8, 3), np.uint8), 8, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    note = image_file.decode_image(written(made), "a", window="40,400").notes[-1]
    assert note.startswith(image_file.CAUTION) and "window" in note


def test_a_palette_of_bytes_in_words_is_not_black() -> None:
    made = dataset((RAMP >> 4).astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", np.arange(256).astype("<u2").tobytes())
    image = read(made, 8)
    assert np.array_equal(image.pixels, RAMP >> 4) and "read as 8" in image.notes[0]


@pytest.mark.parametrize("said", [16, 12])
def test_a_palette_takes_as_many_bits_as_its_entries_need(said: int) -> None:
    made = dataset((RAMP >> 4).astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, said])
        setattr(made, f"{colour}PaletteColorLookupTableData", np.linspace(0, 4095, 256).astype("<u2").tobytes())
    assert np.abs(read(made, 8).pixels.astype(int) - (RAMP >> 4)).max() <= 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_colours_may_lie_in_the_high_bits(syntax: pydicom.uid.UID) -> None:
    low = np.repeat(RAMP[..., None], 3, axis=2)
    made = dataset(low << 4, 16, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False, encoding_plugin="pydicom")
    made.BitsStored, made.HighBit = 12, 15
    assert np.array_equal(read(made).pixels, np.rint(RAMP * (65535 / 4095)))
