"""Uploads: the body of a request → files, as long as it stays within its limits. None of it touches the disk."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ribcage.server.problem import SOON, Problem

LONGEST = 200
"""Letters of a file's name."""
SEVERAL = 4
"""So many of the largest requests may be held at once."""


@dataclass(frozen=True)
class Upload:
    """One file that was sent."""

    name: str
    data: bytes


class Uploads:
    """Reads bodies, and knows how much of them is held.

    most: bytes of a request.
    files: of a request.
    """

    def __init__(self, most: int, files: int) -> None:
        self.most, self.files, self.held = most, files, 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The files of a request, which are held as long as they are worked on."""
        held = [0]
        try:
            yield await self._read(request, held)
        finally:
            self.held -= held[0]

    async def _read(self, request: Request, held: list[int]) -> list[Upload]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise Problem(415, "Pictures are sent as multipart/form-data, in parts named 'files'.")
        if int(request.headers.get("content-length", "0")) > self.most:
            raise self._too_large()
        try:
            form = await _Form(request.headers, self._counted(request, held), max_files=self.files).parse()
            return self._files(form.multi_items())
        except MultiPartException as error:
            raise Problem(400, f"The form cannot be read: {error.message}") from None
        except (Problem, ClientDisconnect):
            raise
        except Exception as error:  # whatever a form that means harm makes of its parser
            raise Problem(400, f"The form cannot be read ({type(error).__name__}).") from None

    async def _counted(self, request: Request, held: list[int]) -> AsyncGenerator[bytes, None]:
        """The body, which ends in a Problem when it is too much."""
        async for chunk in request.stream():
            held[0] += len(chunk)
            self.held += len(chunk)
            if held[0] > self.most:
                raise self._too_large()
            if self.held > SEVERAL * self.most:
                raise Problem(503, "Too many large requests come at once.", headers=SOON)
            yield chunk

    def _too_large(self) -> Problem:
        return Problem(413, f"A request may have {self.most / 1e6:,.0f} MB, this one has more.")

    def _files(self, items: "list[tuple[str, UploadFile | str]]") -> list[Upload]:
        """Those that were sent as they should be."""
        found = []
        for name, item in items:
            if name != "files" or isinstance(item, str):
                raise Problem(400, f"The part {clean(name)!r} is not understood: files come in parts named 'files'.")
            found.append(Upload(clean(item.filename or ""), item.file.read()))
        if not found:
            raise Problem(400, "No file was sent: they come in parts named 'files'.")
        return found


class _Form(MultiPartParser):
    """Starlette's, which would write large files to the disk."""

    spool_max_size = 1 << 60


def clean(name: str) -> str:
    """A file's name as text that can be shown: no folders, nothing invisible, not endless."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "?" for letter in last).strip()[:LONGEST]
    return shown or "picture"
