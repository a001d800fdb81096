"""From stored values to gray: windows, tables, polarity, padding, shutters, colours."""

import struct

import numpy as np
import pydicom
import pytest
from dicoms import RAMP, dataset, read, written
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)
from refusals import has_facts

from ribcage.imaging import image_file
from ribcage.imaging.dicom import gray as dicom_gray
from ribcage.imaging.dicom import modality, place, robust_range, value_of_interest


def gray(made: Dataset) -> np.ndarray:
    """0 … 1."""
    return read(made).pixels / 65535


def lut(entries: np.ndarray, first: int, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first % 65536, bits])
    item.add_new("LUTData", "US", entries.tolist())
    item.ModalityLUTType = "US"
    return item


# -- The pipeline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_follows_the_equations_of_the_standard(function: str) -> None:
    made = dataset(
        WindowCenter="2000.5", WindowWidth="1500", VOILUTFunction=function, RescaleSlope="2", RescaleIntercept="-1000"
    )
    x = RAMP * 2.0 - 1000
    if function == "LINEAR":
        expected = np.where(x <= 2000 - 749.5, 0, np.where(x > 2000 + 749.5, 1, (x - 2000) / 1499 + 0.5))
    elif function == "LINEAR_EXACT":
        expected = np.clip((x - 2000.5) / 1500 + 0.5, 0, 1)
    else:
        expected = 1 / (1 + np.exp(-4 * (x - 2000.5) / 1500))
    assert np.abs(gray(made) - expected).max() <= 0.5 / 65535 + 1e-9
    assert read(made).notes == (f"window 2000.5/1500{'' if function == 'LINEAR' else ' ' + function}",)


def test_windows_and_tables_agree_with_pydicom() -> None:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    table = (np.arange(3000) ** 1.5 / 3).astype(np.uint16)
    signed = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    for made in (
        dataset(WindowCenter=["700", "9"], WindowWidth=["900", "9"], RescaleSlope="0.5", RescaleIntercept="-20"),
        dataset(signed, RescaleSlope="1", RescaleIntercept="0", WindowCenter="-300", WindowWidth="2000"),
        dataset(ModalityLUTSequence=[lut(table, 500)], WindowCenter="20000", WindowWidth="30000"),
        dataset(VOILUTSequence=[lut(table, 1000)], WindowCenter="1", WindowWidth="1"),
    ):
        stored = np.frombuffer(made.PixelData, "<i2" if made.PixelRepresentation else "<u2").reshape(64, 64)
        theirs = apply_voi_lut(apply_modality_lut(stored, made), made).astype(float)
        ours = gray(made)
        scale = np.polyfit(theirs.ravel(), ours.ravel(), 1)
        assert np.abs(np.polyval(scale, theirs) - ours).max() < 2e-4 and scale[0] > 0


def test_a_signed_voi_table_starts_below_zero() -> None:
    signed = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    item = lut((np.arange(4096) * 16).astype(np.uint16), -2048)
    assert np.abs(gray(dataset(signed, VOILUTSequence=[item])) - RAMP * 16 / 65535).max() < 2e-5


def test_monochrome1_is_inverted_after_the_window() -> None:
    plain, inverse = (
        gray(dataset(WindowCenter="1000", WindowWidth="1000", PhotometricInterpretation=kind))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert np.abs(plain + inverse - 1).max() < 1e-4
    both = dataset(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert read(both).notes[-1] == "inverted (MONOCHROME1)" and gray(both)[0, 0] == 1  # said twice, done once


def test_bits_that_are_not_stored_are_ignored() -> None:
    junk = RAMP | np.uint16(0xA000)
    assert np.array_equal(read(dataset(junk)).pixels, read(dataset()).pixels)
    shifted = dataset(RAMP << np.uint16(4) | np.uint16(9), HighBit=15)
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
        assert half.pixels.max() == (255 // 2 + 9) * 257 and half.notes == ()
    else:
        assert (half.pixels.min(), half.pixels.max()) == (0, 65535)
        assert half.notes == (f"range 9 to {(2**bits - 1) // 2 + 9}",)


def test_a_window_that_would_saturate_is_set_aside_and_noted() -> None:
    bright = RAMP + np.uint16(20000)
    made = dataset(bright, 16, WindowCenter=["500", "22000"], WindowWidth=["1000", "4096"])
    first, second = read(made).notes
    assert has_facts(first, "window 500/1000 (one of 2)", "saturate") and second == "window 22000/4096 (one of 2)"
    only = read(dataset(bright, 16, WindowCenter="500", WindowWidth="1000"))
    assert has_facts(only.notes[0], "window 500/1000", "saturate") and only.notes[1:] == ("range 20000 to 24095",)
    assert len(np.unique(only.pixels)) == 4096


def test_a_narrow_window_that_shows_the_middle_is_kept() -> None:
    image = np.full((64, 64), 100, np.uint16)
    image[16:48, 16:48] = np.arange(1024).reshape(32, 32) % 200 + 1000
    image[0, 0] = 4000
    assert read(dataset(image, WindowCenter="1100", WindowWidth="220")).notes == ("window 1100/220",)


def test_pixels_for_processing_follow_the_physics() -> None:
    made = dataset(PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=1)
    assert gray(made)[0, 0] == 1 and read(made).notes[-1].startswith("inverted (")
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
    (caution,) = (note for note in read(made).notes if note.startswith(dicom_gray.CAUTION))
    followed = photometric if not window else "sign"
    assert photometric in caution and followed in caution.split(",")[-1]
    made.PixelIntensityRelationshipSign = -sign
    assert not any(note.startswith(dicom_gray.CAUTION) for note in read(made).notes)


def test_padding_is_black_and_does_not_count() -> None:
    pixels = RAMP // 4 + np.uint16(1000)
    pixels[:, :8] = 4000
    made = dataset(pixels, PixelPaddingValue=4000, PhotometricInterpretation="MONOCHROME1")
    image = read(made)
    assert image.pixels[:, :8].max() == 0
    assert image.notes[:2] == ("range 1002 to 2023", "inverted (MONOCHROME1)") and "padding" in image.notes[2]


@pytest.mark.parametrize(
    ("photometric", "note"),
    [
        ("RGB", "colour (RGB) made gray"),
        ("YBR_FULL", "colour (YBR_FULL) made gray"),
        ("PALETTE COLOR", "colour (PALETTE COLOR) made gray"),
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
    assert note in image.notes


# -- Headers that need judgement ----------------------------------------------------------------------------------------


def chest() -> np.ndarray:
    """A smooth anatomy between 1000 and 3000 with a burned-in marker and a black border."""
    made = 1000 + 1000 * (1 + np.sin(np.add.outer(np.arange(128) / 20, np.arange(128) / 15)))
    made[:, :10] = 0
    made[4:14, 110:124] = 60000
    return made.astype(np.uint16)


def test_without_a_window_a_marker_does_not_squeeze_the_anatomy() -> None:
    image = read(dataset(chest(), 16), 8)
    dark, bright = np.percentile(image.pixels[20:, 10:], (10, 90))
    assert bright - dark > 150 and image.pixels[8, 115] == 255 and image.pixels[8, 0] == 0
    assert image.notes[0].startswith("range ") and image.notes[0].endswith(" of 0 to 60000")


@pytest.mark.parametrize("marker", [[60000], [60000, 59000], [60000, 59000, 58000, 57500]])
def test_letters_of_several_values_do_not_squeeze_it_either(marker: list[int]) -> None:
    pixels = chest()
    pixels[4:14, 100:124] = np.resize(marker, (10, 24))
    dark, bright = np.percentile(read(dataset(pixels, 16), 8).pixels[20:, 10:], (10, 90))
    assert bright - dark > 150


def test_a_window_that_uses_next_to_nothing_of_the_gray_range_is_set_aside() -> None:
    made = dataset(chest() // 10, 16, WindowCenter="32768", WindowWidth="65536")
    assert has_facts(read(made).notes[0], "window 32768/65536", "0 %")
    assert read(made).pixels.std() > 10000


def test_a_lut_of_fewer_bits_than_it_says_is_not_black() -> None:
    item = lut(np.arange(4096).astype(np.uint16), 0, 16)
    image = read(dataset(VOILUTSequence=[item]))
    assert np.abs(image.pixels / 65535 - RAMP / 4095).max() < 1e-4
    assert len(image.notes) == 1 and has_facts(image.notes[0], "VOI LUT", "16 bits", 4095, "12 bits")


def test_empty_and_short_tables_are_no_obstacle() -> None:
    expected = read(dataset(WindowCenter="2048", WindowWidth="4096")).pixels
    made = dataset(WindowCenter="2048", WindowWidth="4096", ModalityLUTSequence=[Dataset()], VOILUTSequence=[Dataset()])
    assert np.array_equal(read(made).pixels, expected)
    assert read(made).notes[:2] == ("empty modality LUT ignored", "empty VOI LUT ignored")
    short = lut(np.arange(3000).astype(np.uint16) * 16, 0)
    short.LUTDescriptor = [4096, 0, 16]
    assert "3000 of its 4096 entries" in read(dataset(VOILUTSequence=[short])).notes[0]


@pytest.mark.parametrize(
    ("data", "order", "expected"),
    [
        (struct.pack("<4H", 1, 2, 3, 300), ExplicitVRLittleEndian, [1, 2, 3, 300]),
        (struct.pack("<4H", 1, 2, 3, 300) + b"\0", ExplicitVRLittleEndian, [1, 2, 3, 300]),
        (struct.pack(">4H", 1, 2, 3, 300), ExplicitVRBigEndian, [1, 2, 3, 300]),
        (bytes((1, 2, 3, 200)), ExplicitVRLittleEndian, [1, 2, 3, 200]),
    ],
)
def test_entries_of_a_table_may_be_written_as_words_or_as_bytes(
    data: bytes, order: pydicom.uid.UID, expected: list[int]
) -> None:
    made, item = dataset(), Dataset()
    made.file_meta.TransferSyntaxUID = order
    item.LUTDescriptor, item.LUTData = [4, 0, 16], data
    assert modality.lookup_table(made, item, np.arange(4))[0].tolist() == expected


def test_a_lut_takes_as_many_bits_as_its_last_entry_needs() -> None:
    for last, bits in ((65535, 16), (32768, 16), (32767, 15), (20000, 15), (300, 9)):
        _, taken, notes = modality.lookup_table(dataset(), lut(np.array([0, last]), 0), np.arange(2))
        assert taken == bits and bool(notes) == (bits != 16)


def test_a_window_is_judged_by_what_lies_between_the_border_and_the_letters() -> None:
    values, counts = np.arange(5.0), np.array([1000, 10, 10, 10, 1000])
    assert value_of_interest.useless(np.array([0, 0.3, 0.5, 0.7, 1]), values, counts) == ""
    assert value_of_interest.useless(np.array([0, 0, 0, 0.5, 1]) / 255, values, counts).startswith("saturate")
    black = np.array([0, 1 / 255, 1 / 255, 254 / 255, 1])  # the first and the last gray are black and white
    assert value_of_interest.useless(black, values, counts).startswith("saturate")


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
    assert "RescaleSlope" in read(made).notes[0]


@pytest.mark.parametrize(("bits", "value"), [(16, 63536), (12, 63536), (12, 2096)])
def test_negative_padding_is_found_as_it_is_written(bits: int, value: int) -> None:
    pixels = SIGNED.copy()
    pixels[:, :8] = -2000
    made = dataset(pixels, bits, WindowCenter="0", WindowWidth="4000", PhotometricInterpretation="MONOCHROME1")
    made.add_new("PixelPaddingValue", "US", value)
    image = read(made)
    assert "padding" in image.notes[-1] and image.pixels[:, :8].max() == 0


def test_functional_groups_of_enhanced_images_are_applied() -> None:
    """Supplement 83: one frame, whose rescaling and window stand in sequences and not beside the pixels."""
    said = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "3000", "WindowWidth": "5000"}
    expected = read(dataset(**said))
    parts = {"PixelValueTransformationSequence": Dataset(), "FrameVOILUTSequence": Dataset()}
    for keyword, value in said.items():
        setattr(
            parts["PixelValueTransformationSequence" if "Rescale" in keyword else "FrameVOILUTSequence"], keyword, value
        )
    group = Dataset()
    for keyword, item in parts.items():
        setattr(group, keyword, [item])
    for where in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        made = read(dataset(NumberOfFrames=1, **{where: [group]}))
        assert np.array_equal(made.pixels, expected.pixels) and made.notes == expected.notes


def test_a_functional_group_that_cannot_be_read_does_not_spoil_the_image() -> None:
    group, macro = Dataset(), Dataset()
    group.add_new(0x00189303, "LO", "abc ")
    macro.WindowCenter, macro.WindowWidth = "2048", "4096"
    group.FrameVOILUTSequence = [macro]
    data = written(dataset(SharedFunctionalGroupsSequence=[group])).replace(b"\x18\0\x03\x93LO", b"\x18\0\x03\x93FD")
    notes = image_file.decode_image(data, "a").notes
    assert has_facts(notes[0], "caution: ", "functional group", "ignored") and notes[1:] == ("window 2048/4096",)


def test_a_window_asked_for_of_colour_images_is_reported_missing() -> None:
    made = dataset(np.zeros((8, 8, 3), np.uint8), 8, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    note = image_file.decode_image(written(made), "a", window="40,400").notes[-1]
    assert note.startswith(image_file.CAUTION) and "window" in note


def test_padding_that_leaves_nothing_is_not_believed() -> None:
    plain = dataset(WindowCenter="2048", WindowWidth="4096")
    made = dataset(WindowCenter="2048", WindowWidth="4096", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert np.array_equal(read(made).pixels, read(plain).pixels) and read(made).notes[0].startswith("caution: padding")


def with_text(keyword: str, text: str, **elements: object) -> bytes:
    """A file in which an element of numbers holds this text."""
    tag, made = pydicom.datadict.tag_for_keyword(keyword), dataset(**elements)
    made.add_new(tag, "LO", text)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    return written(made).replace(start + b"LO", start + pydicom.datadict.dictionary_VR(tag).encode())


@pytest.mark.parametrize(
    ("keyword", "text"), [("RescaleSlope", "two"), ("WindowCenter", "1e999"), ("NumberOfFrames", "abc")]
)
def test_values_that_are_no_numbers_are_reported_without_their_text(keyword: str, text: str) -> None:
    notes = image_file.decode_image(with_text(keyword, text), "a").notes
    assert has_facts(notes[0], "caution: ", keyword, "ignored") and text not in " ".join(notes)


def test_one_window_that_is_none_does_not_shift_the_others() -> None:
    data = with_text("WindowCenter", "none\\2048", WindowWidth=["100", "4096"])
    assert image_file.decode_image(data, "a").notes[-1] == "window 2048/4096 (one of 2)"
    assert image_file.decode_image(with_text("WindowCenter", "2048,5", WindowWidth="4096"), "a").notes == (
        "window 2048.5/4096",
    )


def test_luts_are_read_however_their_numbers_are_written() -> None:
    entries = np.linspace(0, 65535, 4096).astype(np.uint16)
    expected = read(dataset(VOILUTSequence=[lut(entries, 0)])).pixels
    above = lut(entries, 40000)
    above["LUTDescriptor"] = pydicom.DataElement("LUTDescriptor", "SS", [4096, 40000 - 65536, 16])
    assert np.array_equal(read(dataset(RAMP + np.uint16(40000), 16, VOILUTSequence=[above])).pixels, expected)
    packed = lut(entries, 0, 8)
    packed.LUTData = (entries >> 8).astype(np.uint8).view("<u2").tolist()
    image = read(dataset(VOILUTSequence=[packed]))
    assert image.notes == ("VOI LUT",) and np.abs(image.pixels / 65535 - expected / 65535).max() < 1 / 255


def test_a_palette_of_bytes_in_words_is_not_black() -> None:
    made = dataset((RAMP >> 4).astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", np.arange(256).astype("<u2").tobytes())
    image = read(made, 8)
    assert np.array_equal(image.pixels, RAMP >> 4) and "8 bits taken" in image.notes[0]


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


def test_of_several_windows_the_normal_one_is_taken_or_the_one_asked_for() -> None:
    made = dataset(
        WindowCenter=["1000", "2000", "3000"],
        WindowWidth=["1500", "2500", "1500"],
        WindowCenterWidthExplanation=["SOFT", "NORMAL", "LUNG"],
    )
    assert read(made).notes == ("window 2000/2500 (NORMAL, one of 3)",)
    data = written(made)
    for asked, note in (("lung", "window 3000/1500 (LUNG, one of 3)"), ("900,1200", "window 900/1200 as asked for")):
        assert image_file.decode_image(data, "a", window=asked).notes == (note,)
    note = image_file.decode_image(data, "a", window="BONE").notes[0]
    assert note.startswith(image_file.CAUTION) and "window" in note
    with pytest.raises(ValueError, match="--window '9,0'"):
        image_file.decode_image(data, "a", window="9,0")


def test_a_contradiction_of_polarity_is_noted_and_settled_by_the_physics() -> None:
    for photometric, shape in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        made = dataset(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
        assert f"PresentationLUTShape {shape} contradicts {photometric}" in " ".join(read(made).notes)
        for sign, first in ((1, 1), (-1, 0)):
            made.PixelIntensityRelationshipSign = sign
            assert gray(made)[0, 0] == first


@pytest.mark.parametrize(("said", "taken"), [(None, "missing, MONOCHROME2"), ("RGB", "RGB with 1 sample")])
def test_an_impossible_photometric_interpretation_is_noted(said: str | None, taken: str) -> None:
    assert taken in read(dataset(PhotometricInterpretation=said)).notes[0]
    assert np.array_equal(read(dataset(PhotometricInterpretation=said)).pixels, read(dataset()).pixels)
    assert gray(dataset(PhotometricInterpretation="MONOCHROME 1"))[0, 0] == 1


SHUTTERS = {
    "RECTANGULAR": {
        "ShutterLeftVerticalEdge": 11, "ShutterRightVerticalEdge": 50, "ShutterUpperHorizontalEdge": 11,
        "ShutterLowerHorizontalEdge": 50,
    },
    "CIRCULAR": {"CenterOfCircularShutter": [31, 31], "RadiusOfCircularShutter": 20},
    "POLYGONAL": {"VerticesOfThePolygonalShutter": [11, 11, 11, 50, 50, 50, 50, 11]},
}  # fmt: skip


def test_a_circular_shutter_is_a_circle_also_of_pixels_that_are_not_square() -> None:
    made = dataset(ShutterShape="CIRCULAR", CenterOfCircularShutter=[20, 33], RadiusOfCircularShutter=15)
    for tall in (1, 2):
        made.PixelAspectRatio = [str(tall), "1"]
        open_, _, _ = place.shutter(made, 64, 48)
        expected = [
            [((row - 20) * tall) ** 2 + (column - 33) ** 2 <= 15**2 for column in range(1, 65)] for row in range(1, 49)
        ]
        assert np.array_equal(open_, expected)


@pytest.mark.parametrize(("side", "applied"), [(16, True), (14, False)])
def test_a_shutter_that_leaves_less_than_a_twentieth_is_not_believed(side: int, applied: bool) -> None:
    made = dataset(
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=1,
        ShutterRightVerticalEdge=side,
        ShutterUpperHorizontalEdge=1,
        ShutterLowerHorizontalEdge=side,
    )
    open_, _, notes = place.shutter(made, 64, 64)
    assert (open_ is not None) == applied and ("not applied" in notes[-1]) != applied


def test_a_shutter_is_at_most_white() -> None:
    made = dataset(ShutterShape="CIRCULAR", **SHUTTERS["CIRCULAR"])
    made.add_new("ShutterPresentationValue", "UL", 100_000)
    assert place.shutter(made, 64, 64)[1] == 1.0


@pytest.mark.parametrize("shape", SHUTTERS)
def test_what_a_shutter_covers_is_black_and_does_not_count(shape: str) -> None:
    pixels = RAMP // 4 + np.uint16(1000)
    covered = pixels.copy()
    covered[:8] = 60000
    covered[30, 30] = pixels[30, 30]
    plain, shut = (read(dataset(each, 16, ShutterShape=shape, **SHUTTERS[shape])) for each in (pixels, covered))
    assert np.array_equal(plain.pixels, shut.pixels) and plain.notes == shut.notes
    assert plain.pixels[:8].max() == 0 < plain.pixels[30, 30]
    assert has_facts(plain.notes[-1], f"{shape.lower()} shutter")
    white = read(dataset(pixels, 16, ShutterShape=shape, ShutterPresentationValue=65535, **SHUTTERS[shape]))
    assert white.pixels[:8].min() == 65535


def test_a_shutter_that_makes_no_sense_is_not_applied_and_noted() -> None:
    for elements in ({"ShutterShape": "RECTANGULAR"}, {"ShutterShape": "CIRCULAR", "RadiusOfCircularShutter": 1}):
        image = read(dataset(**elements))
        assert np.array_equal(image.pixels, read(dataset()).pixels) and has_facts(
            " ".join(image.notes), "shutter", "not applied"
        )


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"PatientOrientation": ["R", "F"]}, ("mirrored", "PatientOrientation R/F")),
        ({"PatientOrientation": ["R", "H"]}, ("upside down", "PatientOrientation R/H")),
        ({"PatientOrientation": ["L", "H"]}, ("mirrored", "PatientOrientation L/H")),
        ({"PatientOrientation": ["F", "R"]}, ("90 degrees", "PatientOrientation F/R")),
        ({"PixelSpacing": ["0.2", "0.1"]}, ("PixelSpacing", "2 times")),
        ({"PixelAspectRatio": ["2", "1"]}, ("not square", "PixelAspectRatio")),
        ({"BurnedInAnnotation": "YES"}, ("burned",)),
        ({"PresentationIntentType": "FOR PROCESSING"}, ("eye",)),
    ],
)
def test_what_is_not_corrected_in_an_image_is_noted(elements: dict, told: tuple[str, ...]) -> None:
    notes = read(dataset(**elements)).notes
    assert any(note.startswith(image_file.CAUTION) and has_facts(note, *told) for note in notes)
    assert not any("Orientation" in note for note in read(dataset(PatientOrientation=["RX", "F"])).notes)
    upright = {"PatientOrientation": ["L", "F"], "PixelSpacing": ["0.143", "0.143"], "BurnedInAnnotation": "NO"}
    assert not any(note.startswith(image_file.CAUTION) for note in read(dataset(**upright)).notes)


SIGNED = (np.add.outer(np.arange(64) * 40, np.arange(64) * 20) - 1800).astype(np.int16)
