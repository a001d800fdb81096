"""A screenshot of the viewer of `ribcage serve`: a synthetic radiograph, its predictions and a saliency map.

    python benchmarks/screenshot.py runs/model docs/viewer.png

The radiograph is drawn (`ribcage.data.phantom`); nobody was ever in front of the beam. Needs Chromium.
"""

import argparse
import json
import shutil
import signal
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ribcage.bundle.io import load_bundle
from ribcage.commands import serve
from ribcage.data import phantom
from ribcage.runtime import files
from ribcage.server import process
from ribcage.server.served_models import served_models

PEOPLE: tuple[tuple[str, int, dict[str, float]], ...] = (
    ("chest-1.png", 118, {"Cardiomegaly": 0.9, "Edema": 0.8}),
    ("chest-2.png", 45, {"Effusion": 0.8}),
    ("chest-3.png", 33, {"Pneumonia": 0.9}),
    ("chest-4.png", 60, {}),
)
"""File, patient, severities."""


def main() -> None:
    """Draw, serve, look, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a run, or the folder of a finished model")
    parser.add_argument("out", type=Path, help="the image, a .png")
    parser.add_argument("--finding", default="Edema", help="whose heat-map is shown")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 836), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, served(options.model) as address:
        drawn = [radiograph(Path(work) / name, patient, severities) for name, patient, severities in PEOPLE]
        seen = photograph(address, drawn, options.finding, options.theme, tuple(options.size))
    with files.atomic(options.out) as part:
        part.write_bytes(smaller(seen))
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def smaller(seen: bytes) -> bytes:
    """The same PNG with a quarter of the shades: nobody sees the difference, and it is much shorter."""
    pixels = cv2.imdecode(np.frombuffer(seen, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    coarse = np.minimum(pixels.astype(np.int16) // 4 * 4 + 2, 255).astype(np.uint8)
    return cv2.imencode(".png", coarse, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def radiograph(file: Path, patient: int, severities: dict[str, float]) -> Path:
    """An image of 16 bits of somebody who does not exist."""
    who = phantom.case(
        seed=5, patient=patient, study=0, image=0, view="PA", hospital="B", age=61, female=patient % 2 == 0,
        severities=severities,
    )  # fmt: skip
    cv2.imwrite(str(file), phantom.draw(who, size=1024, depth=16))
    return file


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of a server that is ready."""
    opened = served_models([load_bundle(model)])
    server = process.Server(serve.service(serve.Options((model,), workers=1, threads=1), opened))
    listening = process.bound("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_on, args=(listening,))
    thread.start()
    while server.gate.state == "starting" or not server.started:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with urllib.request.urlopen(f"{address}/v1/models") as answer:
        print("Shown:", json.load(answer)["models"][0]["architecture"])
    try:
        yield address
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join()


def photograph(address: str, drawn: list[Path], finding: str, theme: str, size: tuple[int, int]) -> bytes:
    """The page with these files open, as a PNG."""
    from playwright.sync_api import expect, sync_playwright

    if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
        raise FileNotFoundError("There is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        view = {"width": size[0], "height": size[1]}
        page = browser.new_page(viewport=view, color_scheme="dark" if theme == "dark" else "light")  # type: ignore[arg-type]
        page.goto(address)
        page.set_input_files("#files", drawn)
        expect(page.locator(".study.done")).to_have_count(len(drawn), timeout=120_000)
        page.locator(f'[data-name="{finding}"]').click()
        expect(page.locator(".legend").first).to_contain_text("saliency for", timeout=120_000)
        page.wait_for_timeout(1000)
        seen = page.screenshot()
        browser.close()
    return seen


if __name__ == "__main__":
    main()
