"""Colour in DICOM becomes gray: palettes, photometric interpretations, high bits."""

import numpy as np
import pydicom
import pytest
from dicoms import RAMP, dataset, read, refused, written
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)
from refusals import has_facts

from ribcage.imaging import gray_image, image_file


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
    assert any(note in one for one in image.note_texts)


def test_a_window_asked_for_of_colour_images_is_reported_missing() -> None:
    made = dataset(np.zeros((8, 8, 3), np.uint8), 8, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    note = image_file.decode_image(written(made), "a", window="40,400").note_texts[-1]
    assert note.startswith(gray_image.CAUTION) and "window" in note


def test_a_palette_of_bytes_in_words_is_not_black() -> None:
    made = dataset((RAMP >> 4).astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", np.arange(256).astype("<u2").tobytes())
    image = read(made, 8)
    assert np.array_equal(image.pixels, RAMP >> 4) and "read as 8" in image.note_texts[0]


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


def palette(syntax: pydicom.uid.UID, bits: int) -> pydicom.Dataset:
    """A 16-bit palette, or 8-bit entries packed into words; written in the byte order of the syntax."""
    made = dataset((RAMP >> 4).astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    made.file_meta.TransferSyntaxUID = syntax
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    if syntax == ExplicitVRBigEndian:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(order).tobytes()
    entries = np.arange(256)[::-1] ** 2
    words = entries.astype("<u2") if bits == 16 else (entries >> 8).astype(np.uint8).view("<u2")
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(made, f"{colour}PaletteColorLookupTableData", words.astype(order).tobytes())
    return made


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_read_in_either_byte_order(bits: int) -> None:
    little, big = (read(palette(syntax, bits), 8).pixels for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian))
    assert np.array_equal(little, big) and little[0, 0] > 250 and little[-1, -1] == 0


COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def test_a_sign_of_colours_is_ignored_and_noted() -> None:
    said = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    plain, signed = (read(dataset(COLOURS, 8, **said, PixelRepresentation=sign), 8) for sign in (0, 1))
    assert np.array_equal(plain.pixels, signed.pixels)
    assert has_facts(signed.note_texts[0], gray_image.CAUTION, "PixelRepresentation 1")


def test_a_shutter_is_applied_to_colours() -> None:
    edges = {"ShutterLeftVerticalEdge": 5, "ShutterRightVerticalEdge": 12}
    edges |= {"ShutterUpperHorizontalEdge": 5, "ShutterLowerHorizontalEdge": 12}
    said = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    plain, shut = (read(dataset(COLOURS, 8, **said, **more)) for more in ({}, {"ShutterShape": "RECTANGULAR"} | edges))
    assert np.array_equal(shut.pixels[4:12, 4:12], plain.pixels[4:12, 4:12]) and shut.pixels[:4].max() == 0
    assert has_facts(shut.note_texts[-1], "rectangular shutter", "black")


def test_halved_colours_have_the_length_and_columns_that_they_need() -> None:
    said = {"PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    whole = read(dataset(COLOURS, 8, **said), 8)
    full = read(dataset(COLOURS, 8, **(said | {"PhotometricInterpretation": "YBR_FULL"})), 8)
    assert np.array_equal(whole.pixels, full.pixels)
    assert has_facts(whole.note_texts[0], gray_image.CAUTION, "YBR_FULL_422", "YBR_FULL")
    odd = dataset(COLOURS[:, :15], 8, **said)
    odd.PixelData = bytes(16 * 15 * 2)
    assert has_facts(refused(odd), "YBR_FULL_422", "15 columns")


@pytest.mark.parametrize("bits", [8, 12])
def test_colours_that_are_signed_are_refused(bits: int) -> None:
    smooth = np.linspace(-1, 1, 64)[None, :, None] * np.linspace(0.3, 1, 64)[:, None, None] * np.ones(3)
    kind = np.int8 if bits == 8 else np.int16
    signed = np.rint(smooth * ((1 << bits - 1) - 1)).astype(kind)
    assert "signed" in refused(dataset(signed, bits, PhotometricInterpretation="RGB", PlanarConfiguration=0))


def test_black_and_white_colours_with_a_wrong_sign_are_read() -> None:
    text = np.zeros((64, 64, 3), np.uint8)
    text[8:50, ::3] = 255
    said = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "PixelRepresentation": 1}
    assert np.array_equal(read(dataset(text, 8, **said), 8).pixels, text[..., 0])


def test_a_missing_palette_is_named() -> None:
    assert "no palette" in refused(dataset(PhotometricInterpretation="PALETTE COLOR"))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(("stored", "declared"), [("RGB", "YBR_FULL"), ("YBR_FULL", "RGB")])
def test_a_radiograph_that_is_grey_only_by_the_other_colour_model_is_read_by_it(
    syntax: pydicom.uid.UID, stored: str, declared: str
) -> None:
    gray = (RAMP >> 4).astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=2)
    if stored == "YBR_FULL":
        colours[..., 1:] = 128
    colours[0, :8] = 255, 0, 0  # a burned-in letter in colour
    made = dataset(colours, 8, PhotometricInterpretation=declared, PlanarConfiguration=0)
    if syntax == RLELossless:
        made.compress(RLELossless)
    image = read(made, depth=8)
    assert np.array_equal(image.pixels[1:], gray[1:])
    assert any(each.startswith(gray_image.CAUTION) and f"read as {stored}" in each for each in image.note_texts)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_real_colours_are_read_as_declared(photometric: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = read(dataset(colours, 8, PhotometricInterpretation=photometric, PlanarConfiguration=0), depth=8)
    assert not any(each.startswith(gray_image.CAUTION) for each in image.note_texts)


@pytest.mark.parametrize("declared", [0, 1])
def test_a_grey_radiograph_in_the_other_arrangement_of_colours_is_not_scrambled(declared: int) -> None:
    gray = (RAMP.T >> 4).astype(np.uint8)
    colours = np.repeat(gray[..., None], 3, axis=2)
    colours[0, :2] = 255, 0, 0  # a burned-in mark
    right = dataset(colours, 8, PhotometricInterpretation="RGB", PlanarConfiguration=1 - declared)
    if not declared:
        right.PixelData = np.ascontiguousarray(np.moveaxis(colours, -1, 0)).tobytes()
    images = [read(right, depth=8)]
    right.PlanarConfiguration = declared
    images.append(read(right, depth=8))
    assert all(np.array_equal(image.pixels[1:], gray[1:]) for image in images)
    cautions = [[each for each in image.note_texts if "PlanarConfiguration" in each] for image in images]
    assert cautions[0] == [] and has_facts(cautions[1][0], "PlanarConfiguration", declared, 1 - declared)


def test_tinted_planes_keep_their_arrangement() -> None:
    across = np.rint(np.linspace(0, 200, 64)).astype(np.uint8)
    planes = np.stack([np.tile(across + tint, (64, 1)) for tint in (0, 20, 40)])
    made = dataset(np.moveaxis(planes, 0, -1), 8, PhotometricInterpretation="RGB", PlanarConfiguration=1)
    made.PixelData = planes.tobytes()
    assert not any("PlanarConfiguration" in each for each in read(made, depth=8).note_texts)
