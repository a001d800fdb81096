"""A server in a thread, a model for it, and images to send."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import torch

from ribcage.bundle import deployment
from ribcage.bundle.io import load_bundle, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.commands import serve
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.server import process
from ribcage.server.app import Service
from ribcage.server.served_models import served_models

SIDE = 48


def made(folder: Path, stored: int = SIDE, **options: Any) -> Path:
    """A model whose predictions differ from image to image."""
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), ("Mass", "Nodule"), loss=options.get("loss", "bce"))
    torch.nn.init.normal_(method.head.weight, std=3.0)
    facts: dict[str, Any] = {"temperature": (1.3, 1.3), "training": TrainingRecord(images=1, patients=1, selection=1)}
    model = ModelSpec("test_resnet", method.findings, (32, 32), stored, "pad", 0.45, 0.22, **(facts | options))
    save_bundle(folder, method.eval(), model, Provenance.nothing())
    return folder


class Running:
    """A server in a thread."""

    def __init__(self, service: Service) -> None:
        self.service, self.server = service, process.Server(service)
        listening = process.bound("127.0.0.1", 0)
        self.address = listening.getsockname()
        self.base = f"http://127.0.0.1:{self.address[1]}"
        self.thread = threading.Thread(target=self.server.serve_on, args=(listening,))

    def __enter__(self) -> "Running":
        self.thread.start()
        while self.server.gate.state == "starting" or not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.handle_exit(signal.SIGTERM, None)
        self.thread.join(60)
        assert not self.thread.is_alive()

    def post(self, path: str, *sent: bytes | tuple[str, bytes], **options: Any) -> httpx.Response:
        """Files, which may have names."""
        named = [one if isinstance(one, tuple) else ("a.png", one) for one in sent]
        return httpx.post(self.base + path, files=[("files", one) for one in named], timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.base + path, timeout=60, **options)

    def raw(self, text: bytes, seconds: float = 20) -> bytes:
        """What comes back, until the connection is closed or nothing more comes."""
        with socket.create_connection(self.address, timeout=seconds) as line:
            line.sendall(text)
            found = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := line.recv(1 << 16):
                    found += part
                    if b"\r\n\r\n" in found and b"}" in found:
                        break
            return found


@contextlib.contextmanager
def running(models: dict[str, Path] | None = None, **options: Any) -> Iterator[Running]:
    """As `ribcage serve` does it. Without models it starts at once, and still shows images."""
    opened = served_models([load_bundle(folder) for folder in (models or {}).values()])
    asked = serve.Options(models=(), **({"workers": 1, "threads": 1} | options))
    with Running(serve.service(asked, opened)) as server:
        yield server


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def cloud(width: int = 90, height: int = 70, kind: type = np.uint8) -> np.ndarray:
    """An image with something to see."""
    top = np.iinfo(kind).max
    return (cv2.resize(deployment.patterns(64)[5], (width, height)).astype(np.float64) / 255 * top).astype(kind)


def head(length: str = "Content-Length: 9999999999", path: str = "/v1/image") -> bytes:
    kind = "Content-Type: multipart/form-data; boundary=b"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{length}\r\n\r\n".encode()
