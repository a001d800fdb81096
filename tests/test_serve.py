"""ribcage serve: wrong options, tokens, ports, and an end by a signal."""

import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
from refusals import has_facts
from servers import cloud, head, made, png

from ribcage import cli
from ribcage.bundle import deployment
from ribcage.bundle.io import load_classifier
from ribcage.bundle.spec import DetectorSpec
from ribcage.server import process

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of mutually exclusive findings, and a detector."""
    work = tmp_path_factory.mktemp("模型 of mine")
    return {
        "either": made(work / "either", loss="cross-entropy"),
        "boxes": made(
            work / "boxes", stored=64, detector=DetectorSpec("cam", {"share": 0.5, "keep": 5}), thresholds={}
        ),
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0"),
        (
            ["--port", "70000", "--max-files", "0"],
            "--port 70000 .*65535; --max-files 0 .*10,000",
        ),
        (["--token-file", "none.txt"], "--token-file none.txt"),
        (["--batch", "0", "--batch-delay", "-1"], "--batch 0 .*1; --batch-delay -1 .*10,000"),
        (["--workers", "100000000"], "--workers .*256"),
    ],
)
def test_what_cannot_be_served_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "model", *words]) == 2
    said = capsys.readouterr().err
    assert re.search(says, said) and said.count("\n") == 1


def test_a_short_token_is_no_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", "short")
    assert cli.main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "RIBCAGE_TOKEN" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with process.bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(folders["boxes"]), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert has_facts(said, port, "--port") and said.count("\n") == 1


def test_a_model_that_is_away_from_itself_is_not_served(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = partial(deployment.expected, load_classifier(folders["either"]))
    monkeypatch.setattr(deployment, "write_onnx", lambda *a: None)
    monkeypatch.setattr(deployment, "opened_onnx", lambda *a: lambda images: own(images) + 1e-3)
    assert cli.main(["serve", str(folders["either"]), "--port", "0", "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert "either" in error and "0.001," in error and "0.0001" in error


def test_a_signal_ends_it_after_what_was_begun(folders: dict[str, Path]) -> None:
    words = [sys.executable, "-m", "ribcage", "serve", str(folders["boxes"]), "--port", "0", "--workers", "1"]
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + png(cloud())
        + b"\r\n--b--\r\n"
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stderr
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", child.stdout.readline())[1])  # type: ignore[index]
        base = f"http://127.0.0.1:{port}"
        assert child.stdout.readline() == f"API: {base}/docs\n"
        while httpx.get(base + "/healthz").json() != {"state": "ready"}:
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall(head(f"Content-Length: {len(body)}", "/v1/predict") + body[:50])
            time.sleep(0.3)
            child.send_signal(signal.SIGTERM)
            until = time.monotonic() + 10
            while (health := httpx.get(base + "/healthz")).status_code == 200 and time.monotonic() < until:
                time.sleep(0.02)
            assert health.status_code == 503 and health.json() == {"state": "stopping"}
            refused = httpx.get(base + "/v1/models")
            assert refused.status_code == 503 and refused.headers["Retry-After"]
            line.sendall(body[50:])
            answer = b""
            while part := line.recv(1 << 16):
                answer += part
            assert answer.startswith(b"HTTP/1.1 200") and b"boxes" in answer
        assert child.wait(30) == 0
        assert child.stdout.read().endswith("\nStopped.\n")
        assert all("preparing the models" in line for line in child.stderr.read().splitlines())
