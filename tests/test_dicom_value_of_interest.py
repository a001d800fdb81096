"""VOI LUT and windows: the equations of the standard, and windows or tables that would spoil the image."""

import struct

import numpy as np
import pydicom
import pytest
from dicoms import RAMP, chest, dataset, gray, lut, read, with_text, written
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
)
from refusals import has_facts

from ribcage.bundle.ood.warnings import image_warnings
from ribcage.imaging import gray_image, image_file
from ribcage.imaging.dicom import modality, value_of_interest


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
    assert read(made).note_texts == (f"window 2000.5/1500{'' if function == 'LINEAR' else ' ' + function}",)


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


def test_a_window_that_would_saturate_is_set_aside_and_noted() -> None:
    bright = RAMP + np.uint16(20000)
    made = dataset(bright, 16, WindowCenter=["500", "22000"], WindowWidth=["1000", "4096"])
    first, second = read(made).note_texts
    assert has_facts(first, "window 500/1000 (one of 2)", "saturate") and second == "window 22000/4096 (one of 2)"
    only = read(dataset(bright, 16, WindowCenter="500", WindowWidth="1000"))
    assert has_facts(only.note_texts[0], "window 500/1000", "saturate") and only.note_texts[1:] == (
        "range 20000 to 24095",
    )
    assert len(np.unique(only.pixels)) == 4096


def test_a_narrow_window_that_shows_the_middle_is_kept() -> None:
    image = np.full((64, 64), 100, np.uint16)
    image[16:48, 16:48] = np.arange(1024).reshape(32, 32) % 200 + 1000
    image[0, 0] = 4000
    assert read(dataset(image, WindowCenter="1100", WindowWidth="220")).note_texts == ("window 1100/220",)


def test_a_window_that_uses_next_to_nothing_of_the_gray_range_is_set_aside() -> None:
    made = dataset(chest() // 10, 16, WindowCenter="32768", WindowWidth="65536")
    assert has_facts(read(made).note_texts[0], "window 32768/65536", "0 %")
    assert read(made).pixels.std() > 10000


def test_a_lut_of_fewer_bits_than_it_says_is_not_black() -> None:
    item = lut(np.arange(4096).astype(np.uint16), 0, 16)
    image = read(dataset(VOILUTSequence=[item]))
    assert np.abs(image.pixels / 65535 - RAMP / 4095).max() < 1e-4
    assert len(image.note_texts) == 1 and has_facts(image.note_texts[0], "VOI LUT", "16 bits", 4095, "12 bits")


def test_empty_and_short_tables_are_no_obstacle() -> None:
    expected = read(dataset(WindowCenter="2048", WindowWidth="4096")).pixels
    made = dataset(WindowCenter="2048", WindowWidth="4096", ModalityLUTSequence=[Dataset()], VOILUTSequence=[Dataset()])
    assert np.array_equal(read(made).pixels, expected)
    assert has_facts(read(made).note_texts[0], "modality LUT") and has_facts(read(made).note_texts[1], "VOI LUT")
    short = lut(np.arange(3000).astype(np.uint16) * 16, 0)
    short.LUTDescriptor = [4096, 0, 16]
    assert "3000 of its 4096 entries" in read(dataset(VOILUTSequence=[short])).note_texts[0]


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


def test_one_window_that_is_none_does_not_shift_the_others() -> None:
    data = with_text("WindowCenter", "none\\2048", WindowWidth=["100", "4096"])
    assert image_file.decode_image(data, "a").note_texts[-1] == "window 2048/4096 (one of 2)"
    assert image_file.decode_image(with_text("WindowCenter", "2048,5", WindowWidth="4096"), "a").note_texts == (
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
    assert image.note_texts == ("VOI LUT",) and np.abs(image.pixels / 65535 - expected / 65535).max() < 1 / 255


def test_of_several_windows_the_normal_one_is_taken_or_the_one_asked_for() -> None:
    made = dataset(
        WindowCenter=["1000", "2000", "3000"],
        WindowWidth=["1500", "2500", "1500"],
        WindowCenterWidthExplanation=["SOFT", "NORMAL", "LUNG"],
    )
    assert read(made).note_texts == ("window 2000/2500 (NORMAL, one of 3)",)
    data = written(made)
    for asked, note in (("lung", "window 3000/1500 (LUNG, one of 3)"), ("900,1200", "window 900/1200")):
        assert [has_facts(one, note) for one in image_file.decode_image(data, "a", window=asked).note_texts] == [True]
    note = image_file.decode_image(data, "a", window="BONE").note_texts[0]
    assert note.startswith(gray_image.CAUTION) and "window" in note
    with pytest.raises(ValueError, match="--window '9,0'"):
        image_file.decode_image(data, "a", window="9,0")


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("missing", [1, 1000])
def test_words_of_a_short_lut_are_not_read_as_bytes(bits: int, missing: int) -> None:
    entries = np.arange(4096).astype("<u2") << (bits - 12)
    item = lut(entries, 0, bits)
    item["LUTData"] = pydicom.DataElement("LUTData", "OW", entries[:-missing].tobytes())
    image = read(dataset(VOILUTSequence=[item]))
    expected = np.minimum(RAMP, 4095 - missing) * (65535 / (4095 if bits == 12 else 65535 >> 4))
    assert np.abs(image.pixels - expected).max() <= 20
    (said,) = image_warnings(None, image.pixels, image.tags, image.notes)  # it is listed among the warnings
    assert has_facts(said, "LUT", 4096 - missing, 4096)


@pytest.mark.parametrize("first", [33000, 65536 - 1024])
def test_a_large_first_value_is_negative_only_if_the_lut_then_covers_the_pixels(first: int) -> None:
    pixels = RAMP + np.uint16(33000 if first == 33000 else 0)
    made = dataset(
        pixels, 16, RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=[lut(RAMP.ravel() * 16, first)]
    )
    expected = (np.maximum(RAMP, 1024) - 1024 if first == 33000 else RAMP) * 16
    assert np.abs(read(made).pixels - expected).max() <= 1


def test_a_window_without_a_value_is_named_by_its_place() -> None:
    data = with_text("WindowCenter", "\\2048", WindowWidth=["100", "4096"])
    first, second = image_file.decode_image(data, "a").note_texts
    assert has_facts(first, "window 1 of 2", "missing") and second == "window 2048/4096 (one of 2)"


def test_a_window_of_an_invalid_width_does_not_change_the_polarity_of_the_one_that_is_applied() -> None:
    """The sign is followed only where no window of the file is applied."""
    elements = {"PhotometricInterpretation": "MONOCHROME2", "PixelIntensityRelationshipSign": 1}
    good = dataset(WindowCenter="2048", WindowWidth="4096", **elements)
    two = dataset(WindowCenter=["2048", "9"], WindowWidth=["4096", "0"], **elements)
    assert np.array_equal(read(good).pixels, read(two).pixels)


@pytest.mark.parametrize(("bits", "as_words"), [(12, True), (16, True), (16, False)])
def test_half_of_the_bytes_of_a_lut_are_words_unless_the_bytes_are_smooth(bits: int, as_words: bool) -> None:
    curve = np.sqrt(np.linspace(0, 1, 4096))
    top = (1 << bits) - 1 if as_words else 255
    entries = np.rint(curve * top).astype("<u2" if as_words else "u1")
    item = lut(np.arange(4096), 0, bits)
    item["LUTData"] = pydicom.DataElement("LUTData", "OW", entries[: 2048 if as_words else None].tobytes())
    image = read(dataset(VOILUTSequence=[item]))
    expected = entries[np.minimum(RAMP, 2047) if as_words else RAMP] / top * 65535
    assert np.abs(image.pixels - expected).max() <= 1
