"""The viewer in a real browser: display and interaction by mouse, keyboard and touch."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset

from ribcage.bundle import deployment
from ribcage.bundle.io import load_bundle, save_bundle
from ribcage.bundle.spec import DetectorSpec, ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.commands import serve
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.metrics.reliability import FindingReliability, ReliabilityBin
from ribcage.models.backbone import Backbone
from ribcage.server import process
from ribcage.server.served_models import served_models

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not CHROMIUM and not os.environ.get("CI"):
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright  # noqa: E402

pytestmark = pytest.mark.integration

FINDINGS = ("Mass", "Pleural_Thickening", "<b>Edema</b>", "Effusion")
TOKEN = "a-token-of-enough-letters"
HOSTILE = "<img src=x onerror=document.title='broken'>.png"
SIZES = {"wide": (1440, 900), "middle": (1024, 768), "phone": (390, 844)}
SECONDS = 30
expect.set_options(timeout=1000 * SECONDS)


# ---- models, images, servers, browsers


def model(folder: Path, **options: Any) -> Path:
    """A model whose predictions differ from image to image, with thresholds."""
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), FINDINGS)
    torch.nn.init.normal_(method.head.weight, std=3.0)
    facts: dict[str, Any] = {"temperature": (1.0,) * 4, "training": TrainingRecord(images=1, patients=1, selection=1)}
    made = ModelSpec("test_resnet", FINDINGS, (32, 32), 48, "pad", 0.45, 0.22, **(facts | options))
    save_bundle(folder, method.eval(), made, Provenance.nothing())
    return folder


def fared(low: float, high: float) -> FindingReliability:
    """The reliability of a finding on validation: one bin."""
    return FindingReliability(373, 60, (0.87, low, high), (ReliabilityBin(0.0, 212, 31, 0.1, 0.2),))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that names findings, one that finds boxes."""
    work = tmp_path_factory.mktemp("模型 of mine")
    thresholds = {"youden": (0.0, 1.0, None, 1.0), "f1": (0.0, 0.0, 0.0, 0.0)}
    reliability = (fared(0.81, 0.93), fared(0.8, 0.9), fared(0.8, 0.9), fared(0.8, 0.9))
    known = {"thresholds": thresholds, "reliability": reliability, "metrics": {"validation": {"auroc": 0.87}}}
    boxes = DetectorSpec("cam", {"share": 0.5, "keep": 5})
    return {
        "namer": model(work / "namer", **known),
        "finder": model(work / "finder", detector=boxes),
    }


@contextlib.contextmanager
def served(*models: Path, port: int = 0) -> Iterator[str]:
    """The address of a server in a thread."""
    opened = served_models([load_bundle(one) for one in models])
    server = process.Server(serve.service(serve.Options(models, workers=1, threads=1), opened))
    listening = process.bound("127.0.0.1", port)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=server.serve_on, args=(listening,))
    thread.start()
    until = time.monotonic() + 120
    while server.gate.state == "starting" or not server.started:
        assert time.monotonic() < until and thread.is_alive()
        time.sleep(0.02)
    try:
        yield address
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def base(folders: dict[str, Path]) -> Iterator[str]:
    with served(folders["namer"], folders["finder"]) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "there is no Chromium, which the tests of the page need here: apt-get install chromium"
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


Opening = Callable[..., Page]


@pytest.fixture
def opening(browser: Browser, base: str) -> Iterator[Opening]:
    """Opens the page. At the end: no fault in it, nothing asked of another host."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []
    asked: set[str] = set()

    def told(text: str) -> None:
        if not re.match(
            "Failed to load resource|Canvas2D: Multiple readback", text
        ):  # errors that are meant; these tests
            faults.append(text)

    def opened(address: str = base, size: str = "wide", **options: Any) -> Page:
        wide, high = SIZES[size]
        contexts.append(browser.new_context(viewport={"width": wide, "height": high}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.on("console", lambda message: told(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.add(request.url.split("/")[2] if "//" in request.url else "page"))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+|page", host) for host in asked), asked


def chest(width: int = 300, height: int = 240, kind: type = np.uint16) -> np.ndarray:
    """An image with something to see."""
    pattern = cv2.resize(deployment.patterns(64)[5], (width, height)).astype(np.float64) / 255
    return (pattern * np.iinfo(kind).max).astype(kind)


def png(name: str = "chest.png", pixels: np.ndarray | None = None) -> dict[str, Any]:
    """A file as the page's file chooser takes it."""
    coded = cv2.imencode(".png", chest() if pixels is None else pixels)[1].tobytes()
    return {"name": name, "mimeType": "image/png", "buffer": coded}


def dicom(name: str = "孩子 child.dcm") -> dict[str, Any]:
    """A lateral of a child, who has a name."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    made = Dataset()
    made.file_meta, made.SOPClassUID, made.SOPInstanceUID = meta, meta.MediaStorageSOPClassUID, "1.2.3"
    pixels = chest() >> 4
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape, 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PatientName, made.PatientID, made.PatientAge, made.PatientSex = "Doe^Jane", "P-77", "006Y", "F"
    made.Modality, made.ViewPosition, made.PixelData = "DX", "PA", pixels.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return {"name": name, "mimeType": "application/dicom", "buffer": stream.getvalue()}


def add(page: Page, *files: dict[str, Any]) -> None:
    """Open files, and wait until each was answered."""
    before = page.locator(".study").count()
    page.set_input_files("#files", list(files))
    expect(page.locator(".study.done, .study.failed")).to_have_count(before + len(files))


def finding(page: Page, name: str) -> Any:
    return page.locator("[data-name]").filter(has=page.locator(".name", has_text=re.compile(f"^{re.escape(name)}$")))


PIXELS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [sum, coloured] = [0, 0];
  for (let at = 0; at < data.length; at += 4) {
    sum = (31 * sum + data[at]) | 0;
    coloured += Math.abs(data[at] - data[at + 2]) > 8;
  }
  return [sum, coloured];
}"""
FILM = ".film canvas >> nth={}"


def drawn(page: Page) -> None:
    """Wait for what the page draws in its next frame: it changes its state at once, and what is seen then."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def seen(page: Page, pane: int = 0) -> tuple[int, int]:
    """A number that stands for all pixels of an image on the page, and how many are not gray."""
    drawn(page)
    one, two = page.locator(FILM.format(pane)).evaluate(PIXELS)
    return one, two


def gray(page: Page, x: float, y: float, pane: int = 0) -> int:
    """The red of a pixel, at shares of the canvas."""
    drawn(page)
    look = "(canvas, [x, y]) => canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data[0]"
    return int(page.locator(FILM.format(pane)).evaluate(look, [x, y]))


def readout(page: Page, pane: int = 0) -> str:
    drawn(page)
    return page.locator(".readout").nth(pane).inner_text()


def drag(page: Page, right: int, down: int, pane: int = 0) -> None:
    frame = page.locator(FILM.format(pane)).bounding_box()
    assert frame
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()


# ---- what a person sees


def test_a_png_is_answered_with_bars_thresholds_and_intervals(opening: Opening, base: str) -> None:
    page = opening()
    add(page, file := png())
    expect(page.locator(".finding")).to_have_count(4)
    said = httpx.post(f"{base}/v1/predict", files={"files": ("a.png", file["buffer"])}).json()["results"][0]
    likely = sorted(said["findings"], key=lambda one: -one["probability"])
    drawn(page)
    assert page.locator(".finding").evaluate_all("all => all.map(one => one.dataset.name)") == [
        one["name"] for one in likely
    ]
    widths = page.locator(".filled").evaluate_all("all => all.map(one => parseFloat(one.style.width))")
    assert widths == pytest.approx([100 * one["probability"] for one in likely], abs=0.01)

    mass = finding(page, "Mass")
    assert "▲" in mass.inner_text() and "above threshold" in mass.inner_text()
    assert "▲" not in finding(page, "Pleural Thickening").inner_text()
    expect(finding(page, "<b>Edema</b>").locator(".tick")).to_have_count(0)  # validation could choose none
    expect(page.locator("#summary")).to_contain_text("1 of 4 above threshold")
    page.select_option("#rule", "f1")
    expect(page.locator("#summary")).to_contain_text("4 of 4")
    page.select_option("#rule", "youden")

    mass.click()
    words = mass.locator(".details")
    expect(words).to_contain_text(re.compile(r"31 of 212 .*: 15 % \(95 % .*10–20 %\)\."))
    expect(words).to_contain_text(re.compile(r"AUROC .*0\.87 \(95 % .*0\.81–0\.93\) on 373 .*, 60 .*positive\."))
    whisker = mass.locator(".whisker")
    assert whisker.evaluate("one => [one.style.left, one.style.width]") == ["10%", "10%"]
    page.select_option("#order", "model")
    expect(page.locator(".finding .name").first).to_have_text("Mass")
    expect(page.locator("#status")).not_to_be_empty()
    expect(page.locator("#use")).to_have_text("Research use only; not a medical device.")


def test_a_dicom_shows_its_tags_and_a_warning_but_never_a_name(opening: Opening) -> None:
    page = opening()
    add(page, dicom())
    head = page.locator(".pane >> nth=0").locator("header")
    expect(head).to_contain_text("孩子 child.dcm")
    expect(head).to_contain_text("300 × 240 · PA · F · 6 years")
    expect(page.locator(".warnings li").first).to_contain_text(re.compile("child.* age.* 6"))
    expect(page.locator(".warnings").first).to_be_visible()
    assert not re.search("Doe|Jane|P-77", page.content())


def test_a_finding_shows_its_saliency_map_and_hides_it_again(opening: Opening) -> None:
    page = opening()
    add(page, png())
    plain, coloured = seen(page)
    assert coloured == 0
    finding(page, "Mass").click()
    expect(page.locator(".legend").first).to_contain_text("aliency for Mass")
    warm, coloured = seen(page)
    assert coloured > 1000 and warm != plain
    page.locator("#opacity").fill("0")
    assert seen(page) == (plain, 0)
    page.locator("#opacity").fill("100")
    assert seen(page)[1] >= coloured
    page.keyboard.press("h")
    assert seen(page) == (plain, 0)
    page.keyboard.press("h")
    finding(page, "Mass").click()
    assert seen(page) == (plain, 0)


def test_boxes_lie_where_the_response_has_them_and_can_be_hidden(opening: Opening, base: str) -> None:
    page = opening()
    page.select_option("#model", "finder")
    add(page, file := png(pixels=chest() // 2))
    ask = {"params": {"model": "finder"}, "files": {"files": ("a.png", file["buffer"])}}
    boxes = httpx.post(f"{base}/v1/predict", **ask).json()["results"][0]["boxes"]  # type: ignore[arg-type]
    assert boxes
    expect(page.locator(".legend .box")).to_have_count(min(12, len(boxes)))
    frame = page.locator(FILM.format(0)).bounding_box()
    assert frame
    wide, high = frame["width"], frame["height"]
    scale = min(wide / 300, high / 240)
    box = boxes[0]
    middle = box["y"] + box["height"] / 2 - 120
    for x in (box["x"], box["x"] + box["width"]):
        assert gray(page, 0.5 + (x - 150) * scale / wide, 0.5 + middle * scale / high) > 200
    page.keyboard.press("b")
    expect(page.locator(".legend .box")).to_have_count(0)
    assert gray(page, 0.5 + (box["x"] - 150) * scale / wide, 0.5 + middle * scale / high) < 140


def test_the_window_is_dragged_keyed_and_reset(opening: Opening) -> None:
    page = opening()
    add(page, png())
    start = seen(page)
    assert readout(page).startswith("W 1.00  L 0.50")
    drag(page, -150, -60)
    width, level = map(float, re.findall(r"[WL] (\S+)", readout(page)))
    assert width < 0.8 and level < 0.49 and seen(page) != start
    page.locator(FILM.format(0)).dblclick()
    assert readout(page).startswith("W 1.00  L 0.50") and seen(page) == start
    page.locator(FILM.format(0)).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert readout(page).startswith("W 0.95  L 0.52")
    page.keyboard.press("r")
    page.keyboard.press("i")
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "true")
    assert gray(page, 0.5, 0.5) == pytest.approx(255 - inverted(page, "i"), abs=1)


def inverted(page: Page, key: str) -> int:
    """The pixel in the middle after a key."""
    page.keyboard.press(key)
    return gray(page, 0.5, 0.5)


def test_sixteen_bits_reach_the_screen(opening: Opening) -> None:
    """Two halves that are one and the same gray in eight bits are told apart by a narrow window."""
    page = opening()
    pixels = np.full((64, 64), 30000, np.uint16)
    pixels[:, 32:] += 200
    pixels[0, :2], pixels[1, :2] = 0, 65535
    add(page, png(pixels=pixels))
    assert abs(gray(page, 0.45, 0.5) - gray(page, 0.55, 0.5)) <= 1
    page.locator(FILM.format(0)).focus()
    page.keyboard.press("a")
    assert gray(page, 0.55, 0.5) - gray(page, 0.45, 0.5) > 40


def test_the_wheel_zooms_at_the_pointer_and_shift_moves(opening: Opening) -> None:
    page = opening()
    add(page, png())
    frame = page.locator(FILM.format(0)).bounding_box()
    assert frame
    page.mouse.move(frame["x"] + frame["width"] * 0.4, frame["y"] + frame["height"] * 0.3)
    spot = re.findall(r"\(.*", readout(page))
    page.mouse.wheel(0, -300)
    page.mouse.move(frame["x"] + frame["width"] * 0.4 + 0.1, frame["y"] + frame["height"] * 0.3)
    assert re.findall(r"\(.*", readout(page)) == spot
    zoomed = seen(page)
    page.keyboard.down("Shift")
    drag(page, 60, 40)
    page.keyboard.up("Shift")
    assert seen(page) != zoomed and readout(page).startswith("W 1.00  L 0.50")
    page.keyboard.press("0")
    told = "chest.png; window 1.00, level 0.50, zoom 100 %"
    expect(page.locator(FILM.format(0))).to_have_attribute("aria-label", told)


def test_a_large_image_is_requested_again_at_full_size_when_zoomed(opening: Opening) -> None:
    page = opening()
    add(page, png(pixels=chest(1600, 1200, np.uint8)))
    with page.expect_response(lambda one: "/v1/image?side=4096" in one.url) as answer:
        page.locator("#zoom-in").click(click_count=1)
        for _ in range(4):
            page.keyboard.press("+")
    assert answer.value.headers["x-width"] == "1600"


# ---- several studies, several models


def test_two_studies_are_compared_and_linked(opening: Opening) -> None:
    page = opening()
    add(page, png("before.png"), png("after.png", np.ascontiguousarray(chest()[:, ::-1])))
    page.keyboard.press("c")
    expect(page.locator(".pane:visible")).to_have_count(2)
    expect(page.locator(".finding").first.locator(".filled")).to_have_count(2)
    assert seen(page, 0) != seen(page, 1)
    drag(page, -100, 0, pane=0)
    assert readout(page, 0)[:14] == readout(page, 1)[:14] != "W 1.00  L 0.50"
    page.locator("#link").click()
    drag(page, -100, 0, pane=1)
    assert readout(page, 0)[:14] != readout(page, 1)[:14]
    finding(page, "Mass").click()
    expect(page.locator(".ramp")).to_have_count(2)
    for letter in "AB":
        expect(page.locator(".details")).to_contain_text(f"{letter}: 31 of 212")
    page.keyboard.press("c")
    expect(page.locator(".pane:visible")).to_have_count(1)


def test_predictions_and_image_are_saved(opening: Opening, base: str, tmp_path: Path) -> None:
    page = opening()
    add(page, png("one.png"), file := png("two 二.png", chest() // 3))
    page.keyboard.press("c")
    finding(page, "Mass").click()
    expect(page.locator(".legend").first).to_contain_text("Mass")
    with page.expect_download() as download:
        page.locator("#save-predictions").click()
    told = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert told["intended_use"] == "Research use only; not a medical device."
    assert [one["file"] for one in told["studies"]] == ["one.png", "two 二.png"]
    said = httpx.post(f"{base}/v1/predict", files={"files": ("two 二.png", file["buffer"])}).json()["results"][0]
    kept = told["studies"][1]["predictions"]["namer"]
    assert [one["probability"] for one in kept["findings"]] == pytest.approx(
        [one["probability"] for one in said["findings"]], abs=1e-6
    )
    with page.expect_download() as download:
        page.keyboard.press("p")
    assert download.value.suggested_filename == "ribcage-image.png"
    image = cv2.imdecode(np.frombuffer(download.value.path().read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    frames = [page.locator(FILM.format(pane)).bounding_box() for pane in (0, 1)]
    wide, high = sum(one["width"] for one in frames if one), max(one["height"] for one in frames if one)
    assert abs(image.shape[1] - wide) <= 2 and image.shape[0] > high + 60
    film, caption = image[: int(high)].astype(int), image[int(high) :]
    assert (abs(film[..., 0] - film[..., 2]) > 8).sum() > 1000  # heat
    below = caption.max(2) > 180
    assert below[-30:].any() and below[:30].any()  # what it is for, and what it is


def test_models_are_chosen_and_answers_are_kept(opening: Opening) -> None:
    page = opening()
    add(page, png())
    page.select_option("#model", "finder")
    expect(page.locator(".study.done .status")).to_contain_text("box")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.select_option("#model", "namer")
    expect(page.locator(".finding .track").first).to_be_visible()
    assert not [url for url in asked if "predict" in url]


# ---- what goes wrong


def test_a_broken_file_is_reported_in_its_place_and_the_others_go_on(opening: Opening) -> None:
    page = opening()
    broken = {**png("broken.png"), "buffer": png()["buffer"][:2000]}
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    add(page, png("good.png"), broken, text, dicom())
    expect(page.locator(".study.failed")).to_have_count(2)
    expect(page.locator(".study.done")).to_have_count(2)
    page.locator(".study", has_text="broken.png").click()
    expect(page.locator(".message .wrong").first).to_contain_text("broken.png is truncated")
    page.locator(".study", has_text="good.png").click()
    expect(page.locator(".finding")).to_have_count(4)


def test_names_are_text(opening: Opening) -> None:
    page = opening()
    add(page, png(HOSTILE), {**png(HOSTILE), "buffer": b"<script>document.title='broken'</script>"})
    expect(page.locator(".study .name").first).to_have_text(HOSTILE)
    page.locator(".study.failed").click()
    expect(page.locator(".message .wrong").first).to_contain_text("<img src=x onerror")
    expect(finding(page, "<b>Edema</b>")).to_have_count(0)  # of a file that failed nothing is shown
    page.locator(".study.done").click()
    expect(finding(page, "<b>Edema</b>")).to_have_count(1)
    assert page.title() == "Ribcage" and page.locator("img, b:has-text('Edema')").count() == 0


def test_a_busy_server_is_asked_again(opening: Opening) -> None:
    page = opening()
    tries: list[float] = []

    def busy(route: Any) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "All at once."})
        else:
            route.continue_()

    page.route("**/v1/predict**", busy)
    page.set_input_files("#files", [png()])
    expect(page.locator("#notice")).to_have_text("All at once. Retrying in 1 s.")
    expect(page.locator(".study.done")).to_have_count(1)
    expect(page.locator("#notice")).to_be_hidden()
    assert len(tries) == 2 and tries[1] - tries[0] >= 0.9


def test_a_server_that_is_gone_is_missed_and_found_again(opening: Opening, folders: dict[str, Path]) -> None:
    with served(folders["finder"]) as address:
        page = opening(address)
        add(page, png("first.png"))
    page.set_input_files("#files", [png("second.png")])
    expect(page.locator("#notice")).to_contain_text("The server cannot be reached.")
    expect(page.locator(".study", has_text="first.png")).to_have_class(re.compile("done"))
    with served(folders["finder"], port=int(address.rpartition(":")[2])):
        expect(page.locator(".study.done")).to_have_count(2)
        expect(page.locator("#notice")).to_be_hidden()


def test_a_token_is_asked_for_and_kept_for_this_tab_only(
    opening: Opening, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIBCAGE_TOKEN", TOKEN)
    with served(folders["finder"]) as address:
        page = opening(address)
        expect(page.locator("#token")).to_be_visible()
        page.locator("#token-text").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token .wrong")).to_have_text("Wrong token.")
        page.locator("#token-text").fill(TOKEN)
        page.keyboard.press("Enter")
        add(page, png())
        expect(page.locator(".study.done")).to_have_count(1)
        assert page.evaluate("[...Object.values(sessionStorage)].join()") == TOKEN
        assert TOKEN not in page.evaluate("[...Object.values(localStorage)].join() + document.cookie + location.href")
        page.reload()
        expect(page.locator("#model option")).to_have_count(1)


# ---- other ways in


def test_everything_is_reached_by_keys(opening: Opening) -> None:
    page = opening()
    add(page, png("one.png"), png("two.png", chest() // 2))
    page.locator("body").press("?")
    expect(page.locator("#keys")).to_be_visible()
    assert page.locator("#keys tr").count() > 15
    page.keyboard.press("Escape")
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.id || document.activeElement.tagName.toLowerCase()")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or place == "body", place
        if reached and place == reached[0]:
            break
        reached.append(place)
    wanted = {
        "model",
        "open",
        "theme",
        "help",
        "strip",
        "tool-window",
        "canvas",
        "compare",
        "order",
        "rule",
        "findings",
    }
    assert wanted | {"save-predictions", "save-image"} <= set(reached)

    page.locator("#strip").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".pane header .name").first).to_have_text("two.png")
    page.keyboard.press("[")
    expect(page.locator(".pane header .name").first).to_have_text("one.png")
    page.locator("#findings").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    active = "finding-1"
    expect(page.locator("#findings")).to_have_attribute("aria-activedescendant", active)
    page.keyboard.press("Enter")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".legend").first).to_contain_text("aliency for")
    page.keyboard.press("x")
    expect(page.locator(".study")).to_have_count(1)
    unnamed = "all => all.filter(one => one.offsetParent && !(one.textContent.trim() || one.ariaLabel)).length"
    assert page.locator("button, [role=listbox], [role=img]").evaluate_all(unnamed) == 0


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_files_are_dropped_and_pasted(opening: Opening, way: str) -> None:
    page = opening()
    make = """(bytes) => {
      const transfer = new DataTransfer();
      for (const name of ["one.png", "two.png"]) transfer.items.add(new File([Uint8Array.from(bytes)], name));
      return transfer;
    }"""
    transfer = page.evaluate_handle(make, list(png(pixels=chest(40, 40, np.uint8))["buffer"]))
    kinds = {"drop": "DragEvent", "paste": "ClipboardEvent"}
    send = """([transfer, way, kind]) => document.body.dispatchEvent(new window[kind](way,
      { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer }))"""
    page.evaluate(send, [transfer, way, kinds[way]])
    expect(page.locator(".study.done")).to_have_count(2)


def test_fingers_window_zoom_and_move(opening: Opening) -> None:
    page = opening(size="phone", has_touch=True)
    add(page, png())
    frame = page.locator(FILM.format(0)).bounding_box()
    assert frame
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    hand = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": at, "y": down, "id": number} for number, (at, down) in enumerate(points)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x, y))
    touch("touchMove", (x - 60, y))
    touch("touchEnd")
    windowed = readout(page)
    assert not windowed.startswith("W 1.00") and "L 0.50" in windowed
    touch("touchStart", (x - 30, y), (x + 30, y))
    touch("touchMove", (x - 60, y), (x + 60, y))
    touch("touchEnd")
    zoom = [int(number) for text in (windowed, readout(page)) for number in re.findall(r"(\d+) %", text)]
    assert zoom[1] == pytest.approx(2 * zoom[0], rel=0.1)
    assert readout(page)[:14] == windowed[:14]


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_the_screen(opening: Opening, size: str) -> None:
    page = opening(size=size)
    add(page, dicom("a name that is so long that no strip of studies can show the whole of it at once.dcm"), png())
    page.keyboard.press("c")
    expect(page.locator(".pane:visible")).to_have_count(2)
    drawn(page)
    wide, high = SIZES[size]
    assert page.evaluate("document.documentElement.scrollWidth") <= wide
    assert page.evaluate("document.documentElement.scrollHeight") <= high
    for name in ("#use", "#findings", "#open", "#compare", FILM.format(0), FILM.format(1), ".warnings >> nth=0"):
        frame = page.locator(name).bounding_box()
        assert frame and frame["x"] >= 0 and frame["x"] + frame["width"] <= wide and frame["y"] < high, name
    film = page.locator(FILM.format(0)).bounding_box()
    assert film and film["width"] >= 150 and film["height"] >= 150


@pytest.mark.parametrize(
    ("system", "chosen", "dark"), [("dark", "", True), ("light", "", False), ("light", "dark", True)]
)
def test_dark_and_light(opening: Opening, system: str, chosen: str, dark: bool) -> None:
    page = opening(color_scheme=system)
    page.select_option("#theme", chosen)
    drawn(page)
    channels = page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[:3]
    ink = page.evaluate("getComputedStyle(document.body).color").split("(")[1].split(",")[:3]
    ground, letters = (sum(int(one.strip(" )")) for one in colour) for colour in (channels, ink))
    assert (ground < letters) == dark and abs(ground - letters) > 450
    page.reload()
    assert page.locator("#theme").input_value() == chosen
