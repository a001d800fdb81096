"""Encoded pixels: every transfer syntax, and headers and streams that disagree."""

import io
import struct

import numpy as np
import pydicom
import pytest
from dicoms import (
    RAMP,
    code_table,
    dataset,
    deep_jpeg,
    encapsulated,
    jpeg_frame,
    lossless_jpeg,
    lut,
    packed,
    read,
    refused,
    size_and_bits,
    written,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
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
from refusals import has_facts

from ribcage.imaging import gray_image, image_file
from ribcage.imaging.dicom import stored_pixels, streams

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


def test_lossless_jpeg_in_a_dicom() -> None:
    made = encapsulated(lossless_jpeg(RAMP, 12, 1), JPEGLosslessSV1, RAMP, 12)
    assert np.array_equal(read(made).pixels, read(dataset()).pixels)


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
    assert (
        found.note_texts[0].startswith(gray_image.CAUTION)
        and "12" in found.note_texts[0]
        and "16" in found.note_texts[0]
    )


def test_a_sign_that_only_the_stream_tells_is_followed() -> None:
    made = dataset(SIGNED, 12, **WINDOW)
    expected = read(made).pixels
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.PixelRepresentation = 0
    found = read(made)
    assert np.array_equal(found.pixels, expected) and "read as 12 bit signed" in found.note_texts[0]
    plain = dataset(RAMP, 12, WindowCenter="2048", WindowWidth="4096")
    expected = read(plain).pixels
    plain.compress(JPEG2000Lossless, generate_instance_uid=False)
    plain.PixelRepresentation = 1
    found = read(plain)
    assert np.array_equal(found.pixels, expected) and "read as 12 bit unsigned" in found.note_texts[0]


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
        assert read(made).note_texts == ("window 200/2600",)
    assert read(encapsulated(lossless_jpeg(RAMP, 12, 1), JPEGLosslessSV1, RAMP, 12, **WINDOW)).note_texts == (
        "window 200/2600",
    )


def test_a_stream_of_more_bits_than_its_values_need_is_read_as_the_header_says() -> None:
    made = dataset(RAMP // 4, 16, WindowCenter="500", WindowWidth="1000")
    expected = read(made).pixels
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.BitsStored, made.HighBit = 10, 9
    found = read(made)
    assert np.array_equal(found.pixels, expected)
    assert has_facts(found.note_texts[0], "JPEG 2000", "16 bit", "10 bit", "10 bit")
    assert not found.note_texts[0].startswith(gray_image.CAUTION), "nothing contradicts the pixels"
    flat = np.full((8, 8), 700, np.uint16)  # a JPEG of 12 bits cannot say that 10 were meant
    made = encapsulated(deep_jpeg(flat), JPEGExtended12Bit, flat, 10, WindowCenter="500", WindowWidth="1000")
    assert read(made).note_texts == ("window 500/1000",)


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


def test_the_bits_of_signed_numbers_are_counted_with_their_sign() -> None:
    for number, bits in ((0, 1), (-1, 1), (2047, 12), (2048, 13), (-2048, 12), (-2049, 13), (-32768, 16)):
        assert stored_pixels._signed_bits(np.array([0, number], np.int16).view(np.uint16)) == bits


@pytest.mark.parametrize("above", [1, 10, 1000])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_signed_numbers_of_more_bits_than_stored_do_not_wrap(syntax: pydicom.uid.UID, above: int) -> None:
    """Sign-extended numbers, few of which exceed the stored bits: 2500 with 12 bits is not -1596."""
    pixels = SIGNED.clip(-1024, 2047)
    pixels.flat[np.argsort(pixels, axis=None)[-above:]] = 2500
    expected = read(dataset(pixels, 16, **WINDOW)).pixels
    made = dataset(pixels, 12, **WINDOW)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    found = read(made)
    assert np.array_equal(found.pixels, expected)
    assert has_facts(found.note_texts[0], gray_image.CAUTION, "BitsStored 12", "13 bits")


@pytest.mark.parametrize("width", [12, 13])
def test_repeated_signs_above_the_stored_bits_are_a_sign_that_the_header_does_not_give(width: int) -> None:
    pixels = SIGNED + np.int16(0 if width == 12 else 1000)
    expected = read(dataset(pixels, 16, **WINDOW)).pixels
    found = read(dataset(pixels, 12, **(WINDOW | {"PixelRepresentation": 0})))
    assert np.array_equal(found.pixels, expected)
    assert has_facts(found.note_texts[0], gray_image.CAUTION, "PixelRepresentation 0", f"{width} bit signed")
    letters = RAMP // 2
    letters[2:6, 2:20] = 65535  # white, not -1
    assert "signed" not in " ".join(read(dataset(letters, 12)).note_texts)


@pytest.mark.parametrize("declared", [4, 6, 8, 10])
def test_far_too_few_stored_bits_leave_no_noise(declared: int) -> None:
    waves = np.sin(np.add.outer(np.arange(128) / 25, np.arange(128) / 20))
    noise = np.random.default_rng(0).integers(0, 500, waves.shape)
    pixels = (32000 + 30000 * waves + noise).astype(np.uint16)
    said = {"WindowCenter": "32768", "WindowWidth": "65536"}
    found = read(dataset(pixels, declared, **said))
    assert np.array_equal(found.pixels, read(dataset(pixels, 16, **said)).pixels)
    assert has_facts(found.note_texts[0], gray_image.CAUTION, f"BitsStored {declared}", "16 bits")


def test_stored_values_are_counted_from_the_lowest() -> None:
    levels = np.array([[0, 2048, 4095]], np.uint16)
    assert stored_pixels.StoredPixels(levels, 12, signed=True).pixels.tolist() == [[-2048, 0, 2047]]
    assert stored_pixels.StoredPixels(levels, 12, signed=False).pixels.tolist() == [[0, 2048, 4095]]
    assert [stored_pixels.StoredPixels(levels, 12, signed).lowest for signed in (True, False)] == [-2048, 0]


def test_an_image_torn_along_rows_is_as_rough_as_one_torn_along_columns() -> None:
    stripes = np.tile(np.array([0, 900], np.uint16), (64, 32))
    rough = [stored_pixels._roughness(stored_pixels.StoredPixels(each, 12, False)) for each in (stripes, stripes.T)]
    assert rough[0] == rough[1] == 900


def test_without_a_high_bit_the_lowest_bits_are_taken() -> None:
    found = read(dataset(HighBit=None))
    assert np.array_equal(found.pixels, read(dataset()).pixels) and found.note_texts == read(dataset()).note_texts


def test_a_sign_repeated_above_the_stored_bits_is_no_contradiction() -> None:
    pixels = SIGNED // 2
    made = dataset(pixels, 12, WindowCenter="0", WindowWidth="2048")
    expected = read(made).pixels
    frame = lossless_jpeg(pixels.view(np.uint16), 16, 1)
    image = read(encapsulated(frame, JPEGLosslessSV1, pixels, 12, WindowCenter="0", WindowWidth="2048"))
    assert np.array_equal(image.pixels, expected) and "caution" not in " ".join(image.note_texts)


def test_a_stream_of_another_kind_than_the_header_says_is_decoded_and_noted() -> None:
    made = dataset()
    expected = read(made).pixels
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = JPEGLSLossless
    found = read(made)
    assert np.array_equal(found.pixels, expected) and has_facts(found.note_texts[0], "JPEG 2000", "JPEG-LS")


def test_a_high_bit_that_contradicts_the_pixels_is_not_followed() -> None:
    expected = read(dataset(WindowCenter="2048", WindowWidth="4096")).pixels
    for high in (15, 5, 40):
        found = read(dataset(HighBit=high, WindowCenter="2048", WindowWidth="4096"))
        assert np.array_equal(found.pixels, expected) and f"HighBit {high}" in found.note_texts[0]


def test_an_overlay_in_unused_bits_is_left_out() -> None:
    over = RAMP.copy()
    over[10:20, 10:50] |= 0x8000
    made = dataset(over)
    made.add_new((0x6000, 0x0102), "US", 15)
    assert np.array_equal(read(made).pixels, read(dataset()).pixels)
    assert has_facts(read(made).note_texts[0], "overlay", "bit 11")


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"BitsStored": 17}, "17 bits (16"),
        ({"PixelRepresentation": 3}, "PixelRepresentation 3"),
        ({"Rows": 32}, "8192 bytes"),
    ],
)
def test_contradictions_that_stay_are_refused(elements: dict, told: str) -> None:
    assert told in refused(dataset(**elements))


def test_bytes_after_the_pixels_are_noted() -> None:
    made = dataset()
    made.PixelData += bytes(10)
    assert has_facts(read(made).note_texts[0], gray_image.CAUTION, "10 bytes")


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
    assert "2 compressed images" in refused(made)


def test_bits_above_the_lowest_of_a_compressed_image_are_those_that_the_header_says() -> None:
    said = {"WindowCenter": "2048", "WindowWidth": "4096"}
    made = dataset(RAMP << 4, 16, **said)
    made.compress(JPEG2000Lossless)
    made.BitsStored, made.HighBit = 12, 15
    assert np.array_equal(read(made).pixels, read(dataset(**said)).pixels)
    assert has_facts(read(made).note_texts[0], "bits 4 to 15")


def test_what_follows_the_pixels_means_nothing() -> None:
    data = written(dataset())
    for after in (b"\xff" * 100, bytes(2048), written(dataset(RAMP // 2, PatientID="other"))[132:]):
        image = image_file.decode_image(data + after, "a.dcm", depth=16)
        assert np.array_equal(image.pixels, read(dataset()).pixels) and image.tags["patient"] == ""


def test_a_kind_of_jpeg_that_is_not_read_is_not_called_damaged() -> None:
    frame = deep_jpeg(np.full((8, 8), 2000))
    made = encapsulated(frame.replace(b"\xff\xc1", b"\xff\xc2"), JPEGExtended12Bit, np.zeros((8, 8), np.uint16), 12)
    assert has_facts(refused(made), "JPEG") and "damaged" not in refused(made)
    eight = jpeg_frame(np.zeros((8, 8), np.uint8)).replace(b"\xff\xc0", b"\xff\xc9")  # arithmetic-coded
    assert "12-bit" not in refused(encapsulated(eight, JPEGBaseline8Bit, np.zeros((8, 8), np.uint8), 8))


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
    assert [has_facts(note, "colour (RGB)", "greyscale") for note in read(made, 8).note_texts] == [True]


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
    assert [has_facts(note, "colour (RGB)", "greyscale") for note in read(made, 8).note_texts] == [True]


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
    assert np.abs(read(made).pixels / 16.0 - 2000).max() <= 3 and "scan header" in read(made).note_texts[0]


def test_a_lut_for_the_declared_bits_confirms_them() -> None:
    values = np.random.default_rng(0).integers(-2048, 2048, (64, 64)).astype(np.int16)  # equally rough either way
    some = values.copy()
    some[:8] &= 0x0FFF  # in the other rows, the bits above the stored ones repeat the sign
    table = lut(np.arange(4096) * 16, -2048)
    plain, odd = (read(dataset(pixels, 12, ModalityLUTSequence=[table])) for pixels in (values, some))
    assert np.array_equal(odd.pixels, plain.pixels) and odd.note_texts[0].startswith(gray_image.CAUTION)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_declared_overlay_is_also_left_out_of_a_compressed_image(syntax: pydicom.uid.UID) -> None:
    overlaid = RAMP.copy()
    overlaid[10:20, 10:40] |= 0x1000
    made = dataset(overlaid, 16)
    made.compress(syntax, generate_instance_uid=False)
    made.BitsStored, made.HighBit = 12, 11
    made.add_new(0x60000102, "US", 12)
    assert np.array_equal(read(made).pixels, read(dataset()).pixels)


def test_signs_that_a_jpeg_ls_stream_repeats_are_signs_that_the_header_does_not_give() -> None:
    values = RAMP.astype(np.int16) - 2048
    made = dataset(values.view(np.uint16), 16)
    made.compress(JPEGLSLossless, generate_instance_uid=False)
    made.BitsStored, made.HighBit = 12, 11
    image = read(made)
    assert np.array_equal(image.pixels, read(dataset(values)).pixels) and has_facts(
        image.note_texts[0], "12 bit signed"
    )


def test_big_endian_elements_without_meta_are_read() -> None:
    made = dataset(RAMP.astype(">u2"), Modality="CR")
    made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    whole = written(made)
    assert np.array_equal(
        image_file.decode_image(whole[whole.index(b"\0\x08\0\x16UI") :], "a.dcm", depth=16).pixels,
        read(dataset()).pixels,
    )


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_in_the_reverse_order_are_put_right(bits: int, compressed: bool) -> None:
    across = np.linspace(0, np.pi, 64)
    pixels = np.rint((np.sin(across)[:, None] + np.sin(across)) * (2 ** (bits - 1) - 1)).astype(np.uint16)
    expected = read(dataset(pixels, bits))
    made = dataset(pixels.byteswap(), bits)
    if compressed:
        made = dataset(pixels.byteswap(), 16)
        made.compress(RLELossless)
        made.BitsStored, made.HighBit = bits, bits - 1
    image = read(made)
    assert np.array_equal(image.pixels, expected.pixels)
    assert any(each.startswith(gray_image.CAUTION) and "bytes" in each for each in image.note_texts)
    assert not any("bytes" in each for each in expected.note_texts)


@pytest.mark.parametrize("factor", [1, 256, 257])
def test_eight_bits_in_words_keep_their_byte_order(factor: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint16) * np.uint16(factor)
    assert not any("bytes" in each for each in read(dataset(noise, 16)).note_texts)
