"""Reading DICOM: the standard's pipeline, what is done is noted, and hostile files get one clear line."""

import io
import logging
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ribcage.imaging import dicom, image_file, medical_jpeg
from ribcage.imaging.dicom import gray as dicom_gray
from ribcage.imaging.dicom import place, stored_pixels, streams
from ribcage.imaging.image_file import Limits, UnreadableError

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def dataset(pixels: np.ndarray = RAMP, bits: int = 12, **elements: object) -> Dataset:
    """A chest radiograph as a scanner would write it; elements named here replace or (None) remove its own."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, "1.2.3"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = pixels.itemsize * 8, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def written(made: Dataset, **options: object) -> bytes:
    out = io.BytesIO()
    pydicom.dcmwrite(out, made, enforce_file_format=True, **options)
    return out.getvalue()


def read(made: Dataset, depth: image_file.Depth = 16) -> image_file.GrayImage:
    return image_file.decode_image(written(made), "a.dcm", depth=depth)


def gray(made: Dataset) -> np.ndarray:
    """0 … 1."""
    return read(made).pixels / 65535


def refused(made: Dataset | bytes) -> str:
    with pytest.raises(UnreadableError) as error:
        image_file.decode_image(made if isinstance(made, bytes) else written(made), "a.dcm")
    line = str(error.value)
    assert line.startswith("a.dcm") and "\n" not in line and len(line) < 300
    return line


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
    assert read(made).notes == (
        "window 500/1000 (one of 2) set aside: it would saturate the image",
        "window 22000/4096 (one of 2)",
    )
    only = read(dataset(bright, 16, WindowCenter="500", WindowWidth="1000"))
    assert only.notes == ("window 500/1000 set aside: it would saturate the image", "range 20000 to 24095")
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
    assert image.notes == ("range 1002 to 2023", "inverted (MONOCHROME1)", "padding made black")


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
    assert read(made).notes[0] == "window 32768/65536 set aside: it would use 0 % of the gray range"
    assert read(made).pixels.std() > 10000


def test_a_lut_of_fewer_bits_than_it_says_is_not_black() -> None:
    item = lut(np.arange(4096).astype(np.uint16), 0, 16)
    image = read(dataset(VOILUTSequence=[item]))
    assert np.abs(image.pixels / 65535 - RAMP / 4095).max() < 1e-4
    assert image.notes == ("VOI LUT; a LUT says 16 bits and ends at 4095: 12 bits taken",)


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
    assert dicom_gray._table(made, item, np.arange(4))[0].tolist() == expected


def test_a_lut_takes_as_many_bits_as_its_last_entry_needs() -> None:
    for last, bits in ((65535, 16), (32768, 16), (32767, 15), (20000, 15), (300, 9)):
        _, taken, notes = dicom_gray._table(dataset(), lut(np.array([0, last]), 0), np.arange(2))
        assert taken == bits and bool(notes) == (bits != 16)


def test_a_window_is_judged_by_what_lies_between_the_border_and_the_letters() -> None:
    values, counts = np.arange(5.0), np.array([1000, 10, 10, 10, 1000])
    assert dicom_gray.useless(np.array([0, 0.3, 0.5, 0.7, 1]), values, counts) == ""
    assert dicom_gray.useless(np.array([0, 0, 0, 0.5, 1]) / 255, values, counts) == "saturate the image"
    black = np.array([0, 1 / 255, 1 / 255, 254 / 255, 1])  # the first and the last gray are black and white
    assert dicom_gray.useless(black, values, counts) == "saturate the image"


def test_the_robust_range_leaves_out_a_border_and_letters_however_large() -> None:
    values, counts = np.arange(3001), np.zeros(3001)
    counts[1000:2001] = 10
    for border, ends in (([0], (911, 2000)), ([3000], (1000, 2088)), ([0, 3000], (911, 2088))):
        with_border = counts.copy()
        with_border[border] = 20_000
        found = dicom_gray.robust_range(values, with_border)[:2]
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
    assert image.notes[-1] == "padding made black" and image.pixels[:, :8].max() == 0


def test_what_enhanced_images_say_in_functional_groups_is_done() -> None:
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
    assert notes == ("caution: a functional group cannot be read and was ignored", "window 2048/4096")


def test_a_window_that_is_asked_for_of_colours_is_said_to_be_missing() -> None:
    made = dataset(np.zeros((8, 8, 3), np.uint8), 8, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert "caution: no window" in image_file.decode_image(written(made), "a", window="40,400").notes[-1]


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
def test_numbers_that_are_none_are_said_and_their_text_is_not(keyword: str, text: str) -> None:
    notes = image_file.decode_image(with_text(keyword, text), "a").notes
    assert notes[0] == f"caution: {keyword} cannot be read and was ignored" and text not in " ".join(notes)


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
    assert image_file.decode_image(data, "a", window="BONE").notes[0] == "caution: no window of the name asked for"
    with pytest.raises(ValueError, match="--window '9,0'"):
        image_file.decode_image(data, "a", window="9,0")


def test_a_contradiction_of_polarity_is_told_and_settled_by_the_physics() -> None:
    for photometric, shape in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        made = dataset(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
        assert f"PresentationLUTShape {shape} contradicts {photometric}" in " ".join(read(made).notes)
        for sign, first in ((1, 1), (-1, 0)):
            made.PixelIntensityRelationshipSign = sign
            assert gray(made)[0, 0] == first


@pytest.mark.parametrize(("said", "taken"), [(None, "missing, MONOCHROME2"), ("RGB", "RGB with 1 sample")])
def test_a_photometric_interpretation_that_cannot_be_is_told(said: str | None, taken: str) -> None:
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
    assert plain.notes[-1] == f"outside of the {shape.lower()} shutter made black"
    white = read(dataset(pixels, 16, ShutterShape=shape, ShutterPresentationValue=65535, **SHUTTERS[shape]))
    assert white.pixels[:8].min() == 65535


def test_a_shutter_that_makes_no_sense_is_not_applied_and_that_is_said() -> None:
    for elements in ({"ShutterShape": "RECTANGULAR"}, {"ShutterShape": "CIRCULAR", "RadiusOfCircularShutter": 1}):
        image = read(dataset(**elements))
        assert np.array_equal(image.pixels, read(dataset()).pixels) and "was not applied" in " ".join(image.notes)


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"PatientOrientation": ["R", "F"]}, "mirrored (PatientOrientation R/F)"),
        ({"PatientOrientation": ["R", "H"]}, "upside down (PatientOrientation R/H)"),
        ({"PatientOrientation": ["L", "H"]}, "upside down and mirrored (PatientOrientation L/H)"),
        ({"PatientOrientation": ["F", "R"]}, "turned by 90 degrees (PatientOrientation F/R)"),
        ({"PixelSpacing": ["0.2", "0.1"]}, "pixels are not square (PixelSpacing): 2 times as high as wide"),
        ({"PixelAspectRatio": ["2", "1"]}, "pixels are not square (PixelAspectRatio)"),
        ({"BurnedInAnnotation": "YES"}, "burned into the pixels"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "not meant for the eye"),
    ],
)
def test_what_is_not_done_to_an_image_is_said(elements: dict, told: str) -> None:
    notes = read(dataset(**elements)).notes
    assert any(note.startswith(image_file.CAUTION) and told in note for note in notes)
    assert not any("Orientation" in note for note in read(dataset(PatientOrientation=["RX", "F"])).notes)
    upright = {"PatientOrientation": ["L", "F"], "PixelSpacing": ["0.143", "0.143"], "BurnedInAnnotation": "NO"}
    assert not any(note.startswith(image_file.CAUTION) for note in read(dataset(**upright)).notes)


# -- Transfer syntaxes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
)
def test_every_lossless_syntax_gives_the_same_pixels(syntax: pydicom.uid.UID) -> None:
    made = dataset(WindowCenter="2000", WindowWidth="3000")
    expected = read(made).pixels
    if syntax == ExplicitVRBigEndian:
        made.PixelData = RAMP.astype(">u2").tobytes()
    if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        made.compress(syntax, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(read(made).pixels, expected)
    assert read(made).tags["transfer_syntax"] == syntax


def test_a_file_without_preamble_and_meta_is_read() -> None:
    made = dataset()
    out = io.BytesIO()
    bare = Dataset({element.tag: element for element in made})
    pydicom.dcmwrite(out, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert np.array_equal(image_file.decode_image(out.getvalue(), "a").pixels, read(made, 8).pixels)


def jpeg_frame(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


def encapsulated(frame: bytes, syntax: pydicom.uid.UID, pixels: np.ndarray, bits: int, **elements: object) -> Dataset:
    made = dataset(pixels, bits, **elements)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def test_a_plain_jpeg_is_decoded_reduced_and_a_windowed_one_is_not() -> None:
    smooth = np.add.outer(np.arange(512) // 4, np.arange(640) // 5).astype(np.uint8)
    plain = encapsulated(
        jpeg_frame(smooth, quality=95), JPEGBaseline8Bit, smooth, 8, PhotometricInterpretation="MONOCHROME1"
    )
    small = image_file.decode_image(written(plain), "a", min_side=64)
    assert small.pixels.shape == (64, 80) and (small.width, small.height) == (640, 512)
    full = image_file.decode_image(written(plain), "a")
    assert np.abs(full.pixels.astype(int) - (255 - smooth)).max() <= 3
    square = [image_file.fit(p.pixels, 64, "squash", of=(640, 512))[0].astype(int) for p in (small, full)]
    assert np.abs(square[0] - square[1]).max() <= 2
    plain.WindowCenter, plain.WindowWidth = "128", "100"
    assert image_file.decode_image(written(plain), "a", min_side=64).pixels.shape == (512, 640)


def code_table(kind: int, symbols: list[int], length: int) -> bytes:
    """A DHT segment in which every symbol has a code of the same length: its place."""
    body = bytes([kind << 4]) + bytes(len(symbols) * (n == length) for n in range(1, 17)) + bytes(symbols)
    return b"\xff\xc4" + struct.pack(">H", len(body) + 2) + body


def size_and_bits(value: int) -> tuple[int, str]:
    size = abs(value).bit_length()
    return size, f"{value + (1 << size) - 1 if value < 0 else value:0{size}b}" if size else ""


def packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00") if bits else b""


def coded(
    kind: int,
    pixels: np.ndarray,
    bits: int,
    tables: bytes,
    scan: tuple[int, int, int],
    parts: list[bytes],
    interval: int,
) -> bytes:
    height, width = pixels.shape
    frame = struct.pack(">BBHBHHBBBB", 0xFF, kind, 11, bits, height, width, 1, 1, 0x11, 0)
    restart = struct.pack(">HHH", 0xFFDD, 4, interval) if interval else b""
    header = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, *scan)
    body = b"".join(part + bytes([0xFF, 0xD0 + k % 8]) for k, part in enumerate(parts[:-1])) + parts[-1]
    return b"\xff\xd8" + frame + tables + restart + header + body + b"\xff\xd9"


def lossless_jpeg(pixels: np.ndarray, bits: int, predictor: int, rows: int = 0, shift: int = 0) -> bytes:
    """T.81 annex H, with a restart after so many rows."""
    rows, parts = rows or len(pixels), []
    for top in range(0, len(pixels), rows):
        said, part = "", pixels[top : top + rows].astype(int) >> shift
        for (y, x), value in np.ndenumerate(part):
            a, b = (part[y, x - 1] if x else 0), (part[y - 1, x] if y else 0)
            c = part[y - 1, x - 1] if x and y else 0
            inner = (a, b, c, a + b - c, a + (b - c >> 1), b + (a - c >> 1), a + b >> 1)[predictor - 1]
            expected = (a if x else 1 << bits - shift - 1) if y == 0 else (b if x == 0 else inner)
            difference = (int(value - expected) + 32768) % 65536 - 32768
            size, more = (16, "") if difference == -32768 else size_and_bits(difference)
            said += f"{size:05b}{more}"
        parts.append(packed(said))
    interval = rows * pixels.shape[1] if len(parts) > 1 else 0
    return coded(0xC3, pixels, bits, code_table(0, list(range(17)), 5), (predictor, 0, shift), parts, interval)


def deep_jpeg(pixels: np.ndarray, blocks_per_part: int = 0) -> bytes:
    """T.81 extended sequential with 12 bits and steps of 1."""
    symbols = [0, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 15))]
    across, down = pixels.shape[1] // 8, pixels.shape[0] // 8
    blocks = pixels.reshape(down, 8, across, 8).swapaxes(1, 2).reshape(-1, 8, 8) - 2048.0
    count, parts = blocks_per_part or len(blocks), []
    for start in range(0, len(blocks), count):
        said, before = "", 0
        for block in blocks[start : start + count]:
            values = (
                np.rint(medical_jpeg.COSINES @ block @ medical_jpeg.COSINES.T)
                .astype(int)
                .ravel()[medical_jpeg.ZIGZAG]
                .tolist()
            )
            size, more = size_and_bits(values[0] - before)
            said, before, run = said + f"{size:05b}{more}", values[0], 0
            for value in values[1:]:
                run += value == 0
                if value:
                    while run > 15:
                        said, run = said + f"{symbols.index(0xF0):08b}", run - 16
                    size, more = size_and_bits(value)
                    said, run = said + f"{symbols.index(run << 4 | size):08b}{more}", 0
            said += f"{0:08b}" if run else ""
        parts.append(packed(said))
    tables = b"\xff\xdb\0\x43\0" + bytes([1] * 64) + code_table(0, list(range(16)), 5) + code_table(1, symbols, 8)
    return coded(0xC1, pixels, 12, tables, (0, 63, 0), parts, count if len(parts) > 1 else 0)


def test_the_order_and_the_cosines_are_those_of_the_standard() -> None:
    """Also where the encoder above, which takes them from the decoder, would not notice."""
    assert medical_jpeg.ZIGZAG[:15].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]
    assert np.array_equal(medical_jpeg.ZIGZAG[::-1], 63 - medical_jpeg.ZIGZAG)
    block = np.random.default_rng(0).normal(size=(8, 8))
    assert np.allclose(medical_jpeg.COSINES.T @ block @ medical_jpeg.COSINES, cv2.idct(block))


def test_black_and_white_of_12_bits_are_exact() -> None:
    for value in (0, 4095):
        assert (medical_jpeg.decode_medical_jpeg(deep_jpeg(np.full((16, 8), value, np.uint16))) == value).all()


def test_coded_pixels_that_end_too_early_are_refused() -> None:
    chance = np.random.default_rng(5).integers(0, 4096, (16, 16)).astype(np.uint16)
    for good in (lossless_jpeg(chance, 12, 1), deep_jpeg(chance)):
        assert medical_jpeg.decode_medical_jpeg(good).shape == (16, 16)
        with pytest.raises(ValueError, match="coded pixels"):
            medical_jpeg.decode_medical_jpeg(good[:-5] + good[-2:])


def test_compiled_loops_stay_within_their_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As plain Python, which would say so: compiled, they would read what lies beside."""
    monkeypatch.setattr(medical_jpeg, "compiled", lambda loop: loop)
    pixels = (RAMP[:8, :8] * 7).astype(np.uint16)
    assert not medical_jpeg.decode_medical_jpeg(deep_jpeg(np.zeros((8, 8), np.uint16))).any()
    for good, away in ((lossless_jpeg(pixels, 12, 4), 0), (deep_jpeg(pixels), 2)):
        assert np.abs(medical_jpeg.decode_medical_jpeg(good).astype(int) - pixels).max() <= away
        for cut in (3, 12):
            with pytest.raises(ValueError, match="coded pixels"):
                medical_jpeg.decode_medical_jpeg(good[:-cut])


def test_only_seven_predictors_exist() -> None:
    for predictor in (0, 8):
        good = lossless_jpeg(RAMP[:8, :8], 12, 1)
        bad = good.replace(bytes((1, 1, 0, 1, 0, 0)), bytes((1, 1, 0, predictor, 0, 0)))
        assert medical_jpeg.is_medical_jpeg(good) and bad != good and not medical_jpeg.is_medical_jpeg(bad)


@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_gives_back_every_pixel(predictor: int) -> None:
    chance = np.random.default_rng(predictor)
    for bits, rows in ((12, 0), (16, 0), (16, 5), (8, 7)):
        pixels = chance.integers(0, 1 << bits, (23, 17)).astype(np.uint16)
        assert np.array_equal(medical_jpeg.decode_medical_jpeg(lossless_jpeg(pixels, bits, predictor, rows)), pixels)
    shifted = medical_jpeg.decode_medical_jpeg(lossless_jpeg(pixels, 8, predictor, 0, shift=2))
    assert np.array_equal(shifted, pixels >> 2 << 2)


def test_lossless_jpeg_in_a_dicom() -> None:
    made = encapsulated(lossless_jpeg(RAMP, 12, 1), JPEGLosslessSV1, RAMP, 12)
    assert np.array_equal(read(made).pixels, read(dataset()).pixels)


@pytest.mark.parametrize("blocks", [0, 3])
def test_12_bit_jpeg_is_decoded_to_its_rounding(blocks: int) -> None:
    chance = np.random.default_rng(0)
    smooth = np.clip(np.add.outer(np.arange(40) * 60, np.arange(56) * 30) + chance.normal(0, 30, (40, 56)), 0, 4095)
    pixels = smooth.astype(np.uint16)
    assert np.abs(medical_jpeg.decode_medical_jpeg(deep_jpeg(pixels, blocks)).astype(int) - pixels).max() <= 2
    made = encapsulated(deep_jpeg(pixels), JPEGExtended12Bit, pixels, 12, WindowCenter="2048", WindowWidth="4096")
    assert np.abs(read(made).pixels / 16.0 - pixels).max() <= 3


def test_our_own_jpeg_decoder_survives_any_bytes() -> None:
    chance = np.random.default_rng(1)
    for good in (lossless_jpeg(RAMP[:16, :16], 12, 4, 4), deep_jpeg(RAMP[:16, :16])):
        for _ in range(400):
            bad = np.frombuffer(good, np.uint8).copy()
            places = chance.integers(2, len(bad), chance.integers(1, 6))
            bad[places] = chance.integers(0, 256, len(places))
            made = encapsulated(bad.tobytes(), JPEGLosslessSV1, RAMP[:16, :16], 12)
            try:
                assert read(made).pixels.shape == (16, 16)
            except UnreadableError as error:
                assert "\n" not in str(error)


# -- A header and a stream that disagree ------------------------------------------------------------------------------

DEEP = (np.add.outer(np.arange(64) * 700, np.arange(64) * 300) + 500).astype(np.uint16)
SIGNED = (np.add.outer(np.arange(64) * 40, np.arange(64) * 20) - 1800).astype(np.int16)
WINDOW = {"WindowCenter": "200", "WindowWidth": "2600"}


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, ExplicitVRLittleEndian, RLELossless])
def test_more_bits_than_the_header_says_are_read_and_noted(syntax: pydicom.uid.UID) -> None:
    made = dataset(DEEP, 16, WindowCenter="32768", WindowWidth="65536")
    expected = read(made).pixels
    if syntax != ExplicitVRLittleEndian:
        made.compress(syntax, generate_instance_uid=False)
    made.BitsStored, made.HighBit = 12, 11
    found = read(made)
    assert np.array_equal(found.pixels, expected)
    assert found.notes[0].startswith(image_file.CAUTION) and "12" in found.notes[0] and "16" in found.notes[0]


def test_a_sign_that_only_the_stream_tells_is_followed() -> None:
    made = dataset(SIGNED, 12, **WINDOW)
    expected = read(made).pixels
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.PixelRepresentation = 0
    found = read(made)
    assert np.array_equal(found.pixels, expected) and "read as 12 bit signed" in found.notes[0]
    plain = dataset(RAMP, 12, WindowCenter="2048", WindowWidth="4096")
    expected = read(plain).pixels
    plain.compress(JPEG2000Lossless, generate_instance_uid=False)
    plain.PixelRepresentation = 1
    found = read(plain)
    assert np.array_equal(found.pixels, expected) and "read as 12 bit unsigned" in found.notes[0]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_negative_values_that_were_coded_as_large_ones_are_read_as_negative(syntax: pydicom.uid.UID) -> None:
    """As some writers do; told by neighbours that would otherwise be torn apart where values change their sign."""
    expected = read(dataset(SIGNED, 12, **WINDOW)).pixels
    made = dataset((SIGNED & 0xFFF).astype(np.uint16), 12, **WINDOW)
    made.compress(syntax, generate_instance_uid=False)
    made.PixelRepresentation = 1
    assert np.array_equal(read(made).pixels, expected)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_a_stream_that_agrees_with_its_header_needs_no_note(syntax: pydicom.uid.UID) -> None:
    for pixels in (RAMP, SIGNED) if syntax == JPEG2000Lossless else (RAMP,):
        made = dataset(pixels, 12, **WINDOW)
        made.compress(syntax, generate_instance_uid=False)
        assert read(made).notes == ("window 200/2600",)
    assert read(encapsulated(lossless_jpeg(RAMP, 12, 1), JPEGLosslessSV1, RAMP, 12, **WINDOW)).notes == (
        "window 200/2600",
    )


def test_a_stream_of_more_bits_than_its_values_need_is_read_as_the_header_says() -> None:
    made = dataset(RAMP // 4, 16, WindowCenter="500", WindowWidth="1000")
    expected = read(made).pixels
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.BitsStored, made.HighBit = 10, 9
    found = read(made)
    assert np.array_equal(found.pixels, expected)
    told = "the JPEG 2000 stream holds 16 bit unsigned, the header says 10 bit unsigned; read as 10 bit unsigned"
    assert found.notes[0] == told, "no caution: nothing contradicts the pixels"
    flat = np.full((8, 8), 700, np.uint16)  # a JPEG of 12 bits cannot say that 10 were meant
    made = encapsulated(deep_jpeg(flat), JPEGExtended12Bit, flat, 10, WindowCenter="500", WindowWidth="1000")
    assert read(made).notes == ("window 500/1000",)


def test_what_fits_into_bits_is_told_by_its_ends() -> None:
    for bits, signed, low, high in (
        (12, False, 0, 4095),
        (12, True, -2048, 2047),
        (1, False, 0, 1),
        (8, True, -128, 127),
    ):
        assert stored_pixels._within(np.array([low, high]), bits, signed)
        assert not stored_pixels._within(np.array([low - 1, high]), bits, signed)
        assert not stored_pixels._within(np.array([low, high + 1]), bits, signed)


def test_a_sign_is_extended_only_if_it_is_in_every_pixel() -> None:
    extended = np.array([0x0001, 0x07FF, 0xF800, 0x0800], np.uint16)
    assert stored_pixels._extends(extended, 12)
    assert not stored_pixels._extends(np.append(extended, np.uint16(0x3001)), 12)
    assert not stored_pixels._extends(np.append(extended, np.uint16(0xF001)), 12)


def test_stored_values_are_counted_from_the_lowest() -> None:
    levels = np.array([[0, 2048, 4095]], np.uint16)
    assert stored_pixels.StoredPixels(levels, 12, signed=True).pixels.tolist() == [[-2048, 0, 2047]]
    assert stored_pixels.StoredPixels(levels, 12, signed=False).pixels.tolist() == [[0, 2048, 4095]]
    assert stored_pixels.StoredPixels(levels, 12, signed=True).values[[0, -1]].tolist() == [-2048, 2047]


def test_an_image_torn_along_rows_is_as_rough_as_one_torn_along_columns() -> None:
    stripes = np.tile(np.array([0, 900], np.uint16), (64, 32))
    rough = [stored_pixels._roughness(stored_pixels.StoredPixels(each, 12, False)) for each in (stripes, stripes.T)]
    assert rough[0] == rough[1] == 900


def test_without_a_high_bit_the_lowest_bits_are_taken() -> None:
    found = read(dataset(HighBit=None))
    assert np.array_equal(found.pixels, read(dataset()).pixels) and found.notes == read(dataset()).notes


def test_a_sign_repeated_above_the_stored_bits_is_no_contradiction() -> None:
    pixels = SIGNED // 2
    made = dataset(pixels, 12, WindowCenter="0", WindowWidth="2048")
    expected = read(made).pixels
    frame = lossless_jpeg(pixels.view(np.uint16), 16, 1)
    image = read(encapsulated(frame, JPEGLosslessSV1, pixels, 12, WindowCenter="0", WindowWidth="2048"))
    assert np.array_equal(image.pixels, expected) and "caution" not in " ".join(image.notes)


def test_a_stream_of_another_kind_than_the_header_says_is_decoded_and_noted() -> None:
    made = dataset()
    expected = read(made).pixels
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = JPEGLSLossless
    found = read(made)
    assert np.array_equal(found.pixels, expected) and "JPEG 2000 stream where the header says JPEG-LS" in found.notes[0]


def test_a_high_bit_that_contradicts_the_pixels_is_not_followed() -> None:
    expected = read(dataset(WindowCenter="2048", WindowWidth="4096")).pixels
    for high in (15, 5, 40):
        found = read(dataset(HighBit=high, WindowCenter="2048", WindowWidth="4096"))
        assert np.array_equal(found.pixels, expected) and f"HighBit {high}" in found.notes[0]


def test_an_overlay_in_unused_bits_is_left_out() -> None:
    over = RAMP.copy()
    over[10:20, 10:50] |= 0x8000
    made = dataset(over)
    made.add_new((0x6000, 0x0102), "US", 15)
    assert np.array_equal(read(made).pixels, read(dataset()).pixels)
    assert read(made).notes[0] == "an overlay above bit 11 left out"


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"BitsStored": 17}, "1 x 17 bits in 16"),
        ({"PixelRepresentation": 3}, "PixelRepresentation 3"),
        ({"Rows": 32}, "8192 bytes of pixels"),
    ],
)
def test_contradictions_that_stay_are_refused(elements: dict, told: str) -> None:
    assert told in refused(dataset(**elements))


def test_bytes_after_the_pixels_are_noted() -> None:
    made = dataset()
    made.PixelData += bytes(10)
    assert read(made).notes[0] == f"{image_file.CAUTION}10 bytes after the pixels left out"


def test_pixels_that_are_compressed_against_the_header_are_refused() -> None:
    made = encapsulated(bytes(9000), JPEGBaseline8Bit, RAMP, 12)
    assert "stream of JPEG Baseline" in refused(made)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert "encapsulated" in refused(made)


SMOOTH = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)


def items(*parts: bytes) -> bytes:
    """Encapsulated pixels of these items, the first of which is the offset table."""
    whole = [part + bytes(len(part) % 2) for part in parts]
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part for part in whole)


def test_one_image_is_found_whatever_the_offset_table_says() -> None:
    frame = jpeg_frame(SMOOTH)
    made = encapsulated(frame, JPEGBaseline8Bit, SMOOTH, 8)
    expected = read(made).pixels
    for parts in (
        (b"\x64\0\0\0", frame),
        (frame,),
        (b"", b"", frame[:500], frame[500:]),
        (bytes(8), frame + bytes(900)),
    ):
        made.PixelData = items(*parts)
        assert np.array_equal(read(made).pixels, expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_second_compressed_image_is_not_left_out_in_silence(syntax: pydicom.uid.UID) -> None:
    made = dataset(SMOOTH, 8)
    if syntax == JPEGBaseline8Bit:
        made = encapsulated(jpeg_frame(SMOOTH), syntax, SMOOTH, 8)
    else:
        made.compress(syntax)
    frame = next(pydicom.encaps.generate_frames(made.PixelData, number_of_frames=1))
    made.PixelData = items(b"", frame, frame)
    assert "holds 2 compressed images" in refused(made)


def test_bits_above_the_lowest_of_a_compressed_image_are_those_that_the_header_says() -> None:
    said = {"WindowCenter": "2048", "WindowWidth": "4096"}
    made = dataset(RAMP << 4, 16, **said)
    made.compress(JPEG2000Lossless)
    made.BitsStored, made.HighBit = 12, 15
    assert np.array_equal(read(made).pixels, read(dataset(**said)).pixels)
    assert read(made).notes[0] == "pixels taken from bits 4 to 15"


def test_what_follows_the_pixels_means_nothing() -> None:
    data = written(dataset())
    for after in (b"\xff" * 100, bytes(2048), written(dataset(RAMP // 2, PatientID="other"))[132:]):
        image = image_file.decode_image(data + after, "a.dcm", depth=16)
        assert np.array_equal(image.pixels, read(dataset()).pixels) and image.tags["patient"] == ""


def test_a_kind_of_jpeg_that_is_not_read_is_not_called_damaged() -> None:
    frame = deep_jpeg(np.full((8, 8), 2000))
    made = encapsulated(frame.replace(b"\xff\xc1", b"\xff\xc2"), JPEGExtended12Bit, np.zeros((8, 8), np.uint16), 12)
    assert "cannot be read" in refused(made) and "damaged" not in refused(made)


def test_colours_in_lossless_jpeg_are_made_gray() -> None:
    chance = np.random.default_rng(3)
    colours = chance.integers(0, 256, (16, 16, 3)).astype(np.uint8)
    made = encapsulated(
        lossless_jpeg_colours(colours),
        JPEGLosslessSV1,
        colours,
        8,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
    )
    assert np.abs(read(made, 8).pixels - colours @ [0.299, 0.587, 0.114]).max() <= 0.6
    assert read(made, 8).notes == ("colour (RGB) made gray",)


def lossless_jpeg_colours(pixels: np.ndarray) -> bytes:
    """T.81 annex H, three components in one scan, each predicted from the left."""
    said, wide = "", pixels.astype(int)
    for y, x, c in np.ndindex(wide.shape):
        expected = wide[y, x - 1, c] if x else wide[y - 1, x, c] if y else 128
        size, more = size_and_bits(int(wide[y, x, c] - expected))
        said += f"{size:05b}{more}"
    height, width, _ = pixels.shape
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC3, 17, 8, height, width, 3) + b"".join(
        bytes((c, 0x11, 0)) for c in (1, 2, 3)
    )
    header = struct.pack(">HHB", 0xFFDA, 12, 3) + bytes((1, 0, 2, 0, 3, 0, 1, 0, 0))
    return b"\xff\xd8" + frame + code_table(0, list(range(17)), 5) + header + packed(said) + b"\xff\xd9"


def test_the_colours_of_a_jpeg_without_a_word_are_those_of_the_header() -> None:
    """Components that are red, green and blue, which a decoder by itself takes for luminance and two differences."""
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[...] = (200, 40, 90)
    frame = jpeg_frame(colours, quality=95, subsampling=0, keep_rgb=True)
    adobe = frame.index(b"\xff\xee")
    bare = frame[:adobe] + frame[adobe + 16 :]
    for at in (
        bare.index(b"\xff\xc0") + 10,
        bare.index(b"\xff\xda") + 5,
    ):  # components called R, G, B in frame and scan
        step = 3 if at < bare.index(b"\xff\xda") else 2
        for k in range(3):
            bare = bare[: at + k * step] + bytes((k + 1,)) + bare[at + k * step + 1 :]
    made = encapsulated(bare, JPEGBaseline8Bit, colours, 8, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert np.abs(read(made, 8).pixels - 0.299 * 200 - 0.587 * 40 - 0.114 * 90).max() <= 3
    assert read(made, 8).notes == ("colour (RGB) made gray",)


def without(frame: bytes, marker: bytes) -> bytes:
    """A JPEG without its first segment of this kind."""
    at = frame.index(marker)
    return frame[:at] + frame[at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big") :]


def test_a_jpeg_says_itself_what_its_colours_are_if_it_can() -> None:
    chance = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    jfif, adobe = jpeg_frame(chance, subsampling=0), jpeg_frame(chance, keep_rgb=True)
    bare, halved = without(jfif, b"\xff\xe0"), without(jpeg_frame(chance, subsampling=2), b"\xff\xe0")
    extended = bare.replace(b"\xff\xc0", b"\xff\xc1", 1)
    told = [streams.describe_stream(each) for each in (jfif, adobe, bare, halved, extended)]
    assert [one and one.rgb for one in told] == [True, True, None, True, None]
    assert [one and one.kind for one in told] == ["JPEG"] * 5


def test_a_jpeg_without_a_word_whose_header_says_luminance_is_not_taken_for_red() -> None:
    colours = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    bare = without(jpeg_frame(colours, quality=95, subsampling=0), b"\xff\xe0")
    made = encapsulated(bare, JPEGBaseline8Bit, colours, 8, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)
    assert np.abs(read(made, 8).pixels - 0.299 * 200 - 0.587 * 40 - 0.114 * 90).max() <= 3


def test_an_empty_scan_header_of_a_sequential_jpeg_is_no_obstacle() -> None:
    pixels = np.full((16, 16), 2000, np.uint16)
    good = deep_jpeg(pixels)
    bad = good.replace(bytes((1, 1, 0, 0, 63, 0)), bytes((1, 1, 0, 0, 0, 0)))
    assert bad != good
    made = encapsulated(bad, JPEGExtended12Bit, pixels, 12, WindowCenter="2048", WindowWidth="4096")
    assert np.abs(read(made).pixels / 16.0 - 2000).max() <= 3 and "scan header" in read(made).notes[0]


# -- What is refused --------------------------------------------------------------------------------------------------


def test_several_frames_are_refused_with_their_number() -> None:
    pixels = np.zeros((30, 8, 8), np.uint8)
    made = dataset(pixels[0], 8, NumberOfFrames=30)
    made.PixelData = pixels.tobytes()
    assert "30 frames; one image is expected" in refused(made)


def test_a_dicom_without_a_image_says_what_it_is() -> None:
    made = dataset(PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    assert refused(made) == "a.dcm has no pixels (its kind is Encapsulated PDF Storage)."


def test_absurd_sizes_are_refused_before_anything_is_allocated() -> None:
    assert "65535 x 65535 pixels; the limit is" in refused(dataset(Rows=65535, Columns=65535))
    large = encapsulated(jpeg_frame(np.zeros((600, 600), np.uint8)), JPEGBaseline8Bit, np.zeros((8, 8), np.uint8), 8)
    assert "its compressed image" in refused(large)


def test_a_deflated_bomb_is_refused() -> None:
    data = written(dataset(np.zeros((2000, 2000), np.uint16)))
    made = dataset(np.zeros((2000, 2000), np.uint16))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    small = written(made)
    assert len(small) < len(data) / 100
    with pytest.raises(UnreadableError, match="inflates to more than the limit of 1 MB"):
        image_file.decode_image(small, "a.dcm", limits=Limits(max_bytes=1e6))


@pytest.mark.parametrize("elements", [{"Rows": None}, {"BitsAllocated": None}, {"Columns": 0}])
def test_missing_elements_are_named(elements: dict) -> None:
    assert f"it has no {next(iter(elements))}" in refused(dataset(**elements))


def test_other_than_8_to_16_bits_are_refused() -> None:
    assert "32 bits in 32" in refused(dataset(RAMP.astype(np.uint32), 32))


def test_cut_pixels_are_refused() -> None:
    data = written(dataset())
    for length in (len(data) - 1, len(data) - 4000, 400, 140):
        refused(data[:length])
    frame = jpeg_frame(RAMP.astype(np.uint8))
    assert "truncated" in refused(encapsulated(frame[: len(frame) // 2], JPEGBaseline8Bit, RAMP.astype(np.uint8), 8))


def test_a_retired_syntax_and_an_unknown_one_are_named() -> None:
    made = encapsulated(b"\xff\xd8\xff\xd9", pydicom.uid.UID("1.2.840.10008.1.2.4.55"), RAMP, 12)
    assert "JPEG Full Progression" in (line := refused(made)) and "retired" in line
    video = encapsulated(b"\xff\xd8\xff\xd9", pydicom.uid.MPEG2MPML, RAMP, 12)
    assert "MPEG2 Main Profile" in (line := refused(video)) and "cannot be read" in line


def test_a_missing_decoder_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset()
    made.compress(JPEGLSLossless, generate_instance_uid=False)
    data = written(made)
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    told = refused(data)
    assert "JPEG-LS Lossless Image Compression (1.2.840.10008.1.2.4.80). To read it: pip install pyjpegls" in told


def test_mutated_files_only_ever_raise_unreadable() -> None:
    chance = np.random.default_rng(2)
    compressed = dataset()
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    for good in (written(dataset(WindowCenter="9", WindowWidth="9")), written(compressed)):
        for _ in range(150):
            bad = np.frombuffer(good, np.uint8).copy()
            places = chance.integers(130, 700, chance.integers(1, 8))
            bad[places] = chance.integers(0, 256, len(places))
            try:
                assert image_file.decode_image(bad.tobytes(), "a").pixels.ndim == 2
            except UnreadableError as error:
                assert "\n" not in str(error)


# -- Tags -------------------------------------------------------------------------------------------------------------


def test_tags_are_those_of_the_index() -> None:
    made = dataset(
        PatientID="P 7",
        StudyInstanceUID="1.2.9",
        SeriesInstanceUID="1.2.9.1",
        ViewPosition="LL",
        PatientSex="F",
        PatientAge="045Y",
        Manufacturer="Acme",
        Modality="DX",
        BodyPartExamined="CHEST",
    )
    assert read(made).tags == {
        "patient": "P 7",
        "study": "1.2.9",
        "series": "1.2.9.1",
        "view": "LATERAL",
        "sex": "F",
        "age": "45",
        "manufacturer": "Acme",
        "modality": "DX",
        "body": "CHEST",
        "transfer_syntax": ExplicitVRLittleEndian,
    }


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "010M"}, "0.8333"),
        ({"PatientAge": "62"}, "62"),
        ({"PatientAge": "412Y"}, ""),
        ({"PatientBirthDate": "19400305", "StudyDate": "20040304"}, "63"),
        ({"PatientBirthDate": "19400305", "StudyDate": "20040305"}, "64"),
        ({"PatientAge": "", "PatientBirthDate": ""}, ""),
        ({"PatientBirthDate": "20040304", "StudyDate": "20040304"}, ""),
        ({"PatientBirthDate": "19000101", "StudyDate": "20040304"}, ""),
        ({"PatientBirthDate": "19400305"}, ""),
        ({"StudyDate": "20040304"}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore:.*PatientAge|.*value representation|Invalid value")
def test_age_is_in_years(elements: dict, age: str) -> None:
    assert read(dataset(**elements)).tags["age"] == age


def test_views_are_recognised_also_by_their_code() -> None:
    views = {"PA": "PA", "AP": "AP", "RL": "LATERAL", "LLD": "", "": ""}
    views |= {"AP ERECT": "AP", "XTABLE LATERAL": "LATERAL", "PA LLD": "", "AP AXIAL": "", "PA LATERAL": ""}
    for said, view in views.items():
        assert read(dataset(ViewPosition=said)).tags["view"] == view
    code = Dataset()
    code.CodeMeaning = "postero-anterior"
    assert read(dataset(ViewCodeSequence=[code])).tags["view"] == "PA"
    assert read(dataset(ViewCodeSequence=[code], ViewPosition="LPO")).tags["view"] == ""


def test_a_name_in_other_letters_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "胸部 X 光.png"  # nor is a wrong ending
    file.write_bytes(written(dataset()))
    assert image_file.read_image(file).pixels.shape == (64, 64)


def test_what_libraries_find_odd_is_not_printed() -> None:
    """Python prints the warnings of a logger that nobody listens to."""
    log = logging.getLogger("pydicom")
    before, log.handlers = log.handlers, []
    try:
        for _ in range(2):
            dicom._quieten()
            assert [type(one) for one in log.handlers] == [logging.NullHandler]
    finally:
        log.handlers = before


def test_recognises_dicom_only() -> None:
    assert dicom.is_dicom(written(dataset()))
    for other in (b"", b"hello, world", b"\x08\x00", zlib.compress(b"x"), bytes(200)):
        assert not dicom.is_dicom(other)


# -- Real files -------------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("RIBCAGE_REAL_DATA") or "/nowhere") / "dicom"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="RIBCAGE_REAL_DATA names no folder with real DICOM files")


@needs_real
def test_ten_lossless_syntaxes_agree_lossy_ones_nearly_and_retired_ones_are_named() -> None:
    expected = image_file.read_image(REAL / "syntaxes/CTImage.dcm", depth=16).pixels
    same, far, told = 0, [], []
    for file in sorted((REAL / "syntaxes").iterdir()):
        try:
            difference = np.abs(image_file.read_image(file, depth=16).pixels.astype(int) - expected)
            same += difference.max() == 0
            far.append(difference.mean())
        except UnreadableError as error:
            told.append(str(error))
    assert same == 10 and len(far) == 14 and max(far) < 65535 * 0.02
    assert [line.count("retired") for line in told] == [1, 1]


@needs_real
def test_an_inverted_twin_is_read_as_the_exact_negative() -> None:
    twin = image_file.read_image(next(REAL.glob("1.2.276*"))).pixels  # the same stored pixels, labelled MONOCHROME2
    assert np.array_equal(image_file.read_image(REAL / "Fake_MONOHR1.dcm").pixels, 255 - twin)


@needs_real
def test_known_odd_files() -> None:
    odd = image_file.read_image(REAL / "JPEG2KLossless_1s_1f_u_16_16.dcm")
    assert odd.notes[0] == "window 2725/5310 set aside: it would saturate the image" and odd.pixels.std() > 20
    assert odd.notes[1].startswith("range 32744 to 47410.9 of")  # its letters reach 65535
    fixed, twin = (
        image_file.read_image(REAL / name).pixels.astype(int) for name in ("RG2_JPLY_fixed.dcm", "RG2_JLSN.dcm")
    )
    broken = image_file.read_image(
        REAL / "RG2_JPLY.dcm"
    )  # its scan header is empty, which is all that is wrong with it
    assert np.array_equal(broken.pixels, fixed) and "scan header" in broken.notes[0]
    assert image_file.read_image(REAL / "JPEGLosslessP14SV1_1s_1f_u_16_16.dcm").notes[0] == "empty modality LUT ignored"
    assert np.abs(fixed - twin).mean() < 2  # one radiograph, compressed by two lossy methods
    assert image_file.read_image(REAL / "vlut_04.dcm").notes == ("VOI LUT",)


# ---- the header alone


def test_tags_are_those_of_the_image_whatever_the_pixels_are(tmp_path: Path) -> None:
    made = dataset(PatientID="病人 7", PatientSex="F", PatientAge="051Y", ViewPosition="PA", StudyInstanceUID="1.2.9")
    made.SpecificCharacterSet = "ISO_IR 192"
    file = tmp_path / "胸片 x"
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    assert image_file.read_tags(file) == image_file.read_image(file).tags
    assert image_file.read_tags(file)["patient"] == "病人 7" and image_file.read_tags(file)["age"] == "51"
    file.write_bytes(file.read_bytes()[:-5000])  # half of the pixels are gone
    with pytest.raises(UnreadableError):
        image_file.read_image(file)
    assert image_file.read_tags(file)["patient"] == "病人 7"


def test_tags_of_a_deflated_file_are_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    made = dataset(PatientID="P7")
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file = tmp_path / "a.dcm"
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    assert image_file.read_tags(file)["patient"] == "P7"
    assert image_file.read_tags(file, limits=Limits(max_bytes=4000)) == {}


@pytest.mark.parametrize(
    "content", [b"", b"DICM", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\x02\x00" * 50, b"\x89PNG"]
)
def test_tags_of_what_is_no_dicom_are_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.dcm"
    file.write_bytes(content)
    assert not any(value for name, value in image_file.read_tags(file).items() if name != "transfer_syntax")
    assert image_file.read_tags(tmp_path / "gone.dcm") == {} == image_file.read_tags(tmp_path)
