"""Serve models over HTTP: a viewer in the browser and a JSON API, whose reference page is at /docs.

Uploaded images are not stored, and no data is sent elsewhere. Access from other machines requires --host 0.0.0.0 and a
token, given by --token-file or the environment variable RIBCAGE_TOKEN. Research use only.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime import files
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    import socket

    from ribcage.server.app import Service, Settings
    from ribcage.server.served_models import ServedModel

POSITIONAL = ("models",)
PLACES = {"models": Place.MODEL}
EXAMPLES = ("serve runs/chexnet", "serve runs/chexnet runs/boxes --port 8080 --token-file token.txt")
GROUPS = {"batch": "Server", "threads": "Server"}
NEEDED = {
    "fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client", "onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime",
}  # fmt: skip
"""Module → package."""
BOUNDS: dict[str, tuple[float, int]] = {
    "batch_delay": (0, 10_000), "workers": (0, 256), "max_requests": (1, 10_000),
    "max_files": (1, 10_000), "max_megabytes": (0.001, 100_000), "max_megapixels": (0.0001, 1_000),
    "max_seconds": (0.001, 86_400),
}  # fmt: skip
"""What the server's numbers can be: what one machine can hold, and a request of a day at most."""
SHORTEST = 16
"""Letters of a token."""


@dataclass(frozen=True)
class Options:
    """What to serve, where, and how much to take on."""

    models: tuple[Path, ...]
    """Run folders or bundles."""
    port: int = 8000
    """Port to listen on; 0 means any free port."""
    host: str = "127.0.0.1"
    """Address to listen on; an address that other machines can reach requires a token."""
    token_file: Path | None = None
    """File with the access token (default: the value of RIBCAGE_TOKEN, if set)."""
    log_predictions: Path | None = None
    """Folder in which predictions are logged as JSON lines, without images (default: nothing is stored)."""
    batch: int = 8
    """Maximum batch size per model."""
    batch_delay: float = 2.0
    """Maximum time in milliseconds that an image waits for other images to form a batch."""
    threads: int = 0
    """Number of CPU threads per model; 0 means one per core."""
    workers: int = 0
    """Number of processes that decode images; 0 means one per core."""
    window: str = ""
    """DICOM window: the name of a window in the file, such as LUNG, or CENTRE,WIDTH (default: the window of the
    file; see docs/datasets.md)."""
    max_requests: int = 64
    """Maximum number of concurrent requests with images; further requests receive status 503."""
    max_files: int = 32
    """Maximum number of files per request."""
    max_megabytes: float = 128.0
    """Maximum size of a request in MB."""
    max_megapixels: float = 50.0
    """Maximum size of an image in megapixels."""
    max_seconds: float = 60.0
    """Time limit per request, in seconds."""


def run(options: Options) -> None:
    """Open the models and serve them until a signal comes."""
    from ribcage.bundle import ood
    from ribcage.bundle.io import load_bundle
    from ribcage.runtime import limits

    if absent := missing():
        raise ImportError(f"Serving needs {', '.join(absent)}: pip install 'ribcage[serve]'")
    limits.check_options(options, wrong(options))
    from ribcage.server import process
    from ribcage.server.app import REFERENCE
    from ribcage.server.served_models import served_models

    models = served_models([load_bundle(folder) for folder in options.models])
    listening = process.bound(options.host, options.port)
    server = process.Server(service(options, models))
    print(
        f"Serving {', '.join(models)} at {address(listening)} (Ctrl-C stops the server). Research use only.", flush=True
    )
    print(f"API: {address(listening).rstrip('/')}{REFERENCE}", flush=True)
    for name, asked in models.items():
        for said in filter(None, (asked.opened.spec.warning, ood.weakness(asked.opened.ood))):
            print(f"! {name}: {said}", flush=True)
    server.serve_on(listening)
    print("Stopped.")


def missing() -> list[str]:
    """The packages that are needed and not installed."""
    import importlib.util

    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def wrong(options: Options) -> list[str]:
    """What is wrong with the options."""
    from ribcage.imaging.dicom import value_of_interest
    from ribcage.server.gate import is_loopback

    said = [] if options.models else ["MODELS is missing: pass run folders or bundles"]
    if not 0 <= options.port < 1 << 16:
        said.append(f"--port {options.port} must be from 0 to 65535")
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(options, name) <= most:
            said.append(f"--{name.replace('_', '-')} {getattr(options, name):g} must be from {least:g} to {most:,}")
    try:
        value_of_interest.parse_window(options.window)
    except ValueError as error:
        said.append(str(error).rstrip("."))
    token, problem = secret(options)
    said += [problem] if problem else []
    if not is_loopback(options.host) and not token and not problem:
        said.append(
            f"--host {options.host} can be reached from other machines, so a token is required: pass --token-file or "
            f"RIBCAGE_TOKEN"
        )
    return said


def secret(options: Options) -> tuple[str, str]:
    """The token, "" for none, and what is wrong with it."""
    token, where = os.environ.get("RIBCAGE_TOKEN", "").strip(), "RIBCAGE_TOKEN"
    if options.token_file:
        where = str(options.token_file)
        try:
            token = files.regular(options.token_file).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            return "", f"--token-file {where} cannot be read (not text)"
        except OSError as error:
            return "", f"--token-file {where} cannot be read ({error.strerror or 'not a regular file'})"
    if (options.token_file or token) and (len(token) < SHORTEST or not token.isascii() or not token.isprintable()):
        return "", f"{where}: the token needs at least {SHORTEST} ASCII letters or digits"
    return token, ""


def service(options: Options, models: "dict[str, ServedModel]") -> "Service":
    """The service behind the pages and the API."""
    from ribcage.server.app import Service
    from ribcage.server.prediction_log import PredictionLog

    return Service(
        models, settings(options), PredictionLog(options.log_predictions) if options.log_predictions else None
    )


def settings(options: Options) -> "Settings":
    """The limits, in the server's units."""
    from ribcage.runtime.threads import available_cores
    from ribcage.server.app import Settings
    from ribcage.server.gate import AccessRules, is_loopback

    rules = AccessRules(secret(options)[0], is_loopback(options.host), options.max_requests, options.max_seconds)
    return Settings(
        batch=options.batch, wait=options.batch_delay / 1000, threads=options.threads,
        readers=options.workers or available_cores(), most_bytes=round(1e6 * options.max_megabytes),
        most_files=options.max_files, most_pixels=1e6 * options.max_megapixels, rules=rules,
        window=options.window,
    )  # fmt: skip


def address(listening: "socket.socket") -> str:
    """The address for a browser."""
    host, port, *_ = listening.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
