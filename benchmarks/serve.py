"""Load test: `ribcage serve` and a plain server (FastAPI, eager torch, one forward pass per request).

    python benchmarks/serve.py --seconds 4 --rounds 2

Both get the same images, alternating, from 1, 8 and 64 clients on loopback; random weights, 224 pixels, 14 findings.
The clients share the cores with the server. Prints images per second, the 50th and 99th percentile of the request
time in milliseconds, and the ratios of the two servers.
"""

import argparse
import contextlib
import http.client
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from ribcage.bundle import deployment
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

NAMES, SIDE, FINDINGS = ("eeea_net_c2", "densenet121"), 224, tuple(f"finding {n}" for n in range(14))
CLIENTS = (1, 8, 64)


def made(name: str, folder: Path) -> Path:
    """A model of this architecture with random weights."""
    torch.manual_seed(0)
    method = Supervised(Backbone(name, size=(SIDE, SIDE)), FINDINGS).eval()
    seen = TrainingRecord(images=0, patients=0, selection=0)
    model = ModelSpec(name, FINDINGS, (SIDE, SIDE), SIDE, "pad", 0.5, 0.25, training=seen)
    save_bundle(folder, method, model, Provenance.nothing())
    return folder


def bodies(side: int, count: int = 16) -> list[bytes]:
    """Forms with one PNG each."""
    draw, found = np.random.default_rng(0), []
    for cloud in list(deployment.patterns(128, count)):
        large = np.asarray(cv2.resize(cloud, (side, side), interpolation=cv2.INTER_CUBIC), np.float64)
        grain = np.clip(large + draw.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
        head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        found.append(head + cv2.imencode(".png", grain)[1].tobytes() + b"\r\n--edge--\r\n")
    return found


# ---- the plain server


def plain(folder: Path, port: int) -> None:
    """The plain server."""
    import uvicorn
    from fastapi import FastAPI, UploadFile

    opened, app = load_classifier(folder), FastAPI()
    model = opened.method.eval()

    @app.post("/v1/predict")
    async def predict(files: UploadFile) -> dict[str, float]:
        gray = cv2.imdecode(np.frombuffer(await files.read(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert gray is not None
        small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            shown = torch.from_numpy(small).float()[None, None].div(255).sub(0.5).div(0.25)
            found = model.logits(shown).sigmoid()[0].tolist()
        return dict(zip(FINDINGS, found, strict=True))

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"state": "ready"}

    uvicorn.run(app, port=port, log_level="critical", access_log=False)


# ---- measuring


@dataclass
class Load:
    """What was measured of one server at so many clients."""

    rates: list[float] = field(default_factory=list)
    """Images a second, of each round."""
    times: list[float] = field(default_factory=list)
    """Milliseconds of each request."""
    refused: int = 0

    def at(self, share: float) -> float:
        """A percentile of the times."""
        return float(np.quantile(self.times, share)) if self.times else float("nan")

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)


@contextlib.contextmanager
def process(words: list[str]) -> Iterator[int]:
    """A server that says its port first; ended afterwards."""
    calm = {**os.environ, "GOMP_SPINCOUNT": "0"}  # as ribcage has it: threads that spin spoil a busy machine
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, env=calm) as child:
        try:
            assert child.stdout
            found = re.search(r":(\d+)/", child.stdout.readline())
            assert found, "The server did not start."
            port = int(found[1])
            while not ready(port):
                time.sleep(0.2)
            yield port
        finally:
            child.terminate()


def ready(port: int) -> bool:
    """Whether it answers."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        line.request("GET", "/healthz")
        return line.getresponse().status == 200
    except OSError:
        return False
    finally:
        line.close()


def loaded(port: int, clients: int, seconds: float, sent: list[bytes], load: Load) -> None:
    """So many clients, each asking again as soon as it is answered."""
    until, times, refused = time.perf_counter() + seconds, list[float](), list[int]()

    def work(number: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.perf_counter() < until:
            number, began = number + 1, time.perf_counter()
            kind = {"Content-Type": "multipart/form-data; boundary=edge"}
            line.request("POST", "/v1/predict", sent[number % len(sent)], kind)
            answer = line.getresponse()
            answer.read()
            (times if answer.status == 200 else refused).append(1000 * (time.perf_counter() - began))  # type: ignore[arg-type]
        line.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    load.rates.append(len(times) / (time.perf_counter() - began))
    load.times += times
    load.refused += len(refused)


def measured(name: str, options: argparse.Namespace, sent: list[bytes], work: Path) -> dict[int, tuple[Load, Load]]:
    """Clients → the served one, the plain one."""
    folder = made(name, work / name)
    words = ["-m", "ribcage", "serve", str(folder), "--port", "0", *options.serve.split()]
    own = [str(Path(__file__)), "--plain", str(folder)]
    with process(words) as served, process(own) as other:
        for port in (served, other):
            loaded(port, 2, 1.0, sent, Load())  # to warm up
        found = {clients: (Load(), Load()) for clients in CLIENTS}
        for clients in CLIENTS * options.rounds:
            for port, load in zip((served, other), found[clients], strict=True):
                loaded(port, clients, options.seconds, sent, load)
    return found


def table(found: dict[str, dict[int, tuple[Load, Load]]]) -> str:
    """In Markdown."""
    heads = ("images/s", "p50, ms", "p99, ms")
    columns = ["model", "clients", *(f"{own} {head}" for own in ("ribcage", "plain") for head in heads)]
    columns += ["throughput ratio", "p99 ratio"]
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, loads in found.items():
        for clients, (served, other) in loads.items():
            numbers = [f"{one:.1f}" for load in (served, other) for one in (load.rate, load.at(0.5), load.at(0.99))]
            ratios = [f"{served.rate / other.rate:.2f}", f"{other.at(0.99) / served.at(0.99):.2f}"]
            rows.append(" | ".join(["| " + name, str(clients), *numbers, *ratios]) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="by turns")
    parser.add_argument("--side", type=int, default=512, help="of the images that are sent")
    parser.add_argument("--serve", default="", help="more options of ribcage serve, as one word")
    parser.add_argument("--models", nargs="+", default=list(NAMES))
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        print(f"http://127.0.0.1:{port}/", flush=True)
        return plain(options.plain, port)
    sent = bodies(options.side)
    with tempfile.TemporaryDirectory() as work:
        found = {name: measured(name, options, sent, Path(work)) for name in options.models}
    refused = sum(load.refused for loads in found.values() for both in loads.values() for load in both)
    size = f"PNG of {options.side} pixels, {np.mean([len(one) for one in sent]) / 1e3:,.0f} kB"
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {size}; {refused} refused")
    print(table(found))


if __name__ == "__main__":
    main()
