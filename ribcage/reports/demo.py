"""Showcase: a whole journey on one self-contained page – what was done, how long it took, what came of it.

Everything on it is read from the files that the commands left: a number here is a number there.
"""

import html as quoting
import json
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from ribcage.bundle import bundle
from ribcage.data import dataset_folder
from ribcage.data.audit import Member
from ribcage.imaging import image_file
from ribcage.inference import detections, explanation
from ribcage.reports import audit, classification, html, pretraining, saliency, svg
from ribcage.reports.demo_steps import Journey, clock
from ribcage.runtime import files
from ribcage.training import monitor

PAGE = "index.html"
SHORT = "Shortened by --quick: every step is seen, and no number means much, whichever is larger."
EXPORTED = "small-taught/bundle/model.onnx"
"""Where `ribcage export` writes, and `ribcage serve` looks."""
TEST = Path("evaluation") / "phantom-test"
SAMPLES, SHOWN, TRIED = 12, 6, 5
"""Images of the data, images with heat or boxes, and how many are tried for each."""
SECONDS = 60.0
"""That the server may take to begin."""
STYLE = """
.way { display: grid; grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); gap: 1.3rem .9rem; margin: 1.2rem 0 }
.way a { position: relative; display: block; padding: .55rem .65rem; border: 1px solid var(--line); border-radius: 6px;
  border-top: 3px solid var(--bar); background: var(--card); color: inherit; text-decoration: none; font-size: .86em;
  line-height: 1.3 }
.way a + a::before { content: "→"; position: absolute; left: -.95rem; top: .7rem; color: var(--soft) }
.way a:hover, .way a:focus-visible { border-color: var(--bar) }
.way b { display: block; font-variant-numeric: tabular-nums; font-size: 1.15em } .way span { color: var(--soft) }
.wide .sheet { grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)) }
"""


def write(way: Journey) -> Path:
    """The page of a journey that is done."""
    folder = way.folder
    parts = [
        html.paragraph(
            "Everything here was made on this machine, of radiographs that nobody ever had. Research use only.",
            soft=True,
        ),
        *([html.paragraph(SHORT, soft=True)] if way.asked.get("quick") else []),
        pipeline(way),
        *section("make", "Images", images(folder)),
        *section("train", "A model learns", [*numbers(folder / "model"), *course(folder / "model")]),
        *section("pretrain", "Learning without labels", drawn(folder / "pretrained" / "images.html")),
        *section("few", "Few labels, with and without that", compared(folder / "pretraining.json")),
        *section(
            "distil",
            "EEEA-Net-C2 with few labels, alone and taught by the first",
            compared(folder / "distillation.json"),
        ),
        *section("localise", "Where it looks, and where boxes are", [*looks(folder), *found(folder)]),
        *section("export", "Out of the lab", served(folder)),
        *section("commands", "The same, typed", typed(way)),
    ]
    text = html.page("The journey of a chest-radiograph model", parts, style=svg.STYLE + pretraining.STYLE + STYLE)
    files.write(folder / PAGE, text)
    return folder / PAGE


def section(name: str, title: str, parts: Sequence[str]) -> list[str]:
    """A heading to be linked to, and what stands below it; nothing where there is nothing."""
    return [f'<div id="{name}"></div>', html.heading(title), *parts] if parts else []


def pipeline(way: Journey) -> str:
    """The parts as a row of boxes with arrows, what each took, and all together."""
    places = {"inspect": "make", "serve": "export"}
    boxes = [
        f'<a href="#{places.get(part.name, part.name)}"><b>{clock(way.done[part.name].seconds)}</b>'
        f"<span>{html.escape(part.title)}</span></a>"
        for part in way.parts
    ]
    whole = clock(sum(one.seconds for one in way.done.values()))
    return f'<div class="way">{"".join(boxes)}</div>{html.paragraph(f"{whole} minutes in all.", soft=True)}'


def link(text: str, file: Path, folder: Path) -> str:
    """To a page beside this one."""
    address = quoting.escape(file.relative_to(folder).as_posix(), quote=True)
    return f'<p><a href="{address}">{html.escape(text)}</a></p>'


# ---- what there is to see


def images(folder: Path) -> list[str]:
    """Some of the data, with the boxes that are known."""
    own = dataset_folder.open(folder / "phantom")
    facts = own.facts
    split = own.index.table["split"].value_counts()
    counted = ", ".join(f"{name} {count:,}" for name, count in split.items())
    return [
        html.paragraph(f"{facts.images:,} images of {facts.size} × {facts.size} pixels: {counted}."),
        f'<div class="wide">{"".join(audit.sheet(Member("phantom", own.index, own), SAMPLES)[1:])}</div>',
        link("What is in the data, and what is wrong with it", folder / "inspect.html", folder),
    ]


def result(run: Path) -> dict[str, Any]:
    """What a test found."""
    found: dict[str, Any] = json.loads((run / TEST / "metrics.json").read_text(encoding="utf-8"))
    return found


def numbers(run: Path) -> list[str]:
    """What it is worth on patients that it has never seen."""
    said = result(run)
    return [
        html.paragraph(f"Tested once, on {classification.images_text(said)}. Intervals: 95 %, over patients."),
        html.cards(classification.cards(said)),
        link("Findings, curves, calibration, baselines, subgroups", run / TEST / "index.html", run.parent),
    ]


def course(run: Path) -> list[str]:
    """How the loss fell, and how validation went."""
    log = monitor.logged(run / "metrics.jsonl")
    judged = [line for line in log if "auroc" in line.get("validation", {})]
    learnt = [{name: line[name] for name in ("step", "loss")} for line in log if "loss" in line]
    drawings = [pretraining.curve("loss", pretraining.over_steps(learnt, "loss"))]
    if len(judged) > 1:
        steps = np.array([line["step"] for line in judged], float)
        scores = np.array([line["validation"]["auroc"] for line in judged])
        drawings.append(pretraining.curve("validation, mean AUROC", svg.Line(steps, scores)))
    return [svg.plots(drawings)]


def drawn(file: Path) -> list[str]:
    """What a pretraining makes of hidden parts, from its own page."""
    text = file.read_text(encoding="utf-8")
    start, end = text.find(pretraining.DRAWN_FROM), text.find(pretraining.DRAWN_TO)
    own = [text[start:end]] if 0 <= start < end else []
    return [*own, link("Its page: how it went, and which images it finds alike", file, file.parents[1])]


def compared(file: Path) -> list[str]:
    """Tested models beside each other, and what the difference is worth."""
    said = json.loads(file.read_text(encoding="utf-8"))
    for one in said["models"]:
        one["name"] = Path(one["name"]).name
    parts = [html.table(classification.beside_head(said), classification.beside_rows(said))]
    for place, pair in enumerate(said["differences"], 1):
        parts += [html.heading(f"{Path(pair['model']).name} minus {Path(pair['minus']).name}", 3)]
        parts += [html.table(list(classification.MEANS_HEAD), classification.means_rows(said, place)[:2])]
    return [*parts, link("Finding by finding", file.with_suffix(".html"), file.parent)]


def looks(folder: Path) -> list[str]:
    """Of findings that the model is best at, the surest image that has it, and where the model looks."""
    said, opened, own = result(folder / "model"), bundle.load(folder / "model"), dataset_folder.open(folder / "phantom")
    table = pd.read_parquet(folder / "model" / TEST / "predictions.parquet")
    best = sorted(said["findings"], key=lambda one: -(one["auroc"]["value"] or 0))[:SHOWN]
    figures = []
    for name in (one["finding"] for one in best):
        present = table[table[f"{name}_label"] == 1].nlargest(TRIED, name)
        for row, said_of in zip(present["row"], present[name], strict=True):
            pixels = np.asarray(own.image(int(row)))
            read = image_file.GrayImage(pixels, pixels.shape[1], pixels.shape[0])
            heat = explanation.heat(opened, read, (name,))[0]
            if heat.any():  # else nothing in the image speaks for it
                figures.append(html.coloured(saliency.overlay(pixels, heat), f"{name} {100 * said_of:.0f} %"))
                break
    seen = torch.zeros(1, opened.model.channels, *opened.model.size)
    with torch.inference_mode():
        high, wide = opened.method.backbone.eval().maps(seen).shape[-2:]
    note = (
        f"Of the findings it is best at, one of the {TRIED} test images that it is surest of, in which something "
        f"speaks for it: good cases, not usual ones. They are as coarse as what the network ends with, {high} × {wide} "
        "cells; larger images make them finer."
    )
    return [html.heading("Where the classifier looks", 3), html.paragraph(note, soft=True), *shown(figures)]


def found(folder: Path) -> list[str]:
    """Test images with the boxes that are known, and the surest that the detector found."""
    said, own = result(folder / "boxes"), dataset_folder.open(folder / "phantom")
    answers = detections.read(folder / "boxes" / TEST / "detections.parquet")
    surest = answers.boxes.sort_values("score", ascending=False).drop_duplicates("image")
    figures, marks = [], own.index.boxes
    for one in surest.head(SHOWN).itertuples(index=False):
        row = int(answers.images["row"].iloc[one.image])
        true = marks[marks["row"] == row][["x", "y", "width", "height"]].itertuples(index=False, name=None)
        box = (one.x, one.y, one.width, one.height)
        figures.append(html.figure(np.asarray(own.image(row)), f"{one.finding} {one.score:.2f}", list(true), [box]))
    area = said["macro"]["map"]
    measured = f"{classification.three(area['value'])} ({classification.limits(area)})"
    note = (
        f"Orange: drawn by who made the image; blue: the surest box of a detector on the frozen model. On all test "
        f"images its mean AP over IoU .40:.05:.75 is {measured}."
    )
    page = link("The whole report", folder / "boxes" / TEST / "index.html", folder)
    return [html.heading("Boxes", 3), html.paragraph(note), *shown(figures), page]


def shown(figures: Sequence[str]) -> list[str]:
    """Wide enough to see something."""
    return [f'<div class="wide">{html.sheet(figures)}</div>'] if figures else []


def served(folder: Path) -> list[str]:
    """The exported file, and what the server said of an image."""
    parts = []
    if (folder / EXPORTED).is_file():
        size = (folder / EXPORTED).stat().st_size / 1e6
        text = f"{EXPORTED}, {size:.1f} MB: gray bytes in, calibrated probabilities out, by any ONNX runtime."
        parts.append(html.paragraph(text))
    if (folder / "answers.json").is_file():
        said = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
        one = said["results"][0]
        first = sorted(one["findings"], key=lambda each: -each["probability"])[:5]
        rows = [[each["name"], f"{100 * each['probability']:.1f} %", html.Bar(each["probability"])] for each in first]
        text = f"The server, asked about {one['file']}, answered in {said['milliseconds']:.0f} ms; the five likeliest:"
        parts += [html.paragraph(text), html.table(["finding", "probability", ""], rows)]
    return parts


def typed(way: Journey) -> list[str]:
    """The commands of every part."""
    parts = []
    for part in way.parts:
        if way.done[part.name].commands:
            parts += [html.heading(part.title, 3), html.preformatted("\n".join(way.done[part.name].commands))]
    return parts


# ---- a server, tried


def ask(folder: Path, models: Sequence[Path]) -> None:
    """Start a server as a user would, send it a test image, keep its answer, and end it."""
    own = dataset_folder.open(folder / "phantom")
    row = int(np.flatnonzero(own.index.table["split"] == "test")[0])
    _, image = cv2.imencode(".png", np.asarray(own.image(row)))
    words = [sys.executable, "-m", "ribcage", "serve", *map(str, models), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
        try:
            assert server.stdout
            address = next((word for word in server.stdout.readline().split() if word.startswith("http://")), "")
            if not address:
                raise ValueError("The server did not start; 'ribcage serve' says why.")
            answer = posted(address, f"phantom-{row}.png", image.tobytes())
        finally:
            server.terminate()
    said = json.loads(answer)
    print(f"{said['results'][0]['file']}: answered by {address}")
    files.write(folder / "answers.json", json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def posted(address: str, name: str, content: bytes) -> str:
    """What a server says of a file that is sent as a form, as soon as it is ready."""
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
    asked = urllib.request.Request(f"{address.rstrip('/')}/v1/predict", body, kind)
    with opener.open(asked, timeout=SECONDS) as answer:
        text: str = answer.read().decode("utf-8")
        return text
