"""Reading: uploaded bytes → pixels, in separate processes.

Image decoders are native code, and an uploaded file may be made to exploit them. So each file is decoded by a small
process that holds nothing but that file, has a memory limit, and is killed when it takes too long. Requests to it and
its responses are

    length of a text, length of bytes, the text (JSON), the bytes        (little-endian, 8 bytes each length)

and never a pickle: of a response, only numbers and text are used.
"""

import contextlib
import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ribcage.imaging.gray_image import Depth, GrayImage, Limits, Note, UnreadableError

Response = tuple[dict[str, Any], bytes]
START = 60.0
"""Seconds in which a reading process must have started; they do not count for a file."""
LENGTHS = struct.Struct("<QQ")
PRIVATE = ("patient", "study")
"""Tags that are not returned by the reading process."""
BASE_MEMORY = 1 << 30
"""Memory of a reading process besides the pixels."""
BYTES_OF_A_PIXEL = 40
"""The most that decoding takes per pixel: 16-bit colour, and copies."""


@dataclass(frozen=True)
class Task:
    """How to decode a file."""

    name: str
    depth: Depth = 8
    min_side: int | None = None
    """Minimum length of the shorter side; a larger image may be reduced if this is faster."""
    square: tuple[int, str] | None = None
    """(side, fit): return only this square."""
    side: int | None = None
    """Largest longer side of the returned image."""
    window: str = ""
    """DICOM window used instead of that of the file."""


# ---- in the reading process


def serve_tasks() -> None:
    """Decode files until there are no more."""
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not a response
    limits = json.loads(sys.argv[1])
    _restrict(int(BASE_MEMORY + BYTES_OF_A_PIXEL * limits["max_pixels"]))
    _prepare()
    send(responses, {"state": "ready"}, b"")
    while (asked := received(sys.stdin.buffer)) is not None:
        head, data = asked
        try:
            facts, pixels = _read(Task(**head), data, Limits(**limits))
        except Exception as error:  # a hostile file may raise anything
            facts, pixels = {"error": _sentence(head["name"], error)}, b""
        asked, head, data = None, {}, b""
        send(responses, facts, pixels)


def _restrict(memory: int) -> None:
    """Limit the memory, and write no core dump."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prepare() -> None:
    """Import the DICOM decoders before the first file."""
    import cv2

    cv2.setNumThreads(1)
    with contextlib.suppress(ImportError):
        import pydicom.pixels

        assert pydicom.pixels


def _sentence(name: str, error: Exception) -> str:
    """The error of a file in one line."""
    if isinstance(error, MemoryError):
        return f"Decoding {name} needs more memory than is allowed for an image."
    return " ".join(str(error).split()) or f"{name} cannot be decoded ({type(error).__name__})."


def _read(task: Task, data: bytes, limits: Limits) -> Response:
    """Metadata and pixels of an image."""
    from ribcage.imaging import image_file

    read = image_file.decode_image(
        data, task.name, depth=task.depth, min_side=task.min_side, limits=limits, window=task.window
    )
    size, pixels = (read.width, read.height), read.pixels
    if task.square:
        pixels = image_file.fit(pixels, task.square[0], task.square[1], of=size)[0]  # type: ignore[arg-type]
    elif task.side:
        pixels = shrunk_image(pixels, size, task.side)
    tags = {name: value for name, value in read.tags.items() if name not in PRIVATE}
    about = {"width": read.width, "height": read.height, "notes": read.note_texts, "tags": tags}
    return {**about, "shape": pixels.shape, "depth": 8 * pixels.itemsize}, np.ascontiguousarray(pixels).tobytes()


def shrunk_image(pixels: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """The image, reduced to the scale at which the longer side of the original has at most `side` pixels."""
    import cv2

    share = min(1.0, side / max(size))
    wanted = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
    return pixels if pixels.shape[::-1] == wanted else cv2.resize(pixels, wanted, interpolation=cv2.INTER_AREA)


# ---- between the two


def send(stream: IO[bytes], head: Mapping[str, object], data: bytes) -> None:
    """Write a JSON header and bytes."""
    text = json.dumps(head).encode()
    stream.write(LENGTHS.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()


def received(stream: IO[bytes]) -> Response | None:
    """Read a JSON header and bytes; None at the end of the stream."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    text, data = LENGTHS.unpack(lengths)
    head, body = stream.read(text), stream.read(data)
    return (json.loads(head), body) if len(body) == data else None


# ---- in the server


class Reader:
    """One reading process; it is replaced when a file has killed it."""

    def __init__(self, limits: Limits, seconds: float) -> None:
        self.limits, self.seconds, self.ready = limits, seconds, False
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        self.ready = False
        root, alone = str(Path(__file__).parents[2]), ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        kept = {name: value for name, value in os.environ.items() if name != "RIBCAGE_TOKEN"}
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ribcage.server.reading", json.dumps(asdict(self.limits))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": paths, **dict.fromkeys(alone, "1")},
            start_new_session=True,  # Ctrl-C goes to the server, which finishes its requests
        )  # fmt: skip

    def read(self, task: Task, data: bytes) -> GrayImage:
        """The image in these bytes, or UnreadableError."""
        self.limits.check_bytes(task.name, len(data))
        if self.process.poll() is not None:  # killed from outside
            self._restart()
        if not self.ready and self._within(START, self._answer)[0] is None:
            self._restart()
            raise UnreadableError(f"{task.name} cannot be decoded, because the decoding process cannot be started.")
        self.ready = True
        answer, late = self._within(self.seconds, lambda: self._asked(task, data))
        if answer is None or late:
            self._restart()
        if answer is None:
            raise UnreadableError(_broken(task.name, self.seconds if late else None))
        return _image(*answer)

    def _restart(self) -> None:
        self.end()
        self.process = self._started()

    def _within(self, seconds: float, ask: Callable[[], Response | None]) -> tuple[Response | None, bool]:
        """The response of the process, and whether it was killed by the time limit."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        answer = ask()
        timer.cancel()
        return answer, late.is_set()

    def _asked(self, task: Task, data: bytes) -> Response | None:
        """The response to a file; None if the process died."""
        assert self.process.stdin
        try:
            send(self.process.stdin, asdict(task), data)
        except OSError:
            return None
        return self._answer()

    def _answer(self) -> Response | None:
        assert self.process.stdout
        try:
            return received(self.process.stdout)
        except (OSError, ValueError):
            return None

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # unsent data are dropped
                if stream:
                    stream.close()
        self.process.wait()


def _broken(name: str, seconds: float | None) -> str:
    """The reason why a process ended, as an error message."""
    if seconds is not None:
        return f"Decoding {name} takes more than {seconds:g} s."
    return f"{name} crashed the decoder, so it is probably damaged or malicious."


def _image(facts: dict[str, Any], data: bytes) -> GrayImage:
    """The image in a response."""
    if "error" in facts:
        raise UnreadableError(str(facts["error"]))
    height, width = (int(side) for side in facts["shape"])
    pixels = np.frombuffer(data, np.uint8 if facts["depth"] == 8 else np.uint16).reshape(height, width)
    tags = {str(name): str(value) for name, value in facts["tags"].items()}
    notes = tuple(Note.parse(str(text)) for text in facts["notes"])
    return GrayImage(pixels, int(facts["width"]), int(facts["height"]), notes, tags)


class Readers:
    """A pool of reading processes; a file waits for the first free one."""

    def __init__(self, count: int, limits: Limits, seconds: float, failed: Callable[[], object] = lambda: None) -> None:
        self.failed = failed
        self.all = [Reader(limits, seconds) for _ in range(count)]
        self.idle: queue.LifoQueue[Reader] = queue.LifoQueue()
        for reader in self.all:
            self.idle.put(reader)
        self.threads = ThreadPoolExecutor(count, "reading")

    def read(self, task: Task, data: bytes) -> GrayImage:
        """The image in these bytes, or UnreadableError; in one of `threads`."""
        reader = self.idle.get()
        try:
            return reader.read(task, data)
        except UnreadableError:
            self.failed()
            raise
        finally:
            self.idle.put(reader)

    def prepare(self) -> None:
        """Wait until all have started."""
        for reader in self.all:
            with contextlib.suppress(UnreadableError):
                reader.read(Task("nothing"), b"no image")

    def end(self) -> None:
        """Stop all processes."""
        self.threads.shutdown(cancel_futures=True)
        for reader in self.all:
            reader.end()


if __name__ == "__main__":
    serve_tasks()
