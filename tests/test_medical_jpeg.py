"""Lossless and 12-bit JPEG, decoded by our own loops."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicoms import RAMP, deep_jpeg, encapsulated, lossless_jpeg, read
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEGExtended12Bit,
    JPEGLosslessSV1,
)

from ribcage.imaging import jpeg_scan, medical_jpeg
from ribcage.imaging.image_file import UnreadableError

REAL = os.environ.get("RIBCAGE_REAL_DATA")


def test_the_order_and_the_cosines_are_those_of_the_standard() -> None:
    """Also where the encoder above, which takes them from the decoder, would not notice."""
    assert jpeg_scan.ZIGZAG[:15].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]
    assert np.array_equal(jpeg_scan.ZIGZAG[::-1], 63 - jpeg_scan.ZIGZAG)
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


@pytest.mark.parametrize("blocks", [0, 3])
def test_12_bit_jpeg_is_decoded_to_its_rounding(blocks: int) -> None:
    chance = np.random.default_rng(0)
    smooth = np.clip(np.add.outer(np.arange(40) * 60, np.arange(56) * 30) + chance.normal(0, 30, (40, 56)), 0, 4095)
    pixels = smooth.astype(np.uint16)
    assert np.abs(medical_jpeg.decode_medical_jpeg(deep_jpeg(pixels, blocks)).astype(int) - pixels).max() <= 2
    made = encapsulated(deep_jpeg(pixels), JPEGExtended12Bit, pixels, 12, WindowCenter="2048", WindowWidth="4096")
    assert np.abs(read(made).pixels / 16.0 - pixels).max() <= 3


def test_codes_of_any_length_are_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)
    assert np.array_equal(medical_jpeg.decode_medical_jpeg(lossless_jpeg(pixels, 12, 1, length=14)), pixels)
    short, long = (medical_jpeg.decode_medical_jpeg(deep_jpeg(pixels, length=length)) for length in (8, 15))
    assert np.array_equal(short, long)


def test_fill_bytes_before_a_restart_are_no_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (9, 16)).astype(np.uint16)
    filled = lossless_jpeg(pixels, 12, 1, rows=3, fill=b"\xff\xff")
    assert np.array_equal(medical_jpeg.decode_medical_jpeg(filled), pixels)
    with pytest.raises(ValueError, match="restart"):
        medical_jpeg.decode_medical_jpeg(filled.replace(b"\xff\xd1", b"\xff\xd9"))


def test_a_12_bit_block_is_rounded_to_the_nearest_of_its_exact_inverse() -> None:
    """Up to the rounding of single precision."""
    pixels = np.random.default_rng(0).integers(0, 4096, (24, 40)).astype(np.uint16)
    blocks = pixels.reshape(3, 8, 5, 8).swapaxes(1, 2) - 2048.0
    coefficients = np.rint(medical_jpeg.COSINES @ blocks @ medical_jpeg.COSINES.T)
    exact = (medical_jpeg.COSINES.T @ coefficients @ medical_jpeg.COSINES + 2048).swapaxes(1, 2).reshape(24, 40)
    decoded = medical_jpeg.decode_medical_jpeg(deep_jpeg(pixels))
    assert np.abs(decoded - np.clip(exact, 0, 4095)).max() <= 0.5 + 1e-3


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real radiographs")
def test_pixels_of_a_12_bit_radiograph_do_not_change() -> None:
    dataset = dcmread(Path(REAL or "") / "dicom/RG2_JPLY_fixed.dcm")
    pixels = medical_jpeg.decode_medical_jpeg(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    assert hashlib.sha256(pixels.tobytes()).hexdigest().startswith("3a8de23f5370b572")


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
