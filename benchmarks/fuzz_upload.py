"""Fuzz test of `ribcage serve` with damaged and malicious uploads: its responses and its memory.

    python benchmarks/fuzz_upload.py --count 5000

The uploads are generated from PNG, JPEG, TIFF, BMP and DICOM files in every transfer syntax that can be written, and
from the DICOM files in RIBCAGE_REAL_DATA, if set. Each upload can be regenerated from its number. The server runs in a
separate process. It must respond to every upload, and with no 5xx status other than 503 and 504.
"""

import argparse
import collections
import contextlib
import http.client
import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from ribcage.bundle import deployment
from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

Draw = np.random.Generator
EXPLICIT, IMPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in (".1", "", ".2", ".1.99"))
RLE, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
NAMES = (
    "a.png", "胸部 正位.dcm", "", "..", "../../x", "C:\\x\\y.png", "a\u202eb.png", "n" * 300, "<script>.png", "%00.png",
    "a\tb", "é" * 50, "😀.jpg", "'; DROP TABLE", "con", ".", "a/b/c.tif", "\x7f",
)  # fmt: skip


# ---- seeds


def image(width: int, height: int, kind: type = np.uint8) -> np.ndarray:
    cloud = cv2.resize(deployment.patterns(64)[5], (width, height)).astype(np.float64) / 255
    grain = np.random.default_rng(width).normal(0, 0.01, cloud.shape)
    return (np.clip(cloud + grain, 0, 1) * np.iinfo(kind).max).astype(kind)


def coded(ending: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(ending, pixels, options)[1].tobytes()


def dicom(pixels: np.ndarray, syntax: str = EXPLICIT, **elements: object) -> bytes:
    """A DICOM in this transfer syntax."""
    made, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = UID(EXPLICIT if syntax in (RLE, JPEG_LS, JPEG_2000) else syntax)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.1"), UID("1.2.3")
    made.file_meta, made.SOPClassUID, made.SOPInstanceUID = meta, meta.MediaStorageSOPClassUID, "1.2.3"
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape, 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit, made.WindowCenter, made.WindowWidth = made.BitsStored - 1, 30000, 60000
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    if syntax in (RLE, JPEG_LS, JPEG_2000):
        made.compress(syntax)
    for name, value in elements.items():
        setattr(made, name, value)
    stream = io.BytesIO()
    kinds = {"implicit_vr": syntax == IMPLICIT, "little_endian": syntax != BIG}
    pydicom.dcmwrite(stream, made, enforce_file_format=True, **kinds)
    return stream.getvalue()


def nested(depth: int) -> bytes:
    """A DICOM whose sequences lie in each other, none of which ends."""
    whole = dicom(image(32, 32))
    item = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return whole[:340] + item * depth


def seeds() -> list[bytes]:
    """Files that can be read."""
    gray, deep = image(200, 160), image(180, 200, np.uint16)
    colour = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    made = [
        coded(".png", gray), coded(".png", deep), coded(".png", colour), coded(".png", image(1400, 1100, np.uint16)),
        coded(".png", cv2.cvtColor(gray, cv2.COLOR_GRAY2BGRA)), coded(".bmp", gray), coded(".bmp", colour),
        coded(".jpg", gray), coded(".jpg", colour), coded(".jpg", image(1500, 1200)), coded(".tiff", gray),
        coded(".jpg", gray, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), coded(".tiff", deep), coded(".tiff", colour),
    ]  # fmt: skip
    syntaxes = (EXPLICIT, IMPLICIT, BIG, DEFLATED, RLE, JPEG_LS, JPEG_2000)
    made += [dicom(pixels, syntax) for syntax in syntaxes for pixels in (gray, deep)]
    made += [dicom(deep, PhotometricInterpretation="MONOCHROME1"), dicom(image(1200, 1500, np.uint16))]
    real = os.environ.get("RIBCAGE_REAL_DATA")
    files = sorted((Path(real) / "dicom").rglob("*.dcm")) if real else []
    return made + [file.read_bytes() for file in files if file.stat().st_size < 20e6]


def zipped(size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.png", bytes(size))
    return stream.getvalue()


def png_bomb(side: int) -> bytes:
    """A small PNG of many black pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer, body = zlib.compressobj(9), b""
    for _ in range(min(side, 6000)):
        body += packer.compress(bytes(min(side, 6000) + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body + packer.flush()) + chunk(b"IEND", b"")


def bombs() -> list[bytes]:
    """Small files that ask for much, and files that are none."""
    gray = image(64, 64)
    huge: dict[str, Any] = {"Rows": 65535, "Columns": 65535}
    raw = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = dicom(gray, DEFLATED)
    meta = deflated.index(DEFLATED.encode()) + len(DEFLATED) + 1
    return [
        zipped(50_000_000), png_bomb(6000), png_bomb(7000), png_bomb(60_000), png_bomb(2**31 - 1), b"", bytes(10_000),
        b"%PDF-1.7", b"<!DOCTYPE html>", b"GIF89a" + bytes(100), b"\x7fELF" + bytes(100), b"\x1f\x8b" + bytes(100),
        b"RIFF0000WEBPVP8 ", b"\0\0\0\x0cjP  \r\n\x87\n", bytes(128) + b"DICM", nested(1000), nested(50_000),
        dicom(gray, NumberOfFrames=5_000_000), dicom(gray, **huge), dicom(gray, RLE, **huge),
        dicom(gray, JPEG_LS, **huge), dicom(gray, JPEG_2000, **huge), dicom(gray, BitsAllocated=1),
        dicom(gray, BitsAllocated=64, BitsStored=64), dicom(gray, SamplesPerPixel=3), dicom(gray, HighBit=200),
        dicom(gray, PhotometricInterpretation="PALETTE COLOR"), dicom(gray, WindowWidth=1e-300),
        dicom(gray, RescaleSlope=1e300, RescaleIntercept=-1e300), dicom(gray, WindowWidth=0),
        deflated[:meta] + raw.compress(bytes(300_000_000)) + raw.flush(), b"BM" + b"\xff" * 60,
        b"II*\0\x08\0\0\0\xff\xff", b"\xff\xd8\xff" + b"\xff\xe1\x00\x02" * 50_000,
    ]  # fmt: skip


# ---- what is done to them


def cut(data: bytes, draw: Draw) -> bytes:
    return data[: int(draw.integers(0, len(data) + 1))]


def flipped(data: bytes, draw: Draw) -> bytes:
    changed = bytearray(data)
    for at in draw.integers(0, max(len(data), 1), int(draw.integers(1, 65))) if data else ():
        changed[at] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def flipped_early(data: bytes, draw: Draw) -> bytes:
    return flipped(data[:600], draw)[:600] + data[600:]


def large_numbers(data: bytes, draw: Draw) -> bytes:
    """Lengths and sizes in the header become the largest, the least, or odd ones."""
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        at = int(draw.integers(0, max(1, min(len(data), 800))))
        numbers = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xfe\xff\xff\xff", b"\0\0\0\x80")
        changed[at : at + 4] = numbers[int(draw.integers(len(numbers)))]
    return bytes(changed)


def without_a_piece(data: bytes, draw: Draw) -> bytes:
    start, length = int(draw.integers(0, len(data) + 1)), int(draw.integers(1, 2000))
    return data[:start] + data[start + length :]


def with_noise(data: bytes, draw: Draw) -> bytes:
    at = int(draw.integers(0, len(data) + 1))
    return data[:at] + draw.bytes(int(draw.integers(1, 5000))) + data[at:]


def other_syntax(data: bytes, draw: Draw) -> bytes:
    """A DICOM that says it is coded as another."""
    found = re.search(rb"1\.2\.840\.10008\.1\.2[0-9.]*", data[:1000])
    if not found:
        return flipped(data, draw)
    ends = ("", ".1", ".2", ".1.99", ".5", *(f".4.{n}" for n in (50, 51, 53, 57, 70, 80, 81, 90, 91, 201)))
    uid = f"1.2.840.10008.1.2{ends[int(draw.integers(len(ends)))]}".encode()
    return data[: found.start()] + uid.ljust(found.end() - found.start(), b"\0")[: len(found[0])] + data[found.end() :]


def untouched(data: bytes, draw: Draw) -> bytes:
    return data


CHANGES: tuple[Callable[[bytes, Draw], bytes], ...] = (
    untouched, cut, cut, flipped, flipped, flipped_early, large_numbers, without_a_piece, with_noise, other_syntax,
)  # fmt: skip


def form(parts: list[tuple[str, bytes]], field: str = "files") -> bytes:
    lines = b""
    for name, data in parts:
        shown = name.replace('"', "%22").encode("utf-8")
        lines += b'--edge\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n' % (field.encode(), shown)
        lines += data + b"\r\n"
    return lines + b"--edge--\r\n"


def strange(body: bytes, draw: Draw) -> tuple[str, bytes]:
    """A form that is none, or nearly one: (content type, body)."""
    kind = int(draw.integers(9))
    usual = "multipart/form-data; boundary=edge"
    types = {0: "", 1: "application/json", 2: "multipart/form-data", 3: "multipart/form-data; boundary=other"}
    types[4] = usual + "; charset=utf-7"
    changed = {5: cut(body, draw), 6: flipped_early(body, draw), 7: form([("a", b"x")], "file"), 8: body * 3}
    return types.get(kind, usual), changed.get(kind, body)


def upload(number: int, whole: list[bytes], harmful: list[bytes]) -> tuple[str, str, bytes]:
    """(path, content type, body) of an upload; the same number gives the same."""
    draw = np.random.default_rng([4, number])
    path = draw.choice(["/v1/predict", "/v1/image?side=256", "/v1/explain?finding=Mass&side=128"], p=[0.7, 0.2, 0.1])
    parts = []
    for _ in range(int(draw.choice([1, 1, 1, 1, 2, 4]))):
        pool = harmful if draw.random() < 0.1 else whole
        data = pool[int(draw.integers(len(pool)))]
        data = CHANGES[int(draw.integers(len(CHANGES)))](data, draw)
        parts.append((NAMES[int(draw.integers(len(NAMES)))], data))
    body, kind = form(parts), "multipart/form-data; boundary=edge"
    if draw.random() < 0.1:
        kind, body = strange(body, draw)
    return str(path), kind, body


# ---- the server


def model(folder: Path) -> Path:
    """A small one with random weights."""
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(64, 64)), ("Mass", "Nodule")).eval()
    facts = ModelSpec(
        "test_resnet",
        method.findings,
        (64, 64),
        64,
        "pad",
        0.5,
        0.25,
        training=TrainingRecord(images=0, patients=0, selection=0),
    )
    save_bundle(folder, method, facts, Provenance.nothing())
    return folder


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that serves it, and its port."""
    words = [sys.executable, "-m", "ribcage", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r":(\d+)/", process.stdout.readline())
        assert found, "The server did not start."
        while asked(int(found[1]), "GET", "/healthz", "", b"")[0] != 200:
            time.sleep(0.2)
        try:
            yield process, int(found[1])
        finally:
            process.terminate()


def asked(port: int, verb: str, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
    """Status and answer; 0 where the connection broke off."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        line.request(verb, path, body, {"Content-Type": kind} if kind else {})
        answer = line.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        line.close()


def memory(pid: int) -> tuple[float, list[float]]:
    """Megabytes that a process holds, and those that each of its children does."""

    def held(one: int) -> float:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text(encoding="utf-8"))
        return int(found[1]) / 1024 if found else 0.0

    listed = [part.read_text(encoding="utf-8") for part in Path(f"/proc/{pid}/task").glob("*/children")]
    return held(pid), [held(int(one)) for one in " ".join(listed).split()]


def told(at: int, pid: int) -> None:
    own, readers = memory(pid)
    print(f"after {at:,}: server {own:,.0f} MB, readers {' + '.join(f'{one:,.0f}' for one in readers)} MB", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="uploads")
    parser.add_argument("--clients", type=int, default=4, help="that send at once")
    options = parser.parse_args()
    whole, harmful = seeds(), bombs()
    print(
        f"{options.count:,} uploads from {len(whole)} readable files and {len(harmful)} bombs, "
        f"{options.clients} clients"
    )
    with tempfile.TemporaryDirectory() as work, serving(model(Path(work) / "model")) as (process, port):
        found = hammered(options.count, options.clients, process, port, whole, harmful)
        alive = process.poll() is None and asked(port, "GET", "/healthz", "", b"")[0] == 200
    return judged(found, alive)


def hammered(
    count: int, clients: int, process: "subprocess.Popen[str]", port: int, whole: list[bytes], harmful: list[bytes]
) -> "collections.Counter[str]":
    """Everything sent; how often what was answered."""
    found, lock, numbers = collections.Counter[str](), threading.Lock(), iter(range(count))
    marks = {1, *(mark for mark in (1000, 2000, 3000, 4000) if mark < count), count}

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            path, kind, body = upload(number, whole, harmful)
            status, answer = asked(port, "POST", path, kind, body)
            with lock:
                found["all"] += 1
                found[f"status {status}"] += 1
                found["reader failed"] += answer.count(b"made the program that reads images fail")
                found["reader too slow"] += answer.count(b" s to read.")
                if status >= 400:
                    found["no sentence"] += not sentence(answer)
                if status in (0, 500):
                    print(f"upload {number}: {path} {status} {answer[:200]!r}")
                if found["all"] in marks:
                    told(found["all"], process.pid)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.monotonic()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    print(f"{time.monotonic() - began:,.0f} s")
    return found


def sentence(answer: bytes) -> bool:
    """Whether an answer is an error as it should be: JSON with one line."""
    try:
        said = json.loads(answer)["error"]
        return isinstance(said, str) and 0 < len(said) < 2000 and "\n" not in said
    except (ValueError, KeyError, TypeError):
        return False


def judged(found: "collections.Counter[str]", alive: bool) -> int:
    """Print the counts; 1 if anything must not be."""
    for name in sorted(found):
        print(f"{name:<16}{found[name]:>7,}")
    allowed = {"status 503", "status 504"}
    bad = [name for name in found if name.startswith(("status 5", "status 0")) and name not in allowed]
    print(f"server {'alive' if alive else 'DEAD'}; {'; '.join(bad) or 'no 5xx but 503 and 504, no broken answer'}")
    return int(bool(bad) or not alive or found["no sentence"] > 0)


if __name__ == "__main__":
    sys.exit(main())
