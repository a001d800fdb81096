"""A server answers as the model does, whatever it is sent, and ends when it has finished what it began."""

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from models import trained
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from ribcage import cli
from ribcage.bundle import deployment, ood
from ribcage.bundle.io import load_bundle, load_classifier, load_detector, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.commands import serve
from ribcage.data import dataset_folder
from ribcage.data.provenance import Provenance
from ribcage.imaging import image_file
from ribcage.imaging.gray_image import Limits, UnreadableError
from ribcage.inference import explanation, image_files
from ribcage.methods.supervised import Supervised
from ribcage.metrics.reliability import FindingReliability, ReliabilityBin
from ribcage.models.backbone import Backbone
from ribcage.server import gate, process, reading
from ribcage.server.app import Service
from ribcage.server.batching import Batcher, FullError
from ribcage.server.served_models import ServedClassifier, served_models

pytestmark = pytest.mark.integration

SIDE = 48
TOKEN = "a-token-of-enough-letters"


# ---- models, images, servers


def made(folder: Path, stored: int = SIDE, **options: Any) -> Path:
    """A model whose answers differ from image to image."""
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), ("Mass", "Nodule"), loss=options.get("loss", "bce"))
    torch.nn.init.normal_(method.head.weight, std=3.0)
    facts: dict[str, Any] = {"temperature": (1.3, 1.3), "training": {"images": 1, "patients": 1, "selection": 1}}
    model = ModelSpec("test_resnet", method.findings, (32, 32), stored, "pad", 0.45, 0.22, **(facts | options))
    save_bundle(folder, method.eval(), model, Provenance.nothing())
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic radiographs."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", str(SIDE)]) == 0
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Path]:
    """One that learnt, one whose findings exclude each other, one that finds boxes."""
    work = tmp_path_factory.mktemp("模型 of mine")
    return {
        "learnt": trained(work / "learnt", dataset_folder.open(data)),
        "either": made(work / "either", loss="cross-entropy"),
        "boxes": made(work / "boxes", stored=64, detector={"head": "cam", "share": 0.5, "keep": 5}, thresholds={}),
    }


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
    asked = serve.Options(models=(), **({"readers": 1, "threads": 1} | options))
    with Running(serve.service(asked, opened)) as server:
        yield server


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[Running]:
    with running(folders, readers=2) as made:
        yield made


@pytest.fixture(scope="module")
def bare() -> Iterator[Running]:
    """One that has no model, and small limits."""
    with running(max_megabytes=0.3, max_files=3, max_requests=2, max_seconds=2) as made:
        yield made


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def cloud(width: int = 90, height: int = 70, kind: type = np.uint8) -> np.ndarray:
    """An image with something to see."""
    top = np.iinfo(kind).max
    return (cv2.resize(deployment.patterns(64)[5], (width, height)).astype(np.float64) / 255 * top).astype(kind)


def dicom(pixels: np.ndarray, **elements: Any) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = elements.pop("syntax", "1.2.840.10008.1.2.1")
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    made = Dataset()
    made.file_meta, made.SOPClassUID, made.SOPInstanceUID = meta, meta.MediaStorageSOPClassUID, "1.2.3"
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape, 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit = made.BitsStored - 1
    made.PatientName, made.PatientID, made.StudyInstanceUID, made.PatientAge = "Doe^Jane", "P-77", "1.2.99", "061Y"
    made.PixelData = elements.pop("data", pixels.tobytes())
    for name, value in elements.items():
        setattr(made, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A small PNG that says it is large; its zeros are as many as it says, up to a few megabytes."""
    zeros = zlib.compress(bytes(min(side * (side + 1), 3_000_000)), 9)
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")


def probabilities(result: dict[str, Any]) -> list[float]:
    return [one["probability"] for one in result["findings"]]


# ---- what it answers


@pytest.mark.parametrize("name", ["learnt", "either"])
def test_it_answers_as_predict_does(name: str, server: Running, folders: dict[str, Path], tmp_path: Path) -> None:
    sent = {
        "片 8.png": png(cloud()),
        "16.png": png(cloud(33, 80, np.uint16)),
        "large.jpg": cv2.imencode(".jpg", cloud(500, 410))[1].tobytes(),
        "turned.tiff": cv2.imencode(".tiff", cloud(60, 20))[1].tobytes(),
        "d.dcm": dicom(cloud(70, 70, np.uint16), PhotometricInterpretation="MONOCHROME1"),
    }
    for each, content in sent.items():
        (tmp_path / each).write_bytes(content)
    opened = load_classifier(folders[name])
    wanted = image_files.probabilities(opened, [tmp_path / each for each in sent])
    answer = server.post(f"/v1/predict?model={name}", *sent.items()).json()
    assert [one["file"] for one in answer["results"]] == list(sent)
    found = np.array([probabilities(one) for one in answer["results"]])
    np.testing.assert_allclose(found, wanted[list(opened.spec.findings)].to_numpy(), atol=1e-4)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_a_split_through_the_server_is_the_split_evaluated(
    server: Running, folders: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """Seed 000's end-to-end check: a model that is served is the model that was tested."""
    out = tmp_path / "evaluated"
    words = ["evaluate", str(folders["learnt"]), "--data", str(data), "--resamples", "20", "--out", str(out)]
    assert cli.main(words) == 0
    table = pd.read_parquet(out / "predictions.parquet")
    images = dataset_folder.open(data)
    sent = [(f"{row}.png", png(np.asarray(images.image(int(row))))) for row in table["row"]]
    with ThreadPoolExecutor(4) as pool:  # several at once, so that batches are mixed
        answers = list(pool.map(lambda one: server.post("/v1/predict", one).json()["results"][0], sent))
    names = [one["name"] for one in answers[0]["findings"]]
    np.testing.assert_allclose([probabilities(one) for one in answers], table[names].to_numpy(), atol=1e-4)
    assert len(sent) > 8 and table[names].to_numpy().std(axis=0).max() > 1e-3


def test_boxes_are_those_of_predict(server: Running, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(cloud(130, 60)))
    opened = load_detector(folders["boxes"])
    wanted = image_files.box_rows(opened, [tmp_path / "a.png"], least=[0.0, 0.0])
    found = server.post("/v1/predict?model=boxes", png(cloud(130, 60))).json()["results"][0]
    columns = ["finding", "score", "x", "y", "width", "height"]
    pd.testing.assert_frame_equal(pd.DataFrame(found["boxes"])[columns], wanted[columns], check_dtype=False, atol=1e-3)
    assert found["findings"] == [] and len(found["boxes"]) > 0


def test_models_say_what_they_know(server: Running, folders: dict[str, Path]) -> None:
    told = server.get("/v1/models").json()
    assert [one["id"] for one in told["models"]] == ["learnt", "either", "boxes"] and told["token_required"] is False
    learnt, model = told["models"][0], load_classifier(folders["learnt"]).spec
    assert learnt["kind"] == "classifier" and told["models"][2]["kind"] == "detector"
    assert learnt["input"] == {"side": SIDE, "fit": model.fit} and learnt["data"][0]["name"] == "phantom"
    assert "synthetic images only" in learnt["warning"]
    assert learnt["ood_weakness"] == ood.weakness(load_classifier(folders["learnt"]).ood) != ""
    first = learnt["findings"][0]
    assert first["name"] == model.findings[0]
    assert first["thresholds"] == {rule: chosen[0] for rule, chosen in model.thresholds.items()}


def test_thresholds_and_reliability_stand_beside_a_probability(folders: dict[str, Path]) -> None:
    opened = load_classifier(folders["either"])
    bins = (ReliabilityBin(0.0, 30, 1, 0.01, 0.2), ReliabilityBin(0.5, 10, 8, 0.5, 0.9))
    fared = FindingReliability(40, 9, (0.8, 0.7, 0.9), bins)
    model = replace(opened.spec, thresholds={"youden": (0.3, None)}, reliability=(fared, replace(fared, bins=())))
    served = ServedClassifier("m", replace(opened, spec=model))
    mass, nodule = served._findings([0.6, 0.4])
    assert mass["above_threshold"] == {"youden": True} and nodule["above_threshold"] == {"youden": None}
    assert mass["reliability"] == {"images": 10, "positives": 8, "frequency": 0.8, "low": 0.5, "high": 0.9}
    assert nodule["reliability"] is None
    told = served.about()["findings"][0]["auroc"]
    assert told == {"value": 0.8, "low": 0.7, "high": 0.9, "n": 40, "positives": 9}


def test_a_dicom_tells_about_itself_but_not_whose_it_is(server: Running) -> None:
    answer = server.post("/v1/predict", ("jane doe.dcm", dicom(cloud(), ViewPosition="PA", Manufacturer="Maker")))
    told = answer.json()["results"][0]
    syntax = "1.2.840.10008.1.2.1"
    assert told["tags"] == {"view": "PA", "sex": "", "age": "61", "manufacturer": "Maker", "transfer_syntax": syntax}
    assert "P-77" not in answer.text and "1.2.99" not in answer.text and "Doe" not in answer.text


def test_the_window_of_dicom_files_can_be_chosen() -> None:
    from test_dicom import dataset, written

    made = dataset(WindowCenter=["900", "2000"], WindowWidth=["1000", "3000"])
    made.WindowCenterWidthExplanation = ["SOFT", "LUNG"]
    shown = []
    for window in ("", "LUNG"):
        with running(window=window) as one:
            shown.append(one.post("/v1/image?side=64", ("a.dcm", written(made))).content)
    assert len(shown[0]) == len(shown[1]) and shown[0] != shown[1]
    with pytest.raises(ValueError, match="--window"):
        serve.run(serve.Options((Path("model"),), window="9,0"))


def test_a_image_comes_back_to_be_shown(server: Running) -> None:
    pixels = cloud(90, 70, np.uint16)
    answer = server.post("/v1/image?side=64", png(pixels))
    sizes = [int(answer.headers[f"X-{name}"]) for name in ("Width", "Height", "Original-Width", "Original-Height")]
    assert sizes == [64, 50, 90, 70]
    shown = np.frombuffer(answer.content, "<u2").reshape(50, 64)
    np.testing.assert_array_equal(shown, cv2.resize(pixels, (64, 50), interpolation=cv2.INTER_AREA))
    whole = server.post("/v1/image?side=4096", png(cloud(90, 70)))
    np.testing.assert_array_equal(np.frombuffer(whole.content, "<u2").reshape(70, 90), cloud(90, 70) * np.uint16(257))


def test_a_map_is_the_one_of_predict(server: Running, folders: dict[str, Path]) -> None:
    opened, sent = load_classifier(folders["either"]), png(cloud(90, 70))
    finding = opened.spec.findings[1]
    told = server.post(f"/v1/explain?model=either&finding={finding}&side=60", sent).json()
    rows, columns = told["grid"]
    assert min(told["grid"]) < 6 and f"{rows} × {columns} cells" in told["warning"]
    read = image_file.decode_image(sent, "a.png", min_side=SIDE)
    wanted = explanation.file_heatmaps(opened, read, [finding], side=60)[0]
    heat = cv2.imdecode(np.frombuffer(base64.b64decode(told["saliency_map"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert heat.shape == wanted.shape == (told["height"], told["width"])
    np.testing.assert_allclose(heat / 255, wanted, atol=2 / 255)
    assert (
        heat.max() > 0
        and [one["x"] for one in told["boxes"]] == explanation.heat_boxes_in_file(wanted, (90, 70))[:, 0].tolist()
    )


def test_one_bad_file_fails_alone(server: Running) -> None:
    answer = server.post("/v1/predict", ("a.png", png(cloud())), ("b.png", b"no image"), ("c.png", png(cloud())))
    first, bad, last = answer.json()["results"]
    assert answer.status_code == 200 and probabilities(first) == probabilities(last)
    assert set(bad) == {"file", "error"} and bad["error"].startswith("b.png is not an image")


# ---- what is hostile


def hostile() -> dict[str, bytes]:
    whole, jpeg = png(cloud()), cv2.imencode(".jpg", cloud())[1].tobytes()
    scan = dicom(cloud(kind=np.uint16))
    return {
        "empty": b"",
        "text": b"hello",
        "cut PNG": whole[: len(whole) // 2],
        "cut JPEG": jpeg[: len(jpeg) // 2],
        "flipped PNG": whole[:60] + bytes([whole[60] ^ 255]) + whole[61:],
        "zip": b"PK\x03\x04" + bytes(500),
        "GIF": b"GIF89a" + bytes(50),
        "page": b"<!DOCTYPE html><script>alert(1)</script>",
        "PNG of 2^31 pixels a side": bomb(2**31 - 1),
        "PNG of 40,000 pixels a side": bomb(40_000),
        "PNG with too few rows": bomb(7_000),
        "PNG that is a line": png(np.zeros((1, 3000), np.uint8)),
        "DICOM cut": scan[: len(scan) // 2],
        "DICOM of a million frames": dicom(cloud(), NumberOfFrames=1_000_000),
        "DICOM that is no image": dicom(cloud(), data=b"", Rows=0, Columns=0),
        "DICOM of more rows than bytes": dicom(cloud(), Rows=60_000, Columns=60_000),
        "DICOM of another syntax": dicom(
            cloud(), syntax="1.2.840.10008.1.2.4.90", data=encapsulate([b"\xff\x4f\xff\x51" + bytes(60) + b"\xff\xd9"])
        ),
        "DICOM retired": dicom(cloud(), syntax="1.2.840.10008.1.2.4.53", data=encapsulate([bytes(64)])),
        "DICOM of an unknown syntax": dicom(cloud(), syntax="1.2.3.4.5.6"),
        "DICOM mark alone": bytes(128) + b"DICM",
        "DICOM with a length of 4 GB": scan[:-9000] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFFE),
    }


@pytest.mark.parametrize("kind", hostile())
def test_a_hostile_file_is_one_sentence(kind: str, server: Running) -> None:
    answer = server.post("/v1/predict", ("x.bin", hostile()[kind]))
    said = answer.json()["error"]
    assert answer.status_code == 422 and said.startswith("x.bin") and said.endswith((".", ")")) and "\n" not in said
    assert answer.json()["results"] == [{"file": "x.bin", "error": said}]
    assert server.post("/v1/image", hostile()[kind]).status_code == 422
    assert server.post("/v1/explain?finding=Mass", hostile()[kind]).status_code == 422


NAMES = {
    "../../etc/passwd": "passwd",
    "C:\\fakepath\\x.png": "x.png",
    "<img src=x onerror=alert(1)>.png": "<img src=x onerror=alert(1)>.png",
    "胸部 正位.png": "胸部 正位.png",
    "a\u202egnp.exe": "a?gnp.exe",
    "n" * 5000: "n" * 200,
    "..": "..",
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_names_are_text(name: str, server: Running) -> None:
    answer = server.post("/v1/predict", (name, png(cloud())))
    if len(name) > 1000:  # a header of a part may not be endless
        assert answer.status_code == 400 and "form" in answer.json()["error"]
    else:
        assert answer.json()["results"][0]["file"] == NAMES[name]


FORMS: dict[str, tuple[dict[str, str], bytes]] = {
    "no form": ({"content-type": "application/json"}, b"{}"),
    "no type": ({}, b"x"),
    "no boundary": ({"content-type": "multipart/form-data"}, b"x"),
    "boundary too long": ({"content-type": f"multipart/form-data; boundary={'b' * 3000}"}, b"x"),
    "never begun": ({"content-type": "multipart/form-data; boundary=b"}, b"hello"),
    "never ended": (
        {"content-type": "multipart/form-data; boundary=b"},
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nxyz',
    ),
    "no name": (
        {"content-type": "multipart/form-data; boundary=b"},
        b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n",
    ),
    "other name": (
        {"content-type": "multipart/form-data; boundary=b"},
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n--b--\r\n',
    ),
    "no file": (
        {"content-type": "multipart/form-data; boundary=b"},
        b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n',
    ),
    "nothing": ({"content-type": "multipart/form-data; boundary=b"}, b"--b--\r\n"),
    "strange letters": (
        {"content-type": "multipart/form-data; boundary=b; charset=base64"},
        b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"; filename="a"\r\n\r\nx\r\n--b--\r\n',
    ),
    "headers without end": ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\n" + b"A: b\r\n" * 9000),
    "header without end": ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\nA: " + b"b" * 200_000),
    "lines before": ({"content-type": "multipart/form-data; boundary=b"}, b"\r\n" * 100_000),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_strange_form_is_one_sentence(kind: str, server: Running) -> None:
    headers, body = FORMS[kind]
    answer = httpx.post(server.base + "/v1/predict", headers=headers, content=body, timeout=60)
    assert answer.status_code in (400, 415), answer.text
    assert set(answer.json()) == {"error"} and answer.json()["error"].endswith(".")


def test_what_is_no_http_is_refused_in_json(bare: Running) -> None:
    answer = bare.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b'{"error":"' in answer
    assert b"nosniff" in answer


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/predict?model=none", 404, "Unknown model 'none'. Models: learnt, either, boxes."),
        ("/v1/explain?finding=Moss&model=either", 404, "Unknown finding 'Moss' of either. Findings: Mass, Nodule."),
        ("/v1/explain?finding=Mass&model=boxes", 404, "boxes is a detector"),
        ("/v1/explain", 422, "?finding=: field required."),
        ("/v1/image?side=100000", 422, "?side=: input should be less than or equal to 4096."),
        ("/v1/image?side=x", 422, "?side=: input should be a valid integer"),
        ("/v1/nothing", 404, "No route '/v1/nothing'"),
        ("/v1/models", 405, "/v1/models does not take POST"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(path: str, status: int, says: str, server: Running) -> None:
    answer = server.post(path, png(cloud()))
    assert answer.status_code == status and answer.json()["error"].startswith(says)


def test_one_file_is_shown_at_a_time(server: Running) -> None:
    answer = server.post("/v1/image", png(cloud()), png(cloud()))
    assert answer.status_code == 400 and "2 files" in answer.json()["error"]


def test_the_page_leads_to_no_other_file(bare: Running) -> None:
    for path in (
        "/viewer/../app.py",
        "/viewer/%2e%2e/app.py",
        "/viewer/..%2fapp.py",
        "/viewer/.hidden.css",
        "/viewer/x.py",
        f"/viewer/{'x' * 3000}.js",
        "/viewer/%00.js",
    ):
        answer = bare.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404"), path


# ---- reading processes


def test_a_reading_process_that_dies_takes_one_file_with_it() -> None:
    reader = reading.Reader(Limits(), 60)
    sent = png(np.random.default_rng(0).integers(0, 256, (4000, 4000), np.uint8))
    assert reader.read(reading.Task("a", square=(32, "pad")), png(cloud())).pixels.shape == (32, 32)
    threading.Timer(0.01, reader.process.kill).start()
    with pytest.raises(UnreadableError, match=r"^b crashed the decoder"):
        reader.read(reading.Task("b", square=(32, "pad")), sent)
    assert reader.read(reading.Task("c", square=(32, "pad")), sent).width == 4000
    reader.process.kill()  # by somebody else, while it had nothing to do
    reader.process.wait()
    assert reader.read(reading.Task("d"), png(cloud())).width == 90
    reader.end()


def test_a_file_that_takes_too_long_is_given_up() -> None:
    reader = reading.Reader(Limits(), 60)
    reader.read(reading.Task("a"), png(cloud()))
    reader.seconds = 0.01
    with pytest.raises(UnreadableError, match=r"^b takes more than 0\.01 s "):
        reader.read(reading.Task("b"), png(np.random.default_rng(0).integers(0, 256, (4000, 4000), np.uint8)))
    reader.end()


@pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="there is no /proc here")
def test_a_reading_process_knows_no_secret_and_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", TOKEN)
    reader = reading.Reader(Limits(max_pixels=1e6), 60)
    reader.read(reading.Task("a"), png(cloud()))
    inside = Path(f"/proc/{reader.process.pid}")
    assert TOKEN.encode() not in (inside / "environ").read_bytes()
    limit = re.search(r"Max address space\s+(\d+)", (inside / "limits").read_text(encoding="utf-8"))
    assert limit and int(limit[1]) == reading.BASE_MEMORY + reading.BYTES_OF_A_PIXEL * 1_000_000
    reader.end()


# ---- limits


def head(length: str = "Content-Length: 9999999999", path: str = "/v1/image") -> bytes:
    kind = "Content-Type: multipart/form-data; boundary=b"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{length}\r\n\r\n".encode()


def test_a_body_that_says_it_is_too_large_is_not_waited_for(bare: Running) -> None:
    answer = bare.raw(head())
    assert answer.startswith(b"HTTP/1.1 413") and b'{"error":"The request is larger than' in answer


def test_a_body_that_does_not_say_how_large_it_is_is_counted(bare: Running) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    part = f"{len(start):x}\r\n".encode() + start + b"\r\n" + (b"10000\r\n" + bytes(65536) + b"\r\n") * 6
    answer = bare.raw(head("Transfer-Encoding: chunked") + part)  # and never an end
    assert answer.startswith(b"HTTP/1.1 413")


def test_too_many_files_are_refused(bare: Running) -> None:
    answer = bare.post("/v1/image", *[png(cloud())] * 4)
    assert answer.status_code == 413 and "3 files" in answer.json()["error"]


def test_too_many_pixels_are_refused() -> None:
    with running(max_megapixels=0.005) as server:
        answer = server.post("/v1/image", ("p.png", png(cloud())))
    assert answer.status_code == 422 and answer.json()["error"].startswith("p.png claims 90 x 70 pixels; the limit")


def test_a_slow_body_ends_in_504_and_others_do_not_wait_for_it(bare: Running) -> None:
    with socket.create_connection(bare.address, timeout=20) as line:
        line.sendall(head("Content-Length: 1000") + b"--b\r\n")
        assert bare.post("/v1/image", png(cloud())).status_code == 200
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 504")
    assert bare.server.gate.at_work == 0 and bare.service.uploads.held == 0


def test_who_comes_when_all_is_busy_is_told_when_to_come_again(bare: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(socket.create_connection(bare.address, timeout=20))
            line.sendall(head("Content-Length: 1000") + b"--b\r\n")
        until = time.monotonic() + 10
        while bare.server.gate.at_work < 2 and time.monotonic() < until:
            time.sleep(0.01)
        answer = bare.post("/v1/image", png(cloud()))
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1 and "error" in answer.json()
        assert bare.get("/healthz").status_code == 200


def test_large_requests_at_once_are_not_all_held(bare: Running) -> None:
    bare.service.uploads.held = 4 * bare.service.uploads.most
    try:
        answer = bare.post("/v1/image", png(cloud()))
    finally:
        bare.service.uploads.held = 0
    assert answer.status_code == 503 and answer.headers["Retry-After"]


def test_a_connection_that_asks_nothing_is_closed(bare: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    for begun in (b"", b"GET /healthz HTTP/1.1\r\nHo"):
        with socket.create_connection(bare.address, timeout=20) as line:
            line.sendall(begun)
            assert line.recv(100) == b""


def test_a_body_that_was_refused_does_not_go_on_for_ever(bare: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    with socket.create_connection(bare.address, timeout=20) as line, pytest.raises(OSError):
        line.sendall(head())
        for _ in range(600):
            line.sendall(bytes(100))
            time.sleep(0.01)


def test_a_body_of_crumbs_is_refused_and_holds_nobody(bare: Running) -> None:
    """Each piece of a body costs far more than its byte: of 65,536 that come at once, a thousand are looked at."""
    with socket.create_connection(bare.address, timeout=20) as line:
        line.sendall(head("Transfer-Encoding: chunked") + b"1\r\na\r\n" * 65536)
        began = time.perf_counter()
        assert bare.get("/healthz").status_code == 200
        assert time.perf_counter() - began < 1.0  # far more, where all are looked at
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 400")


def test_who_is_refused_gets_the_answer_and_then_the_end_of_the_connection(bare: Running) -> None:
    """Also while still sending; the rest of the body is not read."""
    with socket.create_connection(bare.address, timeout=20) as line:
        line.sendall(head())
        found = b""
        while b"}" not in found:
            found += line.recv(1 << 16)
        assert found.startswith(b"HTTP/1.1 413") and b"connection: close" in found.lower()
        line.sendall(bytes(1 << 20))
        assert line.recv(100) == b""


def test_an_answer_does_not_wait_for_the_network(bare: Running) -> None:
    """A head and a body in two packets are 40 ms apart, each time, where they wait for each other."""
    with httpx.Client(base_url=bare.base, timeout=60) as client:
        client.get("/healthz")
        spent = []
        for _ in range(20):
            began = time.perf_counter()
            client.get("/healthz")
            spent.append(time.perf_counter() - began)
    assert min(spent) < 0.03


# ---- who may ask


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "", "10.0.0.1", "a[b"]
)
def test_only_names_of_this_machine_are_answered(host: str, bare: Running) -> None:
    assert bare.get("/v1/models", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8000", "LOCALHOST"])
def test_every_name_of_this_machine_is_answered(host: str, bare: Running) -> None:
    assert bare.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example", "x[y"]
)
def test_pages_of_other_sites_may_not_ask(origin: str, bare: Running) -> None:
    answer = bare.post("/v1/image", png(cloud()), headers={"Origin": origin})
    assert answer.status_code == 403 and set(answer.json()) == {"error"}


def test_its_own_page_may_ask(bare: Running) -> None:
    assert bare.post("/v1/image", png(cloud()), headers={"Origin": bare.base}).status_code == 200


def test_a_token_is_needed_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", TOKEN)
    with running(host="0.0.0.0") as server:
        assert server.get("/healthz").status_code == server.get("/docs").status_code == 200
        for said in (
            {},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "é"},
        ):
            for path in ("/v1/models", "/metrics", "/v1/nothing"):
                raw = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
                answer = server.get(path, headers=raw)
                assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        told = server.get("/v1/models", headers={"Authorization": f"Bearer {TOKEN}", "Host": "far.example"})
        assert told.status_code == 200 and told.json()["token_required"] is True


def test_every_answer_has_the_headers(bare: Running) -> None:
    answers = [bare.get(path) for path in ("/", "/docs", "/healthz", "/metrics", "/v1/models", "/nothing")]
    answers += [bare.get("/v1/models", headers={"Host": "evil.example"}), bare.post("/v1/image", b"x")]
    for answer in answers:
        for name, value in gate.HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
    assert "script" not in gate.HEADERS["content-security-policy"]


# ---- what it tells of itself


def test_the_reference_is_one_page_without_the_network(bare: Running) -> None:
    page = bare.get("/docs").text
    assert "POST /v1/predict" in page and "finding" in page and "<script" not in page and "style=" not in page
    assert not re.search(r"(?:src|href)=\"(?!/)", page)
    assert bare.get("/docs/style.css").headers["Content-Type"].startswith("text/css")


def answered(*servers: Running) -> set[tuple[str, str]]:
    """Routes and the statuses that they have answered with."""
    return {
        (one.labels["route"], one.labels["status"])
        for each in servers
        for family in each.service.counters.registry.collect()
        for one in family.samples
        if one.name == "ribcage_requests_total" and one.labels["route"] != "other"
    }


def test_every_answer_that_was_given_is_in_the_openapi_text(server: Running, bare: Running) -> None:
    """All that the tests above were answered, by both servers."""
    spec = server.get("/openapi.json").json()["paths"]
    server.post("/v1/predict", png(cloud()))
    bare.raw(head())
    until = time.monotonic() + 10
    while not {("/v1/predict", "200"), ("/v1/image", "413")} <= (given := answered(server, bare)):
        assert time.monotonic() < until, given  # a request is counted when its answer has been sent
        time.sleep(0.02)
    told = {(route, status) for route, verbs in spec.items() for one in verbs.values() for status in one["responses"]}
    assert not {one for one in given - told if one[1] not in ("405", "gone")}


def test_metrics_count_and_name_nobody(server: Running) -> None:
    def number(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", server.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    bad, good = number("ribcage_unreadable_files_total"), 'ribcage_requests_total{route="/v1/predict",status="200"}'
    before = number(good)
    server.post("/v1/predict?model=either", ("jane doe.png", png(cloud())), ("broken.png", b"x"))
    assert number("ribcage_unreadable_files_total") == bad + 1 and number(good) == before + 1
    assert number('ribcage_batch_images_count{model="either"}') >= 1
    text = server.get("/metrics").text
    assert "jane" not in text and "ribcage_request_seconds_bucket" in text and "ribcage_waiting_images 0.0" in text


# ---- what it keeps


def test_predictions_are_logged_where_that_was_asked_for(folders: dict[str, Path], tmp_path: Path) -> None:
    with running({"boxes": folders["boxes"]}, log_predictions=tmp_path / "kept 答") as server:
        said = [server.post("/v1/predict", ("片.png", png(cloud()))).json() for _ in range(2)]
    (file,) = (tmp_path / "kept 答").iterdir()
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [{name: one[name] for name in said[0]} for one in lines] == said
    assert os.name == "nt" or file.stat().st_mode & 0o077 == 0


def test_nothing_is_stored(bare: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form's large file would go through the disk if nobody prevented it."""
    import tempfile

    opened: list[str] = []
    own = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *a, **k: opened.append("x") or own(*a, **k))
    with running(max_megabytes=10) as server:
        sent = png(np.random.default_rng(0).integers(0, 256, (1800, 1800), np.uint8))
        assert len(sent) > 3_000_000 and server.post("/v1/image", sent).status_code == 200
    assert not opened


# ---- batches


def test_what_waits_is_answered_together() -> None:
    busy, sizes = threading.Event(), list[int]()

    def answer(items: list[int]) -> list[int]:
        sizes.append(len(items))
        busy.wait(10)
        return [2 * item for item in items]

    batcher = Batcher(answer, most=4, wait=0, room=10)
    first = batcher.submit(0)
    while not sizes:
        time.sleep(0.001)
    rest = [batcher.submit(item) for item in range(1, 8)]
    busy.set()
    assert [one.result(10) for one in [first, *rest]] == [0, 2, 4, 6, 8, 10, 12, 14] and sizes == [1, 4, 3]
    batcher.end()


def test_a_image_waits_only_for_others_on_their_way() -> None:
    sizes = list[int]()
    batcher = Batcher(lambda items: sizes.append(len(items)) or items, most=2, wait=5, room=10)  # type: ignore[func-returns-value]
    began = time.monotonic()
    batcher.submit(1).result(10)
    assert time.monotonic() - began < 3
    with batcher.on_its_way():
        first = batcher.submit(2)
        time.sleep(0.05)
        second = batcher.submit(3)
        assert first.result(3) == 2 and second.result(3) == 3
    assert sizes == [1, 2]
    batcher.end()


def test_too_many_that_wait_are_refused_and_a_fault_is_everybodys_in_the_batch() -> None:
    go = threading.Event()

    def fail(items: list[int]) -> list[int]:
        go.wait(10)
        raise ArithmeticError

    batcher = Batcher(fail, most=2, wait=0, room=1)
    first = batcher.submit(1)
    while batcher.waiting.qsize():
        time.sleep(0.001)
    second = batcher.submit(2)
    with pytest.raises(FullError):
        batcher.submit(3)
    go.set()
    for one in (first, second):
        assert isinstance(one.exception(10), ArithmeticError)
    batcher.end()


# ---- the command


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0"),
        (
            ["--port", "70000", "--max-files", "0"],
            "--port 70000 is not from 0 to 65535; --max-files 0 is not from 1 to 10,000",
        ),
        (["--token-file", "none.txt"], "--token-file none.txt cannot be read (No such file or directory)"),
        (["--batch", "0", "--wait", "-1"], "--batch 0 is not at least 1; --wait -1 is not from 0 to 10,000"),
        (["--readers", "100000000"], "--readers 1e+08 is not from 0 to 256"),
    ],
)
def test_what_cannot_be_served_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "model", *words]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_short_token_is_no_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", "short")
    assert cli.main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "RIBCAGE_TOKEN" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with process.bound("127.0.0.1", 0) as taken:
        assert cli.main(["serve", str(folders["boxes"]), "--port", str(taken.getsockname()[1])]) == 1
    said = capsys.readouterr().err
    assert "(Address already in use)" in said and "--port" in said and said.count("\n") == 1


def test_a_model_that_is_away_from_itself_is_not_served(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = partial(deployment.expected, load_classifier(folders["either"]))
    monkeypatch.setattr(deployment, "write_onnx", lambda *a: None)
    monkeypatch.setattr(deployment, "opened_onnx", lambda *a: lambda images: own(images) + 1e-3)
    assert cli.main(["serve", str(folders["either"]), "--port", "0", "--readers", "1"]) == 2
    assert "0.001 > 0.0001" in capsys.readouterr().err


def test_a_signal_ends_it_after_what_was_begun(folders: dict[str, Path]) -> None:
    words = [sys.executable, "-m", "ribcage", "serve", str(folders["boxes"]), "--port", "0", "--readers", "1"]
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + png(cloud())
        + b"\r\n--b--\r\n"
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stderr
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", child.stdout.readline())[1])  # type: ignore[index]
        base = f"http://127.0.0.1:{port}"
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
