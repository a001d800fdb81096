"""Uploads: the body of a request → files, within limits. Nothing is written to disk."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ribcage.server.problem import SOON, Problem

LONGEST = 200
"""Characters of a file name."""
LONGEST_HEADERS = 1 << 13
"""Bytes of the headers of a form field; older versions of python-multipart have no limit of their own."""
SEVERAL = 4
"""The largest requests that may be in memory at once."""


@dataclass(frozen=True)
class Upload:
    """One uploaded file."""

    name: str
    data: bytes


class Uploads:
    """Reads bodies, and counts the bytes in memory.

    most: bytes per request.
    files: files per request.
    """

    def __init__(self, most: int, files: int) -> None:
        self.most, self.files, self.held = most, files, 0

    @contextlib.asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The files of a request, in memory until it is done."""
        held = [0]
        try:
            yield await self._read(request, held)
        finally:
            self.held -= held[0]

    async def _read(self, request: Request, held: list[int]) -> list[Upload]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise Problem(415, "Send images as multipart/form-data, in fields named 'files'.")
        if int(request.headers.get("content-length", "0")) > self.most:
            raise self._too_large()
        try:
            form = _Form(request.headers["content-type"], self.files)
            async for chunk in self._counted(request, held):
                form.write(chunk)
            return form.files()
        except (Problem, ClientDisconnect):
            raise
        except Exception as error:  # a hostile form may raise anything in the parser
            raise Problem(400, f"The form cannot be read ({type(error).__name__}).") from None

    async def _counted(self, request: Request, held: list[int]) -> AsyncGenerator[bytes, None]:
        """The body; a Problem when it is too large."""
        async for chunk in request.stream():
            held[0] += len(chunk)
            self.held += len(chunk)
            if held[0] > self.most:
                raise self._too_large()
            if self.held > SEVERAL * self.most:
                raise Problem(503, "Too many large requests are in progress.", headers=SOON)
            yield chunk

    def _too_large(self) -> Problem:
        return Problem(413, f"The request is larger than {self.most / 1e6:,.0f} MB.")


class _Form:
    """A form while it is received: its files stay in memory; it may have no other fields."""

    def __init__(self, kind: str, most: int) -> None:
        boundary = parse_options_header(kind)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= 100:
            raise Problem(400, "The form has no boundary of 1 to 100 characters.")
        self.most, self.ended = most, False
        self.uploads: list[Upload] = []
        self.header, self.value, self.disposition, self.data, self.header_bytes = b"", b"", b"", bytearray(), 0
        steps = (
            "part_begin",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "part_data",
            "part_end",
        )
        callbacks = {f"on_{step}": getattr(self, step) for step in (*steps, "end")}
        self.parser = MultipartParser(boundary, cast(Any, callbacks))

    def write(self, chunk: bytes) -> None:
        """The next chunk."""
        self.parser.write(chunk)

    def files(self) -> list[Upload]:
        """All files of the complete form."""
        if not self.ended:
            raise Problem(400, "The form is truncated: its last boundary is missing.")
        if not self.uploads:
            raise Problem(400, "The form contains no file. Send files in fields named 'files'.")
        return self.uploads

    # what the parser calls, in this order

    def part_begin(self) -> None:
        """The next field."""
        self.header, self.value, self.disposition, self.data, self.header_bytes = b"", b"", b"", bytearray(), 0
        if len(self.uploads) == self.most:
            raise Problem(413, f"The request has more than {self.most} files.")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Part of the name of a header."""
        self._count(end - start)
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Part of its value."""
        self._count(end - start)
        self.value += data[start:end]

    def _count(self, more: int) -> None:
        """Count bytes of headers."""
        self.header_bytes += max(more, 1)
        if self.header_bytes > LONGEST_HEADERS:
            raise Problem(400, f"The headers of a form field are larger than {LONGEST_HEADERS:,} bytes.")

    def header_end(self) -> None:
        """The end of a header."""
        if self.header.lower() == b"content-disposition":
            self.disposition = self.value
        self.header, self.value = b"", b""

    def headers_finished(self) -> None:
        """The end of the headers of a field."""
        options = parse_options_header(self.disposition)[1]
        name = upload_text(options.get(b"name", b""))
        if name != "files" or b"filename" not in options:
            what = f"Unknown form field {clean(name)!r}" if name else "A form field has no name"
            raise Problem(400, f"{what}. Send files in fields named 'files', each with a file name.")
        self.name = clean(upload_text(options[b"filename"]))

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """Part of its content."""
        self.data += data[start:end]

    def part_end(self) -> None:
        """The end of a file."""
        self.uploads.append(Upload(self.name, bytes(self.data)))
        self.data = bytearray()

    def end(self) -> None:
        """The last boundary."""
        self.ended = True


def upload_text(name: bytes) -> str:
    """As browsers send it; what is no UTF-8 is read so that every byte is a letter."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")


def clean(name: str) -> str:
    """A file's name as text that can be shown: no folders, nothing invisible, not endless."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "?" for letter in last).strip()[:LONGEST]
    return shown or "image"
