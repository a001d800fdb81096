"""The first image of a GIF, and one line for any other file."""

import struct

import numpy as np
import pytest

from ribcage.imaging import codecs
from ribcage.imaging.gray_image import Limits


def gif(pixels: np.ndarray, size: int = 8) -> bytes:
    """A GIF with the gray levels as its palette, as an encoder without compression writes it: codes of `size` + 1
    bits, with a clear code before the table has grown."""
    height, width = pixels.shape
    codes, clear = [], 1 << size
    for place, level in enumerate(pixels.ravel().tolist()):
        codes += [clear] * (place % (clear - 2) == 0) + [level]
    number = sum(code << (place * (size + 1)) for place, code in enumerate([*codes, clear + 1]))
    data = number.to_bytes((len(codes) + 1) * (size + 1) // 8 + 1, "little")
    blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
    palette = bytes(255 * level // (clear - 1) for level in range(clear) for _ in range(3))
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | (size - 1), 0, 0) + palette
    image = b",\0\0\0\0" + struct.pack("<HHBB", width, height, 0, size)
    return head + b"!\xf9\x04\0\0\0\0\0" + image + blocks + b"\0;"


def decoded(data: bytes) -> np.ndarray:
    return codecs.decode_levels(data, "a.gif", Limits())


@pytest.mark.parametrize("size", [2, 5, 8])
def test_a_gif_is_its_gray_levels(size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 1 << size, (13, 29))
    assert np.array_equal(decoded(gif(pixels, size)), 255 * pixels // ((1 << size) - 1))


def test_a_compressed_gif_of_another_encoder() -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    pixels = np.zeros((300, 200), np.uint8)
    pixels[40:250, 30:150] = 255
    pixels[::7, ::5] = np.arange(40)
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, "GIF", interlace=0)
    assert np.array_equal(decoded(stream.getvalue()), pixels)


def test_bytes_after_the_last_pixel_are_not_decoded() -> None:
    """Decoding them kept all of their bits, which took 19 s for 512 kB."""
    pixels = np.arange(64).reshape(8, 8) % 4
    data = gif(pixels, 2)
    more = data[:-2] + (b"\xff" * 256) * 20_000 + data[-2:]
    assert np.array_equal(decoded(more), 85 * pixels)


def test_the_code_that_ends_an_image_ends_its_pixels() -> None:
    """Bytes after it would be decoded as the missing pixels."""
    data = bytearray(gif(np.zeros((8, 8), np.uint8), 2))
    place = data.index(b",\0\0\0\0")
    data[6:10] = data[place + 5 : place + 9] = struct.pack("<HH", 8, 9)
    with pytest.raises(ValueError, match=r"a\.gif.*64 of 72"):
        decoded(bytes(data[:-2]) + b"\x04" + bytes(4) + bytes(data[-2:]))


WHOLE = gif(np.arange(64).reshape(8, 8) % 4, 2)
HUGE = WHOLE[:6] + b"\xff\xff\xff\xff" + WHOLE[10:]
HUGE = HUGE.replace(b",\0\0\0\0\x08\0\x08\0", b",\0\0\0\0\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "data",
    [*(WHOLE[:end] for end in (5, 11, 20, 30, 40, 50)), HUGE, WHOLE.replace(b",", b";"), WHOLE[:-12] + b"\xff" * 12],
)
def test_a_damaged_gif_is_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.gif") as error:
        decoded(data)
    assert "\n" not in str(error.value)
