"""Reading image files: one gray array, or one line about the fault."""

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from refusals import has_facts

from ribcage.imaging import gray_image, image_file
from ribcage.imaging.image_file import Limits, UnreadableError

WIDTH, HEIGHT = 80, 60
GRAY = (np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH)) % 256).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A name that not every library can open on every system."""
    place = tmp_path / "胸部 X 光"
    place.mkdir()
    return place


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_gray_image_comes_back_pixel_by_pixel(folder: Path, kind: str) -> None:
    file = folder / "name without an ending"
    file.write_bytes(encoded(GRAY, kind))
    image = image_file.read_image(file)
    assert np.array_equal(image.pixels, GRAY)
    assert (image.width, image.height, image.tags) == (WIDTH, HEIGHT, {})
    assert [note for note in image.note_texts if "palette" not in note] == []  # a BMP has no other gray


def test_the_type_follows_from_the_content_not_the_name(folder: Path) -> None:
    file = folder / "photo.jpg"
    file.write_bytes(encoded(GRAY, "PNG"))
    assert np.array_equal(image_file.read_image(file).pixels, GRAY)


@pytest.mark.parametrize(("mode", "note"), [("RGB", "RGB "), ("RGBA", "RGBA "), ("P", "palette")])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_hidden_in_colour_is_noted_and_exact(mode: str, note: str, kind: str) -> None:
    if (mode, kind) == ("RGBA", "TIFF"):
        note = "RGB "
    image = image_file.decode_image(encoded(Image.fromarray(GRAY).convert(mode), kind), "a")
    assert np.array_equal(image.pixels, GRAY)
    alpha = [True] if (mode, kind) == ("RGBA", "TIFF") else []
    assert image.note_texts[0].startswith(note) and ["alpha channel" in one for one in image.note_texts[1:]] == alpha


def test_colour_becomes_gray_and_is_noted() -> None:
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        image = image_file.decode_image(encoded(red, kind), "a")
        assert image.pixels.mean() == pytest.approx(76, abs=1)
        assert len(image.note_texts) == 1 and has_facts(image.note_texts[0], "colour (RGB)", "greyscale")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_span_the_whole_range(bits: int) -> None:
    row = b"\0" + bytes([0b00011011] * 4)
    pixels = image_file.decode_image(png(32 // bits, 3, bits, 0, row * 3), "a").pixels
    expected = [int(f"{0b00011011:08b}" * 4, 2) >> (32 - bits * (k + 1)) & (2**bits - 1) for k in range(32 // bits)]
    assert pixels[0].tolist() == [value * 255 // (2**bits - 1) for value in expected]


def test_transparent_parts_become_black() -> None:
    image = image_file.decode_image(
        encoded(np.dstack([GRAY, np.where(GRAY > 99, 255, 0).astype(np.uint8)]), "PNG"), "a"
    )
    assert np.array_equal(image.pixels, np.where(GRAY > 99, GRAY, 0))
    assert any("transparent" in note for note in image.note_texts)


def test_16_bits_keep_their_values_or_are_scaled_to_8() -> None:
    deep = GRAY.astype(np.uint16) * 257 + 3
    data = cv2.imencode(".png", deep)[1].tobytes()
    assert np.array_equal(image_file.decode_image(data, "a", depth=16).pixels, deep)
    image = image_file.decode_image(data, "a")
    assert np.array_equal(image.pixels, np.rint(deep / 257).astype(np.uint8))
    assert len(image.note_texts) == 1 and has_facts(image.note_texts[0], "16 bit", 8)
    assert np.array_equal(
        image_file.decode_image(encoded(GRAY, "PNG"), "a", depth=16).pixels, GRAY.astype(np.uint16) * 257
    )


@pytest.mark.parametrize("brightest", [2047, 2048, 4095])
def test_12_bits_stored_unscaled_in_16_span_the_range_where_bits_are_given(brightest: int) -> None:
    deep = np.linspace(0, brightest, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    data = cv2.imencode(".png", deep)[1].tobytes()
    for depth, top in ((8, 255), (16, 65535)):
        image = image_file.decode_image(data, "a", depth=depth, bits=12)  # type: ignore[arg-type]
        assert np.abs(image.pixels - deep * (top / 4095)).max() <= 0.51
        assert has_facts(image.note_texts[0], "12 bit", 16, "0-4095")


def test_white_does_not_depend_on_the_brightest_pixel_and_a_dark_image_is_noted() -> None:
    for brightest, used in ((2047, 11), (2048, 12), (16383, 14), (16384, 15)):
        deep = np.full((8, 8), brightest, np.uint16)
        image = image_file.decode_image(cv2.imencode(".png", deep)[1].tobytes(), "a", depth=16)
        assert (image.pixels == brightest).all()
        note = f"caution: only {used} of 16 bits are used, so the image may be too dark"
        assert image.note_texts == ((note,) if used < 15 else ())


def test_a_value_beyond_the_given_bits_is_refused() -> None:
    data = cv2.imencode(".png", np.full((8, 8), 4096, np.uint16))[1].tobytes()
    with pytest.raises(UnreadableError, match=r"^a .*\b4096\b.* 4095"):
        image_file.decode_image(data, "a", bits=12)
    eight = cv2.imencode(".png", np.full((8, 8), 200, np.uint8))[1].tobytes()
    assert (image_file.decode_image(eight, "a", bits=12).pixels == 200).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_inverted(dtype: type) -> None:
    data = encoded(np.full((8, 8), 0, dtype), "TIFF")
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8  # photometric interpretation: 1, black is zero
    assert image_file.decode_image(data, "a").pixels.max() == 0
    assert image_file.decode_image(data[:at] + b"\0" + data[at + 1 :], "a").pixels.min() == 255


@pytest.mark.parametrize("bits", [2, 4])
def test_a_tiff_of_a_depth_that_is_not_read_is_not_called_damaged(bits: int) -> None:
    data = encoded(np.zeros((8, 8), np.uint8), "TIFF")
    at = data.index(struct.pack("<HHI", 258, 3, 1)) + 8
    with pytest.raises(UnreadableError) as error:
        image_file.decode_image(data[:at] + bytes([bits]) + data[at + 1 :], "a")
    assert has_facts(str(error.value), 8, 16) and "damaged" not in str(error.value)


def test_white_of_an_inverted_tiff_is_that_of_its_bits() -> None:
    data = encoded(np.tile(np.array([0, 4095], np.uint16), (8, 4)), "TIFF")
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    pixels = image_file.decode_image(data[:at] + b"\0" + data[at + 1 :], "a", bits=12).pixels
    assert pixels[0, :2].tolist() == [255, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_an_image_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    smooth = cv2.resize(np.array([[0, 80], [160, 250]], np.uint8), (WIDTH, HEIGHT))
    data = encoded(smooth, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    from PIL import ImageOps

    seen = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = image_file.decode_image(data, "a")
    assert image.pixels.shape == seen.shape == (image.height, image.width)
    assert np.abs(image.pixels.astype(int) - seen).max() <= 2
    assert image.note_texts == (() if orientation == 1 else (f"turned (EXIF {orientation})",))


def test_a_cmyk_jpeg_is_not_a_negative() -> None:
    data = encoded(Image.fromarray(GRAY).convert("RGB").convert("CMYK"), "JPEG", quality=95)
    assert np.abs(image_file.decode_image(data, "a").pixels.astype(int) - GRAY)[:, :40].mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_file_cut_anywhere_is_refused_never_half_read(kind: str, mode: str, capfd: pytest.CaptureFixture) -> None:
    if (kind, mode) == ("JPEG", "P"):
        pytest.skip("JPEG has no palette")
    data = encoded(Image.fromarray(GRAY).convert(mode), kind)
    image_file.decode_image(data, "a")
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        with pytest.raises(UnreadableError, match=r"^scan 7 ") as error:
            image_file.decode_image(data[: int(len(data) * share)], "scan 7")
        assert "\n" not in str(error.value)
    with pytest.raises(UnreadableError):
        image_file.decode_image(data[:-1], "scan 7")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("min_side", [None, 20])
def test_a_jpeg_whose_pixels_end_too_early_is_refused_although_it_has_an_end_marker(min_side: int | None) -> None:
    pixels = np.add.outer(np.arange(163), np.arange(181)).astype(np.uint8)
    data = encoded(pixels, "JPEG")
    cut = data[: len(data) * 3 // 4] + b"\xff\xd9"
    with pytest.raises(UnreadableError, match=r"^a\b.*\bend"):
        image_file.decode_image(cut, "a", min_side=min_side)
    flat = encoded(np.full_like(pixels, 128), "JPEG")
    assert image_file.decode_image(flat, "a", min_side=min_side).note_texts == ()
    colour = encoded(np.dstack([pixels, pixels, pixels // 2]), "JPEG")
    told = image_file.decode_image(colour[: len(colour) // 2] + b"\xff\xd9", "a", min_side=min_side).note_texts
    assert any(note.startswith(gray_image.CAUTION) for note in told)


def test_a_progressive_jpeg_cut_between_scans_is_refused() -> None:
    data = encoded(GRAY, "JPEG", progressive=True)
    image_file.decode_image(data, "a")
    with pytest.raises(UnreadableError, match=r"^a\b.*end marker"):
        image_file.decode_image(data[: data.rindex(b"\xff\xda")], "a")


def test_a_damaged_png_is_refused_by_its_checksum(capfd: pytest.CaptureFixture) -> None:
    data = bytearray(encoded(GRAY, "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableError, match="checksum"):
        image_file.decode_image(bytes(data), "a")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"x\0\1zzz"),
        chunk(b"gAMA", bytes(4)) + chunk(b"cHRM", b"\xff" * 32) + chunk(b"sRGB", b"\7"),
        chunk(b"zTXt", b"abc\0\5xx") + chunk(b"PLTE", b"abc") + chunk(b"tRNS", b"\0\1"),
    ],
)
def test_what_is_odd_beside_the_pixels_of_a_png_prints_nothing(extra: bytes, capfd: pytest.CaptureFixture) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in GRAY)
    assert np.array_equal(image_file.decode_image(png(WIDTH, HEIGHT, 8, 0, rows + bytes(99), extra), "a").pixels, GRAY)
    with pytest.raises(UnreadableError, match="rows"):
        image_file.decode_image(png(WIDTH, HEIGHT, 8, 0, b"\7" * len(rows), extra), "a")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("colour", [0, 2])
def test_an_interlaced_png_is_read_pixel_by_pixel(colour: int) -> None:
    source = np.dstack([GRAY] * (3 if colour else 1))
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [b"\0" + row.tobytes() for x, y, across, down in passes for row in source[y::down, x::across]]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, colour, 0, 0, 1))
    woven = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    assert np.array_equal(image_file.decode_image(woven, "a").pixels, GRAY)


def test_transparency_of_a_tiff_is_noted() -> None:
    clear = np.full((8, 8, 4), 200, np.uint8)
    clear[:4, :, 3] = 0
    image = image_file.decode_image(encoded(clear, "TIFF"), "a")
    assert image.pixels[:4].max() == 0 and has_facts(image.note_texts[-1], "alpha channel applied")
    image = image_file.decode_image(encoded(Image.fromarray(clear[..., [0, 3]], "LA"), "TIFF"), "a")
    assert image.pixels.min() == 200 and ["alpha channel" in note for note in image.note_texts] == [True]


def test_a_png_with_too_few_rows_is_refused() -> None:
    with pytest.raises(UnreadableError, match="damaged"):
        image_file.decode_image(png(WIDTH, HEIGHT, 8, 0, bytes(WIDTH + 1) * (HEIGHT // 2)), "a")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_too_many_pixels_are_refused_from_the_header(kind: str) -> None:
    with pytest.raises(UnreadableError, match=rf"{WIDTH} x {HEIGHT} pixels.*limit"):
        image_file.decode_image(encoded(GRAY, kind), "a", limits=Limits(max_pixels=WIDTH * HEIGHT - 1))


def test_a_decompression_bomb_is_refused_without_being_inflated() -> None:
    bomb = png(50_000, 50_000, 8, 0, bytes(1_000))
    with pytest.raises(UnreadableError, match=r"50000 x 50000 pixels.*\b100\b"):
        image_file.decode_image(bomb, "a")
    with pytest.raises(UnreadableError, match=r"^a .*\b90000 x 1\b"):
        image_file.decode_image(png(90_000, 1, 8, 0, bytes(90_001)), "a")


def test_too_many_bytes_are_refused(folder: Path) -> None:
    file = folder / "large.png"
    file.write_bytes(encoded(GRAY, "PNG"))
    with pytest.raises(UnreadableError, match=r"large\.png .*\blimit\b"):
        image_file.read_image(file, limits=Limits(max_bytes=100))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello, world", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"<!doctype html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"%PDF-1.7", "is a PDF"),
    ],
)
def test_what_is_no_image_gets_one_clear_line(folder: Path, content: bytes, said: str) -> None:
    file = folder / "x.png"
    file.write_bytes(content)
    with pytest.raises(UnreadableError, match=said) as error:
        image_file.read_image(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_several_pages_and_animations_are_refused() -> None:
    for kind in ("TIFF", "PNG"):
        data = encoded(Image.fromarray(GRAY), kind, save_all=True, append_images=[Image.fromarray(255 - GRAY)])
        with pytest.raises(UnreadableError, match="one image"):
            image_file.decode_image(data, "a")


def test_missing_directory_and_forbidden_files_have_their_own_line(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        image_file.read_image(folder / "no.png")
    with pytest.raises(UnreadableError, match="directory"):
        image_file.read_image(folder)
    secret = folder / "secret.png"
    secret.write_bytes(encoded(GRAY, "PNG"))
    secret.chmod(0)
    if not os.access(secret, os.R_OK):
        with pytest.raises(UnreadableError, match=r"secret\.png .*opened"):
            image_file.read_image(secret)


def test_a_pipe_does_not_hang(folder: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes on this system")
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnreadableError, match=r"pipe .*\bfile\b"):
        image_file.read_image(folder / "pipe")


def test_an_error_never_carries_control_characters() -> None:
    with pytest.raises(UnreadableError) as error:
        image_file.decode_image(b"x", "a\x1b[31m\nb")
    assert str(error.value).startswith("a?[31m b ")


def test_mutated_files_only_ever_raise_unreadable() -> None:
    chance = np.random.default_rng(0)
    for kind, mode in [("PNG", "L"), ("PNG", "RGBA"), ("JPEG", "L"), ("JPEG", "RGB"), ("TIFF", "L"), ("BMP", "P")]:
        data = encoded(Image.fromarray(GRAY).convert(mode), kind)
        for _ in range(60):
            bad = np.frombuffer(data, np.uint8).copy()
            places = chance.integers(0, chance.choice([40, len(bad)]), chance.integers(1, 6))
            bad[places] = chance.integers(0, 256, len(places))
            try:
                assert image_file.decode_image(bad.tobytes(), "a").pixels.ndim == 2
            except UnreadableError as error:
                assert "\n" not in str(error)


# -- Reduced decoding and the square ------------------------------------------------------------------------------------


def spot(width: int, height: int, x: float, y: float) -> np.ndarray:
    """A soft bright spot whose centre is at this point."""
    right, down = np.meshgrid(np.arange(width) + 0.5 - x, np.arange(height) + 0.5 - y)
    return np.clip(250 * np.exp(-(right**2 + down**2) / 1800), 0, 255).astype(np.uint8)


def centre(pixels: np.ndarray) -> tuple[float, float]:
    weights = pixels.astype(np.float64)
    down, right = np.indices(pixels.shape) + 0.5
    return float((weights * right).sum() / weights.sum()), float((weights * down).sum() / weights.sum())


@pytest.mark.parametrize(("width", "height"), [(800, 1000), (1001, 803), (1207, 1543)])
@pytest.mark.parametrize("how", ["pad", "crop", "squash"])
def test_a_point_lands_where_the_matrix_puts_it_reduced_or_not(width: int, height: int, how: image_file.Fit) -> None:
    x, y = width * 0.6, height * 0.55
    data = encoded(spot(width, height, x, y), "JPEG", quality=95)
    matrix = image_file.fit_matrix(width, height, 96, how)
    for min_side in (None, 96):
        image = image_file.decode_image(data, "a", min_side=min_side)
        square, same = image_file.fit(image.pixels, 96, how, of=(image.width, image.height))
        assert np.array_equal(matrix, same) and square.shape == (96, 96)
        assert centre(square) == pytest.approx(tuple(matrix @ [x, y, 1]), abs=0.1)


@pytest.mark.parametrize(("width", "height"), [(1600, 2000), (1601, 2003)])
def test_min_side_keeps_that_many_pixels_and_the_file_s_own_size(width: int, height: int) -> None:
    data = encoded(spot(width, height, 700, 900), "JPEG")
    for min_side, shorter in ((200, 200), (201, 400), (500, 800), (900, 1600), (5000, 1600)):
        image = image_file.decode_image(data, "a", min_side=min_side)
        assert (image.width, image.height) == (width, height)
        assert shorter <= min(image.pixels.shape) <= shorter + 1


def test_a_reduced_image_is_as_sharp_as_one_that_was_shrunk() -> None:
    stripes = np.tile(np.where(np.arange(1605) // 40 % 2, 200, 50).astype(np.uint8), (1601, 1))
    data = encoded(stripes, "JPEG", quality=95)
    full, reduced = (image_file.decode_image(data, "a", min_side=side) for side in (None, 200))
    squares = [
        image_file.fit(p.pixels, 200, "squash", of=(p.width, p.height))[0].astype(float) for p in (full, reduced)
    ]
    assert squares[1].std() == pytest.approx(squares[0].std(), rel=0.05)
    assert np.abs(squares[0] - squares[1]).mean() < 6


def test_pad_keeps_everything_crop_fills_and_squash_stretches() -> None:
    wide = np.full((50, 100), 200, np.uint8)
    pad, matrix = image_file.fit(wide, 40, "pad")
    assert (pad[10:30] == 200).all() and pad[:10].max() == pad[30:].max() == 0
    assert matrix.tolist() == [[0.4, 0, 0], [0, 0.4, 10]]
    crop, matrix = image_file.fit(wide, 40, "crop")
    assert (crop == 200).all() and matrix.tolist() == [[0.8, 0, -20], [0, 0.8, 0]]
    squash, matrix = image_file.fit(wide, 40, "squash")
    assert (squash == 200).all() and matrix.tolist() == [[0.4, 0, 0], [0, 0.8, 0]]


def test_shrinking_averages_areas_and_enlarging_is_linear() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 200).astype(np.uint8)
    assert (image_file.fit(checks, 16, "squash")[0] == 100).all()
    ramp = np.tile(np.array([0, 800, 1600], np.uint16), (3, 1))
    assert image_file.fit(ramp, 12, "squash")[0][0].tolist() == [0, 0, *range(100, 1501, 200), 1600, 1600]
    mixed = image_file.fit(np.tile(checks[:, :8], (1, 1)), 16, "squash")[0]  # 8 wide, 64 high
    assert mixed.dtype == np.uint8 and np.abs(mixed.astype(int) - 100).max() <= 1


def test_threads_read_the_same_as_one() -> None:
    files = [encoded(spot(300, 200, k * 9, k * 7), kind) for k in range(8) for kind in ("PNG", "JPEG")]
    alone = [image_file.decode_image(data, "a").pixels for data in files]
    together: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda k=k: together.__setitem__(k, image_file.decode_image(files[k], "a").pixels))  # type: ignore[misc]
        for k in range(len(files))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[k], together[k]) for k in range(len(files)))


REAL = os.environ.get("RIBCAGE_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real radiographs")
def test_real_radiographs_read_without_a_note() -> None:
    for file in sorted((Path(REAL or "") / "nih/images_1024").glob("*.png")):
        image = image_file.read_image(file)
        assert image.pixels.shape == (1024, 1024) and all(note.startswith("RGBA ") for note in image.note_texts)
        assert np.array_equal(image.pixels, np.asarray(Image.open(file).convert("L")))


@pytest.mark.parametrize("note", [gray_image.Note("turned"), gray_image.Note("mirrored (R/F)", caution=True)])
def test_a_note_is_read_as_it_was_written(note: gray_image.Note) -> None:
    assert gray_image.Note.parse(str(note)) == note and str(note).startswith("caution: ") is note.caution
