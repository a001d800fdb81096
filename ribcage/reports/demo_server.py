"""The demo's server: started as a user would start it, sent one test image, and stopped."""

import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ribcage.data import dataset_folder
from ribcage.reports.demo import SERVED
from ribcage.runtime import files

SECONDS = 60.0
"""Within which the server must be ready."""


def ask_server(folder: Path, models: Sequence[Path]) -> None:
    """Start a server, send it a test image, keep its response, and stop it."""
    own = dataset_folder.open(folder / "phantom")
    row = int(np.flatnonzero(own.index.table["split"] == "test")[0])
    _, image = cv2.imencode(".png", np.asarray(own.image(row)))
    words = [sys.executable, "-m", "ribcage", "serve", *map(str, models), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
        try:
            assert server.stdout
            address = next((word for word in server.stdout.readline().split() if word.startswith("http://")), "")
            if not address:
                raise ValueError("The server did not start: run 'ribcage serve' to see why.")
            response = json.loads(post_image(address, f"phantom-{row}.png", image.tobytes()))
        finally:
            server.terminate()
    print(f"{response['results'][0]['file']}: response from {address}")
    files.write_text(folder / SERVED, json.dumps(response, indent=1, ensure_ascii=False) + "\n")


def post_image(address: str, name: str, content: bytes) -> str:
    """The response to a file that is sent as a form, as soon as the server is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + SECONDS
    while True:
        try:
            opener.open(f"{address.rstrip('/')}/healthz", timeout=5).close()
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    request = urllib.request.Request(f"{address.rstrip('/')}/v1/predict", body, kind)
    with opener.open(request, timeout=SECONDS) as response:
        text: str = response.read().decode("utf-8")
        return text
