"""App: the routes of the server, and what each does."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

import cv2
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ribcage import __version__
from ribcage.imaging.gray_image import GrayImage, Limits, UnreadableError
from ribcage.inference import gradcam
from ribcage.server import reference, shapes
from ribcage.server.answering import Answering, Namer, Said
from ribcage.server.batching import Batcher, FullError
from ribcage.server.counters import Counters
from ribcage.server.gate import Gate, Rules
from ribcage.server.keeping import Keeper
from ribcage.server.problem import SOON, Problem, dump
from ribcage.server.reading import Readers, Task
from ribcage.server.shapes import USE, responses
from ribcage.server.uploads import Upload, Uploads

ABOUT = f"""{USE} Finished models behind HTTP: radiographs in, probabilities, boxes and maps out.

    curl -F files=@chest.png http://127.0.0.1:8000/v1/predict

Files are PNG, JPEG, TIFF, BMP or DICOM, told by their content and not by their name. What cannot be answered is said as
{{"error": "one clear sentence"}}. Where a token is needed, send 'Authorization: Bearer …'. No image is stored."""
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, TIFF, BMP or DICOM.",
                        }
                    },
                }
            }
        },
    }
}
POSTED = (400, 401, 403, 413, 415, 422, 500, 503, 504)
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Of the files of the page; there are no others."""
Asked = Annotated[str, Query(description="A model's id; the first of /v1/models where none is named.")]
Side = Annotated[int, Query(ge=16, le=4096, description="Of the longer side of what is answered, at most.")]


@dataclass(frozen=True)
class Settings:
    """How much the server takes on; `ribcage serve` says what is usual."""

    batch: int
    """Images that a model answers at once, at most."""
    wait: float
    """Seconds that an image waits for others."""
    threads: int
    """Of a model; 0: one for each core."""
    readers: int
    """Processes that read files."""
    most_bytes: int
    """Of a request."""
    most_files: int
    """Of a request."""
    most_pixels: float
    """Of an image."""
    rules: Rules
    window: str = ""
    """What DICOM files are shown by instead of their own choice."""
    read_seconds: float = 10.0
    """For reading one file."""


class Service:
    """All that stands behind the routes."""

    def __init__(self, models: Mapping[str, Answering], settings: Settings, keeper: Keeper | None = None) -> None:
        self.models, self.settings, self.keeper = dict(models), settings, keeper
        self.counters = Counters()
        self.uploads = Uploads(settings.most_bytes, settings.most_files)
        limits = Limits(max_pixels=settings.most_pixels, max_bytes=settings.most_bytes)
        self.readers = Readers(settings.readers, limits, settings.read_seconds, self.counters.unreadable.inc)
        self.looking = ThreadPoolExecutor(1, "looking")
        self.batchers = {id: self._batcher(id, model) for id, model in self.models.items()}
        self.counters.waiting.set_function(lambda: sum(one.waiting.qsize() for one in self.batchers.values()))

    def _batcher(self, id: str, model: Answering) -> Batcher[GrayImage, Said]:
        room = self.settings.most_files * self.settings.rules.at_once
        noted = self.counters.batches.labels(id).observe
        return Batcher(model.answer, most=self.settings.batch, wait=self.settings.wait, room=room, noted=noted)

    def prepare(self) -> None:
        """What takes time before the first answer."""
        for model in self.models.values():
            model.prepare(self.settings.threads)
        self.readers.prepare()

    def end(self) -> None:
        """End its processes and threads."""
        self.readers.end()
        self.looking.shutdown(cancel_futures=True)
        for batcher in self.batchers.values():
            batcher.end()

    def model(self, id: str) -> Answering:
        """The one that is asked for."""
        if not id:
            return next(iter(self.models.values()))
        if id not in self.models:
            raise Problem(404, f"There is no model {id[:100]!r}. Models: {', '.join(self.models)}.")
        return self.models[id]

    async def read(self, upload: Upload, **how: Any) -> GrayImage:
        """The image in a file."""
        task = Task(upload.name, window=self.settings.window, **how)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.readers.threads, self.readers.read, task, upload.data)

    async def answer(self, model: Answering, upload: Upload) -> dict[str, Any]:
        """What a model says of one file, or why it cannot be read."""
        stored, fit = model.opened.spec.stored, model.opened.spec.fit
        batcher = self.batchers[model.id]
        try:
            with batcher.on_its_way():
                square = await self.read(upload, min_side=stored, square=(stored, fit))
            said = await asyncio.wrap_future(batcher.ask(square))
        except UnreadableError as error:
            return {"file": upload.name, "error": str(error)}
        except FullError as error:
            raise Problem(503, str(error), headers=SOON) from None
        size = {"width": square.width, "height": square.height}
        tags = {name: square.tags.get(name, "") for name in TOLD} if square.tags else {}
        about = {
            "remarks": model.remarks(square),
            "warning": model.opened.spec.warning,
            "notes": list(square.notes),
            "tags": tags,
        }
        return {"file": upload.name, **size, **said, **about}

    async def look(self, model: Namer, upload: Upload, finding: str, side: int) -> dict[str, Any]:
        """Where a model looks in a file."""
        read = await self.read(upload, min_side=model.opened.spec.stored)
        loop = asyncio.get_running_loop()
        heat, boxes = await loop.run_in_executor(self.looking, model.look, read, finding, side)
        _, coded = cv2.imencode(".png", (heat.clip(0, 1) * 255).round().astype("uint8"))
        names = ("x", "y", "width", "height", "heat")
        size = model.opened.spec.size
        cells = gradcam.grid_of(model.opened.method.backbone, size)
        return {
            "finding": finding,
            "width": heat.shape[1],
            "height": heat.shape[0],
            "heat": base64.b64encode(coded.tobytes()).decode(),
            "boxes": [dict(zip(names, row, strict=True)) for row in boxes.tolist()],
            "cells": cells,
            "remark": gradcam.too_coarse(cells, size),
        }


TOLD = ("view", "sex", "age", "manufacturer", "transfer_syntax")
"""Of a DICOM."""


def make(service: Service) -> Gate:
    """The application, guarded."""
    app = FastAPI(title="Ribcage", version=__version__, description=ABOUT, docs_url=None, redoc_url=None)
    _pages(app, service)
    _asking(app, service)
    _failing(app)
    gate = Gate(app, service.settings.rules, service.counters)

    @app.get("/healthz", responses={**responses(403, model=shapes.Health), 503: {"model": shapes.Health}})
    async def health() -> Response:
        """Whether it is ready; 503 while it starts or stops."""
        return sent({"state": gate.state}, 200 if gate.state == "ready" else 503)

    gate.routes = frozenset(app.openapi()["paths"])
    return gate


def _pages(app: FastAPI, service: Service) -> None:
    """What a person looks at, and a monitor."""

    @app.get("/", include_in_schema=False)
    @app.get("/viewer/{name}", include_in_schema=False)
    async def viewer(name: str = "index.html") -> Response:
        """A file of the page."""
        kind = KINDS.get("." + name.rpartition(".")[2])
        place = resources.files("ribcage") / "viewer" / name
        if kind is None or "/" in name or "\\" in name or name.startswith(".") or not place.is_file():
            raise Problem(404, f"There is no page {name[:100]!r}.")
        return Response(place.read_bytes(), media_type=kind)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """This interface, to be read."""
        return Response(reference.page(app.openapi()), media_type="text/html")

    @app.get("/docs/style.css", include_in_schema=False)
    async def style() -> Response:
        """Of that page."""
        return Response(reference.STYLE, media_type="text/css")

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_only(401, 403)})
    async def metrics() -> Response:
        """Requests, seconds, batches, queue and unreadable files, as Prometheus reads them."""
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4")


def _asking(app: FastAPI, service: Service) -> None:
    """What models are asked."""

    @app.get("/v1/models", responses=responses(401, 403, 500, 503, model=shapes.Models))
    async def models() -> Response:
        """The models, their findings, thresholds, and how they fared on validation."""
        told = [model.about() for model in service.models.values()]
        return sent({"models": told, "use": USE, "token": bool(service.settings.rules.token)})

    @app.post("/v1/predict", responses=responses(404, *POSTED, model=shapes.Answers), openapi_extra=FORM)
    async def predict(request: Request, model: Asked = "") -> Response:
        """What a model says of each file. One that cannot be read fails alone."""
        asked, began = service.model(model), time.perf_counter()
        async with service.uploads.of(request) as uploads, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(service.answer(asked, upload)) for upload in uploads]
        results = [task.result() for task in running]
        if all("error" in one for one in results):
            several = f"None of {len(results)} files could be read; the first: "
            raise Problem(422, (several if len(results) > 1 else "") + results[0]["error"], results=results)
        spent = round(1000 * (time.perf_counter() - began), 1)
        answers = {"model": asked.id, "use": USE, "milliseconds": spent, "results": results}
        if service.keeper:
            await asyncio.to_thread(service.keeper.keep, answers)
        return sent(answers)

    pixels = {
        "description": "Little-endian uint16, row by row, dark is air.",
        "content": {"application/octet-stream": {}},
    }

    @app.post("/v1/image", responses={**responses(*POSTED), 200: pixels}, openapi_extra=FORM)
    async def image(request: Request, side: Side = 1024) -> Response:
        """The image in one file, to be shown; its size stands in X-Width, X-Height, X-Original-Width and
        X-Original-Height."""
        async with _one(service, request) as upload:
            read = await service.read(upload, depth=16, min_side=side, side=side)
        height, width = read.pixels.shape
        told = {"X-Width": width, "X-Height": height, "X-Original-Width": read.width, "X-Original-Height": read.height}
        headers = {name: str(value) for name, value in told.items()}
        return Response(read.pixels.astype("<u2").tobytes(), headers=headers, media_type="application/octet-stream")

    @app.post("/v1/explain", responses=responses(404, *POSTED, model=shapes.Heat), openapi_extra=FORM)
    async def explain(request: Request, finding: str, model: Asked = "", side: Side = 1024) -> Response:
        """Where a model looks in one file for a finding (Grad-CAM), and boxes around what is at least half as hot."""
        asked = service.model(model)
        if not isinstance(asked, Namer):
            raise Problem(404, f"{asked.id} finds boxes, which are in /v1/predict; it has no maps.")
        if finding not in asked.opened.spec.findings:
            known = ", ".join(asked.opened.spec.findings)
            raise Problem(404, f"{asked.id} knows no finding {finding[:100]!r}. Findings: {known}.")
        async with _one(service, request) as upload:
            return sent(await service.look(asked, upload, finding, side))


@contextlib.asynccontextmanager
async def _one(service: Service, request: Request) -> AsyncIterator[Upload]:
    """The only file of a request; why it cannot be read is the answer."""
    async with service.uploads.of(request) as uploads:
        if len(uploads) > 1:
            raise Problem(400, f"One file is expected here, not {len(uploads)}.")
        try:
            yield uploads[0]
        except UnreadableError as error:
            raise Problem(422, str(error)) from None


def _failing(app: FastAPI) -> None:
    """Whatever cannot be answered is one sentence."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return Response(error.body, error.status, error.headers, "application/json")

    @app.exception_handler(ExceptionGroup)
    async def several(request: Request, group: ExceptionGroup[Exception]) -> Response:
        """Of the files of a request; the first that is told stands for all."""
        told = next((one for one in group.exceptions if isinstance(one, Problem)), None)
        if told is None:
            raise group.exceptions[0]
        return await problem(request, told)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        words = {
            404: f"There is nothing at {request.url.path[:100]!r}.",
            405: "This is asked in another way (see /docs).",
        }
        text = words.get(error.status_code, str(error.detail))
        return await problem(request, Problem(error.status_code, text, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        told = [f"?{one['loc'][-1]}=: {one['msg'][:1].lower()}{one['msg'][1:]}" for one in error.errors()]
        return await problem(request, Problem(422, "; ".join(told) + "."))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return await problem(request, Problem(400, "The request broke off."))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return await problem(request, Problem(500, "This is a fault in Ribcage; what it prints says where."))


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The statuses of a route that are none of the good ones."""
    return {status: one for status, one in responses(*statuses).items() if status != 200}


def sent(value: Any, status: int = 200) -> Response:
    """As JSON."""
    return Response(dump(value), status, media_type="application/json")
