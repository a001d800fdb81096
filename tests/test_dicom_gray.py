"""Stored values to gray: polarity, padding, slope, sign, and the range that is shown without a window."""

import numpy as np
import pytest
from dicoms import RAMP, chest, dataset, gray, lut, read
from refusals import has_facts

from ribcage.imaging import gray_image
from ribcage.imaging.dicom import robust_range


def test_monochrome1_is_inverted_after_the_window() -> None:
    plain, inverse = (
        gray(dataset(WindowCenter="1000", WindowWidth="1000", PhotometricInterpretation=kind))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert np.abs(plain + inverse - 1).max() < 1e-4
    both = dataset(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert read(both).note_texts[-1] == "inverted (MONOCHROME1)" and gray(both)[0, 0] == 1  # said twice, done once


def test_bits_that_are_not_stored_are_ignored() -> None:
    junk = RAMP | np.uint16(0xA000)
    assert np.array_equal(read(dataset(junk)).pixels, read(dataset()).pixels)
    shifted = dataset(RAMP << np.uint16(4) | np.uint16(9), HighBit=15)
    assert has_facts(read(shifted).note_texts[0], "bits 4 to 15")
    assert np.array_equal(read(shifted).pixels, read(dataset()).pixels)
    signed = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    overlaid = (signed & 0x0FFF | 0x3000).astype(np.int16)
    assert np.array_equal(read(dataset(overlaid)).pixels, read(dataset(signed)).pixels)


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_without_a_window_the_occurring_range_is_shown(bits: int) -> None:
    pixels = np.linspace(0, 2**bits - 1, 4096).astype(np.uint8 if bits == 8 else np.uint16).reshape(64, 64)
    image = read(dataset(pixels, bits), depth=8)
    assert (image.pixels.min(), image.pixels.max(), image.pixels.dtype) == (0, 255, np.uint8)
    half = read(dataset(pixels // 2 + 9, bits))
    if bits == 8:  # as it is: already meant for the eye
        assert half.pixels.max() == (255 // 2 + 9) * 257 and half.note_texts == ()
    else:
        assert (half.pixels.min(), half.pixels.max()) == (0, 65535)
        assert half.note_texts == (f"range 9 to {(2**bits - 1) // 2 + 9}",)


def test_pixels_for_processing_follow_the_physics() -> None:
    made = dataset(PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=1)
    assert gray(made)[0, 0] == 1 and read(made).note_texts[-1].startswith("inverted (")
    made.PresentationIntentType = "FOR PRESENTATION"
    assert gray(made)[0, 0] == 0


FALLING = {
    "slope": {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
    "modality LUT": {"ModalityLUTSequence": [(np.arange(4096)[::-1], 0)]},
    "VOI LUT": {"VOILUTSequence": [(np.arange(4096)[::-1], 0, 12)]},
}


@pytest.mark.parametrize("how", FALLING)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_is_of_stored_values_also_where_what_follows_reverses_them(how: str, sign: int) -> None:
    elements = {key: [lut(*value[0])] if isinstance(value, list) else value for key, value in FALLING[how].items()}
    made = dataset(PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=sign, **elements)
    assert (gray(made)[0, 0] > gray(made)[-1, -1]) == (sign > 0)  # +1: the highest stored value is air


@pytest.mark.parametrize(("photometric", "sign"), [("MONOCHROME1", -1), ("MONOCHROME2", 1)])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "90000", "WindowWidth": "10"}])
def test_a_sign_against_the_photometric_interpretation_is_never_settled_in_silence(
    photometric: str, sign: int, window: dict
) -> None:
    made = dataset(PhotometricInterpretation=photometric, PixelIntensityRelationshipSign=sign, **window)
    (caution,) = (note for note in read(made).note_texts if note.startswith(gray_image.CAUTION))
    assert has_facts(
        caution, "PixelIntensityRelationshipSign", sign, photometric, photometric if not window else "read as"
    )
    made.PixelIntensityRelationshipSign = -sign
    assert not any(note.startswith(gray_image.CAUTION) for note in read(made).note_texts)


def test_padding_is_black_and_does_not_count() -> None:
    pixels = RAMP // 4 + np.uint16(1000)
    pixels[:, :8] = 4000
    made = dataset(pixels, PixelPaddingValue=4000, PhotometricInterpretation="MONOCHROME1")
    image = read(made)
    assert image.pixels[:, :8].max() == 0
    assert image.note_texts[:2] == ("range 1002 to 2023", "inverted (MONOCHROME1)") and "padding" in image.note_texts[2]


def test_without_a_window_a_marker_does_not_squeeze_the_anatomy() -> None:
    image = read(dataset(chest(), 16), 8)
    dark, bright = np.percentile(image.pixels[20:, 10:], (10, 90))
    assert bright - dark > 150 and image.pixels[8, 115] == 255 and image.pixels[8, 0] == 0
    assert image.note_texts[0].startswith("range ") and image.note_texts[0].endswith(" of 0 to 60000")


@pytest.mark.parametrize("marker", [[60000], [60000, 59000], [60000, 59000, 58000, 57500]])
def test_letters_of_several_values_do_not_squeeze_it_either(marker: list[int]) -> None:
    pixels = chest()
    pixels[4:14, 100:124] = np.resize(marker, (10, 24))
    dark, bright = np.percentile(read(dataset(pixels, 16), 8).pixels[20:, 10:], (10, 90))
    assert bright - dark > 150


def test_the_robust_range_leaves_out_a_border_and_letters_however_large() -> None:
    values, counts = np.arange(3001), np.zeros(3001)
    counts[1000:2001] = 10
    for border, ends in (([0], (911, 2000)), ([3000], (1000, 2088)), ([0, 3000], (911, 2088))):
        with_border = counts.copy()
        with_border[border] = 20_000
        found = robust_range.robust_range(values, with_border)[:2]
        assert (
            np.abs(np.subtract(found, ends)).max() <= 2
        )  # from the 1st to the 99th percentile of the rest and a tenth


@pytest.mark.parametrize("slope", ["0", "1e300", "1e-300"])
def test_a_slope_that_leaves_no_image_is_ignored(slope: str) -> None:
    made = dataset(RescaleSlope=slope, RescaleIntercept="1e10", WindowCenter="2048", WindowWidth="4096")
    assert np.array_equal(read(made).pixels, read(dataset(WindowCenter="2048", WindowWidth="4096")).pixels)
    assert "RescaleSlope" in read(made).note_texts[0]


def test_an_intercept_that_leaves_no_image_is_named() -> None:
    assert has_facts(read(dataset(RescaleSlope="1", RescaleIntercept="1e20")).note_texts[0], "RescaleIntercept 1e+20")


@pytest.mark.parametrize(("bits", "value"), [(16, 63536), (12, 63536), (12, 2096)])
def test_negative_padding_is_found_as_it_is_written(bits: int, value: int) -> None:
    pixels = SIGNED.copy()
    pixels[:, :8] = -2000
    made = dataset(pixels, bits, WindowCenter="0", WindowWidth="4000", PhotometricInterpretation="MONOCHROME1")
    made.add_new("PixelPaddingValue", "US", value)
    image = read(made)
    assert "padding" in image.note_texts[-1] and image.pixels[:, :8].max() == 0


@pytest.mark.parametrize("padding", [65535, -2000, -32768])
@pytest.mark.parametrize("kind", ["unsigned", "sign-extended", "signed"])
def test_padding_outside_the_stored_bits_is_found(kind: str, padding: int) -> None:
    pixels = RAMP.astype(int) - (0 if kind == "unsigned" else 2048)
    pixels = pixels if kind == "sign-extended" else pixels & 0xFFF
    pixels[:, :8] = padding
    stored = (pixels & 0xFFFF).astype(np.uint16).view(np.uint16 if kind == "unsigned" else np.int16)
    made = dataset(stored, 12, PhotometricInterpretation="MONOCHROME1")
    made.add_new("PixelPaddingValue", "US", padding % 65536)
    image = read(made)
    assert image.pixels[:, :8].max() == 0 and len(np.unique(image.pixels[:, 8:])) >= 64 * 56 - 1
    assert "padding" in image.note_texts[-1] and gray_image.CAUTION not in " ".join(image.note_texts)


def test_padding_that_leaves_nothing_is_not_believed() -> None:
    plain = dataset(WindowCenter="2048", WindowWidth="4096")
    made = dataset(WindowCenter="2048", WindowWidth="4096", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert np.array_equal(read(made).pixels, read(plain).pixels) and read(made).note_texts[0].startswith(
        "caution: padding"
    )


def test_a_contradiction_of_polarity_is_noted_and_settled_by_the_physics() -> None:
    for photometric, shape in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        made = dataset(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
        assert f"PresentationLUTShape {shape} contradicts {photometric}" in " ".join(read(made).note_texts)
        for sign, first in ((1, 1), (-1, 0)):
            made.PixelIntensityRelationshipSign = sign
            assert gray(made)[0, 0] == first


@pytest.mark.parametrize(("said", "taken"), [(None, ("missing", "MONOCHROME2")), ("RGB", ("RGB",))])
def test_an_impossible_photometric_interpretation_is_noted(said: str | None, taken: tuple[str, ...]) -> None:
    assert has_facts(read(dataset(PhotometricInterpretation=said)).note_texts[0], *taken)
    assert np.array_equal(read(dataset(PhotometricInterpretation=said)).pixels, read(dataset()).pixels)
    assert gray(dataset(PhotometricInterpretation="MONOCHROME 1"))[0, 0] == 1


SIGNED = (np.add.outer(np.arange(64) * 40, np.arange(64) * 20) - 1800).astype(np.int16)
