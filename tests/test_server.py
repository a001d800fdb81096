"""The server predicts as the model does, survives any request, and finishes requests in progress when it stops."""

import base64
import io
import json
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pandas as pd
import pydicom
import pytest
from models import trained
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from refusals import has_facts
from servers import SIDE, Running, cloud, head, made, png, running

from ribcage import cli
from ribcage.bundle import ood
from ribcage.bundle.io import load_classifier, load_detector
from ribcage.bundle.spec import DetectorSpec
from ribcage.commands import serve
from ribcage.data import dataset_folder
from ribcage.imaging import image_file
from ribcage.inference import explanation, image_files
from ribcage.metrics.reliability import FindingReliability, ReliabilityBin
from ribcage.server.served_models import ServedClassifier

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic radiographs."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", str(SIDE)]) == 0
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Path]:
    """A trained classifier, a model of mutually exclusive findings, and a detector."""
    work = tmp_path_factory.mktemp("模型 of mine")
    return {
        "learnt": trained(work / "learnt", dataset_folder.open(data)),
        "either": made(work / "either", loss="cross-entropy"),
        "boxes": made(
            work / "boxes", stored=64, detector=DetectorSpec("cam", {"share": 0.5, "keep": 5}), thresholds={}
        ),
    }


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[Running]:
    with running(folders, workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def bare() -> Iterator[Running]:
    """One that has no model, and small limits."""
    with running(max_megabytes=0.3, max_files=3, max_requests=2, max_seconds=2) as made:
        yield made


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


# ---- predictions


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
    wanted = image_files.classified_files(opened, [tmp_path / each for each in sent]).frame()
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
    wanted = image_files.detected_files(opened, [tmp_path / "a.png"], least=[0.0, 0.0]).frame()
    found = server.post("/v1/predict?model=boxes", png(cloud(130, 60))).json()["results"][0]
    columns = ["finding", "score", "x", "y", "width", "height"]
    pd.testing.assert_frame_equal(pd.DataFrame(found["boxes"])[columns], wanted[columns], check_dtype=False, atol=1e-3)
    assert found["findings"] == [] and len(found["boxes"]) > 0


def test_models_are_listed_with_their_findings(server: Running, folders: dict[str, Path]) -> None:
    told = server.get("/v1/models").json()
    assert [one["id"] for one in told["models"]] == ["learnt", "either", "boxes"] and told["token_required"] is False
    learnt, model = told["models"][0], load_classifier(folders["learnt"]).spec
    assert learnt["kind"] == "classifier" and told["models"][2]["kind"] == "detector"
    assert learnt["input"] == {"side": SIDE, "fit": model.fit} and learnt["data"][0]["name"] == "phantom"
    assert "synthetic" in learnt["warning"]
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
    answer = server.post("/v1/predict", ("jane doe.dcm", dicom(cloud(), ViewPosition="PA", Manufacturer="SIEMENS")))
    told = answer.json()["results"][0]
    syntax = "1.2.840.10008.1.2.1"
    assert told["tags"] == {"view": "PA", "sex": "", "age": "61", "manufacturer": "Siemens", "transfer_syntax": syntax}
    assert "P-77" not in answer.text and "1.2.99" not in answer.text and "Doe" not in answer.text


def test_the_window_of_dicom_files_can_be_chosen() -> None:
    from dicoms import dataset, written

    made = dataset(WindowCenter=["900", "2000"], WindowWidth=["1000", "3000"])
    made.WindowCenterWidthExplanation = ["SOFT", "LUNG"]
    shown = []
    for window in ("", "LUNG"):
        with running(window=window) as one:
            shown.append(one.post("/v1/image?side=64", ("a.dcm", written(made))).content)
    assert len(shown[0]) == len(shown[1]) and shown[0] != shown[1]
    with pytest.raises(ValueError, match="--window"):
        serve.run(serve.Options((Path("model"),), window="9,0"))


def test_an_image_comes_back_to_be_shown(server: Running) -> None:
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
    assert set(bad) == {"file", "error"} and has_facts(bad["error"], "b.png", "not an image")


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
def test_a_malformed_form_is_one_sentence(kind: str, server: Running) -> None:
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
        ("/v1/explain?finding=Moss&model=either", 404, "Unknown finding 'Moss' for either. Findings: Mass, Nodule."),
        ("/v1/explain?finding=Mass&model=boxes", 404, "boxes is a detector"),
        ("/v1/explain", 422, "?finding=: field required."),
        ("/v1/image?side=100000", 422, "?side=: input should be less than or equal to 4096."),
        ("/v1/image?side=x", 422, "?side=: input should be a valid integer"),
        ("/v1/nothing", 404, "No route '/v1/nothing'"),
        ("/v1/models", 405, "/v1/models does not allow POST"),
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


# ---- what it tells of itself


def test_the_reference_is_one_page_without_the_network(bare: Running) -> None:
    page = bare.get("/docs").text
    assert f"{bare.base}/v1/predict" in page and ":8000" not in page
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
