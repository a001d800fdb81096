"""App: the routes of the server."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated

import cv2
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ribcage import __version__
from ribcage.imaging.gray_image import Depth, GrayImage, Limits, UnreadableError
from ribcage.inference import gradcam, map_cells
from ribcage.inference.feature_evidence import NoFeatureMapsError
from ribcage.server import reference_page, schemas
from ribcage.server.batching import Batcher, FullError
from ribcage.server.counters import Counters
from ribcage.server.gate import AccessRules, Gate
from ribcage.server.prediction_log import PredictionLog
from ribcage.server.problem import INTERNAL, SOON, Problem, dump
from ribcage.server.reading import Readers, Task
from ribcage.server.schemas import INTENDED_USE, responses
from ribcage.server.served_models import ImagePredictions, ServedClassifier, ServedModel
from ribcage.server.uploads import Upload, Uploads

REFERENCE = "/docs"
"""Path of the reference page."""
EXAMPLE_ADDRESS = "http://127.0.0.1:8000/"
"""Address in the example of the OpenAPI description; the reference page shows the address of the request instead."""
ABOUT = f"""{INTENDED_USE} The server receives chest radiographs and returns probabilities, boxes and saliency maps.

    curl -F files=@chest.png {EXAMPLE_ADDRESS}v1/predict

Files can be PNG, JPEG, TIFF, BMP or DICOM; the format is recognised by content, not by name. An error response is
{{"error": "one sentence"}}. If the server requires a token, send the header 'Authorization: Bearer …'. Images are not
stored."""
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
                            "description": "Image files in PNG, JPEG, TIFF, BMP or DICOM format.",
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
"""Media types of the files of the page; there are no others."""
ModelId = Annotated[str, Query(description="ID of the model (default: the first in /v1/models).")]
Finding = Annotated[str, Query(description="Name of a finding of the model.")]
Side = Annotated[
    int, Query(ge=16, le=4096, description="Maximum length in pixels of the longer side of the returned image or map.")
]


@dataclass(frozen=True)
class Settings:
    """Limits of the server; their defaults are the options of `ribcage serve`."""

    batch: int
    """Maximum number of images in a batch."""
    wait: float
    """Seconds to wait for more images before a batch is computed."""
    threads: int
    """CPU threads of a model; 0: one per core."""
    readers: int
    """Processes that decode files."""
    most_bytes: int
    """Maximum size of a request."""
    most_files: int
    """Maximum number of files per request."""
    most_pixels: float
    """Maximum size of an image."""
    rules: AccessRules
    window: str = ""
    """DICOM window used instead of that of the file."""
    read_seconds: float = 10.0
    """Time limit of decoding one file."""


class Service:
    """Models, decoders, batchers and counters behind the routes."""

    def __init__(self, models: Mapping[str, ServedModel], settings: Settings, log: PredictionLog | None = None) -> None:
        self.models, self.settings, self.log = dict(models), settings, log
        self.counters = Counters()
        self.uploads = Uploads(settings.most_bytes, settings.most_files)
        limits = Limits(max_pixels=settings.most_pixels, max_bytes=settings.most_bytes)
        self.readers = Readers(settings.readers, limits, settings.read_seconds, self.counters.unreadable.inc)
        self.saliency_thread = ThreadPoolExecutor(1, "saliency")
        self.batchers = {id: self._batcher(id, model) for id, model in self.models.items()}
        self.counters.waiting.set_function(lambda: sum(one.waiting.qsize() for one in self.batchers.values()))

    def _batcher(self, id: str, model: ServedModel) -> Batcher[GrayImage, ImagePredictions]:
        room = self.settings.most_files * self.settings.rules.at_once
        noted = self.counters.batches.labels(id).observe
        return Batcher(model.predict, most=self.settings.batch, wait=self.settings.wait, room=room, noted=noted)

    def prepare(self) -> None:
        """Load the models and start the decoders before the first request."""
        for model in self.models.values():
            model.prepare(self.settings.threads)
        self.readers.prepare()

    def end(self) -> None:
        """Stop all processes and threads."""
        self.readers.end()
        self.saliency_thread.shutdown(cancel_futures=True)
        for batcher in self.batchers.values():
            batcher.end()

    def model(self, id: str) -> ServedModel:
        """The model with this id; without an id, the first model."""
        if not id:
            return next(iter(self.models.values()))
        if id not in self.models:
            raise Problem(404, f"Unknown model {id[:100]!r}. Models: {', '.join(self.models)}.")
        return self.models[id]

    async def read(
        self,
        upload: Upload,
        *,
        min_side: int,
        square: tuple[int, str] | None = None,
        depth: Depth = 8,
        side: int | None = None,
    ) -> GrayImage:
        """The image in a file."""
        task = Task(upload.name, depth, min_side, square, side, self.settings.window)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.readers.threads, self.readers.read, task, upload.data)

    async def predict(self, model: ServedModel, upload: Upload) -> dict[str, object]:
        """The predictions for one file, or why it cannot be read."""
        stored, fit = model.opened.spec.stored, model.opened.spec.fit
        batcher = self.batchers[model.id]
        try:
            with batcher.on_its_way():
                square = await self.read(upload, min_side=stored, square=(stored, fit))
            predictions = await asyncio.wrap_future(batcher.submit(square))
        except UnreadableError as error:
            return {"file": upload.name, "error": str(error)}
        except FullError as error:
            raise Problem(503, str(error), headers=SOON) from None
        size = {"width": square.width, "height": square.height}
        tags = {name: square.tags.get(name, "") for name in TAGS} if square.tags else {}
        about = {
            "image_warnings": model.image_warnings(square),
            "model_warning": model.opened.spec.warning,
            "notes": list(square.note_texts),
            "tags": tags,
        }
        return {"file": upload.name, **size, **predictions, **about}

    async def explain(self, model: ServedClassifier, upload: Upload, finding: str, side: int) -> dict[str, object]:
        """The saliency map of a finding in a file."""
        read = await self.read(upload, min_side=model.opened.spec.stored)
        loop = asyncio.get_running_loop()
        try:
            heat, boxes = await loop.run_in_executor(self.saliency_thread, model.saliency, read, finding, side)
        except NoFeatureMapsError:
            raise Problem(404, f"{model.id} has no feature maps from which Grad-CAM could be computed.") from None
        _, coded = cv2.imencode(".png", (heat.clip(0, 1) * 255).round().astype("uint8"))
        names = ("x", "y", "width", "height", "mean_saliency")
        size = model.opened.spec.size
        grid = gradcam.map_grid(model.opened.method, size)
        return {
            "finding": finding,
            "width": heat.shape[1],
            "height": heat.shape[0],
            "saliency_map": base64.b64encode(coded.tobytes()).decode(),
            "boxes": [dict(zip(names, row, strict=True)) for row in boxes.tolist()],
            "grid": grid,
            "warning": map_cells.too_coarse(grid, size),
        }


TAGS = ("view", "sex", "age", "manufacturer", "transfer_syntax")
"""DICOM tags that are included in a response."""


def make_app(service: Service) -> Gate:
    """The web application with access control."""
    app = FastAPI(title="Ribcage", version=__version__, description=ABOUT, docs_url=None, redoc_url=None)
    _page_routes(app, service)
    _prediction_routes(app, service)
    _error_handlers(app)
    gate = Gate(app, service.settings.rules, service.counters)

    @app.get("/healthz", responses={**responses(403, model=schemas.Health), 503: {"model": schemas.Health}})
    async def health() -> Response:
        """State of the server. The status is 503 while it is starting or stopping."""
        return sent({"state": gate.state}, 200 if gate.state == "ready" else 503)

    gate.routes = frozenset(app.openapi()["paths"])
    return gate


def _page_routes(app: FastAPI, service: Service) -> None:
    """The viewer, this reference, and metrics."""
    pages = {
        one.name: one for one in (resources.files("ribcage") / "viewer").iterdir() if Path(one.name).suffix in KINDS
    }

    @app.get("/", include_in_schema=False)
    @app.get("/viewer/{name}", include_in_schema=False)
    async def viewer(name: str = "index.html") -> Response:
        """A file of the viewer."""
        place = pages.get(name)
        if place is None:
            raise Problem(404, f"Unknown page {name[:100]!r}.")
        return Response(place.read_bytes(), media_type=KINDS[Path(name).suffix])

    @app.get(REFERENCE, include_in_schema=False)
    async def docs(request: Request) -> Response:
        """The reference of this interface."""
        about = ABOUT.replace(EXAMPLE_ADDRESS, str(request.base_url))
        return Response(reference_page.render_reference(app.openapi(), about), media_type="text/html")

    @app.get("/docs/style.css", include_in_schema=False)
    async def style() -> Response:
        """The style sheet of the reference page."""
        return Response(reference_page.render_style(), media_type="text/css")

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_only(401, 403)})
    async def metrics() -> Response:
        """Prometheus metrics of requests, latencies, batches, queue length and unreadable files."""
        return Response(service.counters.text(), media_type="text/plain; version=0.0.4")


def _prediction_routes(app: FastAPI, service: Service) -> None:
    """Models, predictions, images and saliency maps."""

    @app.get("/v1/models", responses=responses(401, 403, 500, 503, model=schemas.ModelList))
    async def models() -> Response:
        """The models with their findings, thresholds and AUROC on validation images."""
        known = [model.about() for model in service.models.values()]
        required = bool(service.settings.rules.token)
        return sent({"models": known, "intended_use": INTENDED_USE, "token_required": required})

    @app.post("/v1/predict", responses=responses(404, *POSTED, model=schemas.PredictionResponse), openapi_extra=FORM)
    async def predict(request: Request, model: ModelId = "") -> Response:
        """Predictions for each file. An unreadable file does not affect the others."""
        chosen, began = service.model(model), time.perf_counter()
        async with service.uploads.of(request) as uploads, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(service.predict(chosen, upload)) for upload in uploads]
        results = [task.result() for task in running]
        if all("error" in one for one in results):
            several = f"None of the {len(results)} files can be read. The first error: "
            raise Problem(422, (several if len(results) > 1 else "") + str(results[0]["error"]), results=results)
        spent = round(1000 * (time.perf_counter() - began), 1)
        response = {"model": chosen.id, "intended_use": INTENDED_USE, "milliseconds": spent, "results": results}
        if service.log:
            await asyncio.to_thread(service.log.append, response)
        return sent(response)

    pixels = {
        "description": "Pixels as little-endian uint16, row by row; low values are dark (air).",
        "content": {"application/octet-stream": {}},
    }

    @app.post("/v1/image", responses={**responses(*POSTED), 200: pixels}, openapi_extra=FORM)
    async def image(request: Request, side: Side = 1024) -> Response:
        """The decoded image of one file, for display. Its size is in the headers X-Width, X-Height, X-Original-Width
        and X-Original-Height."""
        async with _one(service, request) as upload:
            read = await service.read(upload, depth=16, min_side=side, side=side)
        height, width = read.pixels.shape
        sizes = {"X-Width": width, "X-Height": height, "X-Original-Width": read.width, "X-Original-Height": read.height}
        headers = {name: str(value) for name, value in sizes.items()}
        return Response(read.pixels.astype("<u2").tobytes(), headers=headers, media_type="application/octet-stream")

    @app.post("/v1/explain", responses=responses(404, *POSTED, model=schemas.SaliencyResponse), openapi_extra=FORM)
    async def explain(request: Request, finding: Finding, model: ModelId = "", side: Side = 1024) -> Response:
        """The saliency map (Grad-CAM) of a finding in one file, and boxes around its highest values."""
        chosen = service.model(model)
        if not isinstance(chosen, ServedClassifier):
            raise Problem(404, f"{chosen.id} is a detector and has no saliency maps; its boxes are in /v1/predict.")
        if finding not in chosen.opened.spec.findings:
            known = ", ".join(chosen.opened.spec.findings)
            raise Problem(404, f"Unknown finding {finding[:100]!r} for {chosen.id}. Findings: {known}.")
        async with _one(service, request) as upload:
            return sent(await service.explain(chosen, upload, finding, side))


@contextlib.asynccontextmanager
async def _one(service: Service, request: Request) -> AsyncIterator[Upload]:
    """The only file of a request; an unreadable file is reported as a Problem."""
    async with service.uploads.of(request) as uploads:
        if len(uploads) > 1:
            raise Problem(400, f"The request has {len(uploads)} files, but this route takes one.")
        try:
            yield uploads[0]
        except UnreadableError as error:
            raise Problem(422, str(error)) from None


def _error_handlers(app: FastAPI) -> None:
    """Error responses, each with one sentence."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return Response(error.body, error.status, error.headers, "application/json")

    @app.exception_handler(ExceptionGroup)
    async def several(request: Request, group: ExceptionGroup[Exception]) -> Response:
        """If several files of a request fail, the first error is returned."""
        first = next((one for one in group.exceptions if isinstance(one, Problem)), None)
        if first is None:
            raise group.exceptions[0]
        return await problem(request, first)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        words = {
            404: f"No route {request.url.path[:100]!r}; see /docs.",
            405: f"{request.url.path[:100]} does not allow {request.method[:10]}; see /docs.",
        }
        text = words.get(error.status_code, str(error.detail))
        return await problem(request, Problem(error.status_code, text, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        wrong_values = [f"?{one['loc'][-1]}=: {one['msg'][:1].lower()}{one['msg'][1:]}" for one in error.errors()]
        return await problem(request, Problem(422, "; ".join(wrong_values) + "."))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return await problem(request, Problem(400, "The request ended early."))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return await problem(request, Problem(500, INTERNAL))


def _only(*statuses: int) -> dict[int | str, dict[str, object]]:
    """The error responses of a route."""
    return {status: one for status, one in responses(*statuses).items() if status != 200}


def sent(value: object, status: int = 200) -> Response:
    """As JSON."""
    return Response(dump(value), status, media_type="application/json")
