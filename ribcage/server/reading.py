"""Reading: bytes from outside → pixels, in processes of their own.

Decoders of images are native code, and whoever sends a file may mean to break them. So each file is decoded by a
small program that holds nothing but that file, may take only so much memory, and is ended when it takes too long. What
goes to it and what comes back is

    length of a text, length of bytes, the text (JSON), the bytes        (little-endian, 8 bytes each length)

and never a pickle: of an answer only numbers and words are believed.
"""

import contextlib
import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ribcage.imaging.gray_image import Depth, GrayImage, Limits, UnreadableError

Answer = tuple[dict[str, Any], bytes]
START = 60.0
"""Seconds in which a reading process must have loaded what it needs; no file is to blame for them."""
LENGTHS = struct.Struct("<QQ")
PRIVATE = ("patient", "study")
"""Tags that do not leave the reading process."""
BASE_MEMORY = 1 << 30
"""What a reading process may take besides its pixels."""
BYTES_OF_A_PIXEL = 40
"""The most that reading one takes: 16-bit colours, and copies of them."""


@dataclass(frozen=True)
class Task:
    """How a file is to be read."""

    name: str
    depth: Depth = 8
    min_side: int | None = None
    """The shorter side may be reduced to no less than this, if that is faster."""
    square: tuple[int, str] | None = None
    """(side, how it is fitted): only this square of it is wanted."""
    side: int | None = None
    """The longer side of what is wanted, at most."""
    window: str = ""
    """What a DICOM file is shown by instead of its own choice."""


# ---- in the reading process


def main() -> None:
    """Answer tasks until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    limits = json.loads(sys.argv[1])
    _restrict(int(BASE_MEMORY + BYTES_OF_A_PIXEL * limits["max_pixels"]))
    _prepare()
    send(answers, {"state": "ready"}, b"")
    while (asked := received(sys.stdin.buffer)) is not None:
        head, data = asked
        try:
            told, pixels = _read(Task(**head), data, Limits(**limits))
        except Exception as error:  # a file may be anything, and so may what goes wrong with it
            told, pixels = {"error": _sentence(head["name"], error)}, b""
        asked, head, data = None, {}, b""
        send(answers, told, pixels)


def _restrict(memory: int) -> None:
    """Take no more than this many bytes, and leave no image of the memory behind."""
    try:
        import resource
    except ImportError:  # Windows has other means
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prepare() -> None:
    """Load what reads DICOM before the first one comes."""
    import cv2

    cv2.setNumThreads(1)
    with contextlib.suppress(ImportError):
        import pydicom.pixels

        assert pydicom.pixels


def _sentence(name: str, error: Exception) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, MemoryError):
        return f"{name} needs more memory to be read than an image may take."
    return " ".join(str(error).split()) or f"{name} cannot be read ({type(error).__name__})."


def _read(task: Task, data: bytes, limits: Limits) -> Answer:
    """What is known of an image, and its pixels."""
    from ribcage.imaging import image_file

    read = image_file.decode_image(
        data, task.name, depth=task.depth, min_side=task.min_side, limits=limits, window=task.window
    )
    size, pixels = (read.width, read.height), read.pixels
    if task.square:
        pixels = image_file.fit(pixels, task.square[0], task.square[1], of=size)[0]  # type: ignore[arg-type]
    elif task.side:
        pixels = shrunk(pixels, size, task.side)
    tags = {name: value for name, value in read.tags.items() if name not in PRIVATE}
    about = {"width": read.width, "height": read.height, "notes": read.notes, "tags": tags}
    return {**about, "shape": pixels.shape, "depth": 8 * pixels.itemsize}, np.ascontiguousarray(pixels).tobytes()


def shrunk(pixels: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """The image, its longer side at most `side`, whatever size it was decoded at."""
    import cv2

    share = min(1.0, side / max(size))
    wanted = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
    return pixels if pixels.shape[::-1] == wanted else cv2.resize(pixels, wanted, interpolation=cv2.INTER_AREA)


# ---- between the two


def send(stream: IO[bytes], head: dict[str, Any], data: bytes) -> None:
    """A text and bytes."""
    text = json.dumps(head).encode()
    stream.write(LENGTHS.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()


def received(stream: IO[bytes]) -> Answer | None:
    """What was sent, None where nothing more comes."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    text, data = LENGTHS.unpack(lengths)
    head, body = stream.read(text), stream.read(data)
    return (json.loads(head), body) if len(body) == data else None


# ---- in the server


class Reader:
    """One reading process; it stands in for itself anew when a file has ended it."""

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
            start_new_session=True,  # Ctrl-C is the server's, which finishes what it began
        )  # fmt: skip

    def read(self, task: Task, data: bytes) -> GrayImage:
        """The image in these bytes, or UnreadableError."""
        self.limits.check_bytes(task.name, len(data))
        if self.process.poll() is not None:  # ended by somebody else
            self._restart()
        if not self.ready and self._within(START, self._answer)[0] is None:
            self._restart()
            raise UnreadableError(f"{task.name} cannot be read: the program that reads images does not start.")
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

    def _within(self, seconds: float, ask: Callable[[], Answer | None]) -> tuple[Answer | None, bool]:
        """What the process answers, and whether it was ended because that took too long."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        answer = ask()
        timer.cancel()
        return answer, late.is_set()

    def _asked(self, task: Task, data: bytes) -> Answer | None:
        """What the process makes of a file; None if it ended."""
        assert self.process.stdin
        try:
            send(self.process.stdin, asdict(task), data)
        except OSError:
            return None
        return self._answer()

    def _answer(self) -> Answer | None:
        assert self.process.stdout
        try:
            return received(self.process.stdout)
        except (OSError, ValueError):
            return None

    def end(self) -> None:
        """No more tasks."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was not sent will not be
                if stream:
                    stream.close()
        self.process.wait()


def _broken(name: str, seconds: float | None) -> str:
    """Why a process ended."""
    if seconds is not None:
        return f"{name} takes more than {seconds:g} s to read."
    return f"{name} made the program that reads images fail: it is damaged, or made to do harm."


def _image(told: dict[str, Any], data: bytes) -> GrayImage:
    """What the process told, as an image."""
    if "error" in told:
        raise UnreadableError(str(told["error"]))
    height, width = (int(side) for side in told["shape"])
    pixels = np.frombuffer(data, np.uint8 if told["depth"] == 8 else np.uint16).reshape(height, width)
    tags = {str(name): str(value) for name, value in told["tags"].items()}
    return GrayImage(pixels, int(told["width"]), int(told["height"]), tuple(map(str, told["notes"])), tags)


class Readers:
    """So many reading processes; a file waits for the first that is free."""

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
        """Wait until each has loaded what it needs."""
        for reader in self.all:
            with contextlib.suppress(UnreadableError):
                reader.read(Task("nothing"), b"no image")

    def end(self) -> None:
        """End all processes; nothing is asked of them any more."""
        self.threads.shutdown(cancel_futures=True)
        for reader in self.all:
            reader.end()


if __name__ == "__main__":
    main()
