"""DICOM files made in memory, with lossless and 12-bit JPEG streams encoded by hand."""

import io
import struct

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
)

from ribcage.imaging import image_file, jpeg_scan, medical_jpeg
from ribcage.imaging.image_file import UnreadableError

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


def refused(made: Dataset | bytes) -> str:
    with pytest.raises(UnreadableError) as error:
        image_file.decode_image(made if isinstance(made, bytes) else written(made), "a.dcm")
    line = str(error.value)
    assert line.startswith("a.dcm") and "\n" not in line and len(line) < 300
    return line


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


def lossless_jpeg(
    pixels: np.ndarray, bits: int, predictor: int, rows: int = 0, shift: int = 0, *, length: int = 5, fill: bytes = b""
) -> bytes:
    """T.81 annex H, with codes of this length and, after so many rows, fill bytes and a restart."""
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
            said += f"{size:0{length}b}{more}"
        parts.append(packed(said) + fill)
    interval = rows * pixels.shape[1] if len(parts) > 1 else 0
    return coded(0xC3, pixels, bits, code_table(0, list(range(17)), length), (predictor, 0, shift), parts, interval)


def deep_jpeg(pixels: np.ndarray, blocks_per_part: int = 0, *, length: int = 8) -> bytes:
    """T.81 extended sequential with 12 bits, steps of 1 and codes of this length."""
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
                .ravel()[jpeg_scan.ZIGZAG]
                .tolist()
            )
            size, more = size_and_bits(values[0] - before)
            said, before, run = said + f"{size:0{length}b}{more}", values[0], 0
            for value in values[1:]:
                run += value == 0
                if value:
                    while run > 15:
                        said, run = said + f"{symbols.index(0xF0):0{length}b}", run - 16
                    size, more = size_and_bits(value)
                    said, run = said + f"{symbols.index(run << 4 | size):0{length}b}{more}", 0
            said += f"{0:0{length}b}" if run else ""
        parts.append(packed(said))
    tables = (
        b"\xff\xdb\0\x43\0" + bytes([1] * 64) + code_table(0, list(range(16)), length) + code_table(1, symbols, length)
    )
    return coded(0xC1, pixels, 12, tables, (0, 63, 0), parts, count if len(parts) > 1 else 0)


def gray(made: Dataset) -> np.ndarray:
    """0 … 1."""
    return read(made).pixels / 65535


def lut(entries: np.ndarray, first: int, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first % 65536, bits])
    item.add_new("LUTData", "US", entries.tolist())
    item.ModalityLUTType = "US"
    return item


def chest() -> np.ndarray:
    """A smooth anatomy between 1000 and 3000 with a burned-in marker and a black border."""
    made = 1000 + 1000 * (1 + np.sin(np.add.outer(np.arange(128) / 20, np.arange(128) / 15)))
    made[:, :10] = 0
    made[4:14, 110:124] = 60000
    return made.astype(np.uint16)


def with_text(keyword: str, text: str, **elements: object) -> bytes:
    """A file in which an element of numbers holds this text."""
    tag, made = pydicom.datadict.tag_for_keyword(keyword), dataset(**elements)
    made.add_new(tag, "LO", text)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    return written(made).replace(start + b"LO", start + pydicom.datadict.dictionary_VR(tag).encode())
