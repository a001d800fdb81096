"""Sheet: what a pretraining has learnt, as one page: how its numbers went, what it draws, what it finds alike.

`images.html` in a run folder. Methods that draw hidden parts of an image (`reconstructed`) show them; every method
shows some images beside those whose features point the same way. Labels, where there are any, are only written below.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.bundle.bundle import Model
from ribcage.data import selection
from ribcage.data.dataset_folder import Store
from ribcage.data.loader import Batch
from ribcage.methods import Method
from ribcage.reports import html, svg
from ribcage.reports.svg import Axes, Dots, Line
from ribcage.runtime import files
from ribcage.training import monitor, probe, trainer
from ribcage.training.probe import Part

NEIGHBOURS = 6
DRAWN, ASKED = 8, 8
"""Images that are drawn, and images whose neighbours are shown."""
DRAWN_FROM, DRAWN_TO = "<!-- drawn -->", "<!-- /drawn -->"
"""Around what it draws, for pages that show it, too."""
POINTS = 120
"""Of a curve; each is the mean of the steps around it."""
USUAL = ("step", "epoch", "lr", "seconds", "waited", "validation")
"""What a log line has beside the method's own numbers."""
READERS = ("probe", "knn")
NAMES = {
    "loss": "loss",
    "rank": "effective rank of the features",
    "spread": "spread of the features",
    "probe": "linear probe, mean AUROC",
    "knn": "nearest neighbours, mean AUROC",
}
STYLE = """
.six .sheet { grid-template-columns: repeat(6, 1fr) } .seven .sheet { grid-template-columns: repeat(7, 1fr) }
.seven figure:nth-child(7n+1), .six figure:nth-child(3n+1) { outline: 2px solid var(--bar) }
@media (max-width: 700px) { .six .sheet { grid-template-columns: repeat(3, 1fr) }
  .seven .sheet { grid-template-columns: repeat(4, 1fr) } .seven figure:nth-child(7n+1) { grid-column-start: 1 } }
"""


@runtime_checkable
class Draws(Protocol):
    """A method that draws what is hidden: what it saw, and the same with the rest drawn."""

    def reconstructed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Twice (N, C, H, W)."""


def write(
    folder: Path,
    method: Method,
    stores: Sequence[Store],
    rows: np.ndarray,
    model: Model,
    *,
    title: str,
    normalise: tuple[float, float] | None = None,
    images: int = 1000,
    threads: int | None = None,
) -> Path:
    """The page in a run folder; neighbours are looked for among so many of the images."""
    loading = {"channels": model.channels, "normalise": normalise, "threads": threads}
    rows, log = monitor.sample(rows, images), monitor.logged(folder / "metrics.jsonl")
    with monitor.left_as_it_was(method):
        parts = [*summary(stores, model, log), *course(log)]
        parts += drawn(method, stores, rows, model, loading) if isinstance(method, Draws) else []
        parts += alike(method, stores, rows, model, loading)
    files.write(folder / "images.html", html.page(title, parts, style=svg.STYLE + STYLE))
    return folder / "images.html"


# ---- numbers


def summary(stores: Sequence[Store], model: Model, log: Sequence[dict[str, Any]]) -> list[str]:
    """What learnt what, and what came of it; a collapse is said first."""
    steps = [line for line in log if "loss" in line]
    found = [line["validation"] for line in log if "validation" in line]
    collapsed = monitor.warning(found)
    size = f"{model.size[0]} × {model.size[1]}, {model.channels} channel{'s' * (model.channels > 1)}"
    facts = [
        ("method", str(model.training.get("method", ""))),
        ("model", model.name),
        ("data", ", ".join(store.facts.name for store in stores)),
        ("images", f"{model.training.get('images', 0):,} of {model.training.get('patients', 0):,} known patients"),
        ("size", size),
        ("steps", f"{steps[-1]['step']:,} in {steps[-1]['epoch']:,} epochs" if steps else ""),
        ("loss", f"{means(np.array([line['loss'] for line in steps]))[-1]:.4g}" if steps else ""),
        *((NAMES.get(name, name), f"{value:.3g}") for name, value in (found[-1] if found else {}).items()),
    ]
    said = html.facts([(name, value) for name, value in facts if value])
    return [html.problems([collapsed]), said] if collapsed else [said]


def course(log: Sequence[dict[str, Any]]) -> list[str]:
    """Every number over the steps; both readers of labelled images in one drawing."""
    names = dict.fromkeys(name for line in log for name in numbers(line))
    lines = {name: over_steps(log, name) for name in sorted(names, key=lambda name: [*NAMES, name].index(name))}
    drawings = [curve(NAMES.get(name, name), line) for name, line in lines.items() if name not in READERS]
    readers = [lines[name] for name in READERS if name in lines]
    drawings += [curve("mean AUROC of labelled images", *readers)] if readers else []
    if not drawings:
        return []
    note = (
        "Rank and spread tell how many directions the features use and how far apart images are (0 all alike, 1 "
        "scattered); a run in which either falls to nothing has collapsed, whatever its loss."
    )
    key = [svg.key([("main", "linear probe"), ("other", "nearest neighbours")])] if readers else []
    return [html.heading("How it went"), svg.plots(drawings), *key, html.paragraph(note, soft=True)]


def numbers(line: dict[str, Any]) -> dict[str, float]:
    """What a line of the log says of the method."""
    return {name: value for name, value in {**line, **line.get("validation", {})}.items() if name not in USUAL}


def over_steps(log: Sequence[dict[str, Any]], name: str) -> Line:
    """A number at its steps."""
    places = [(line["step"], numbers(line)[name]) for line in log if name in numbers(line)]
    x, y = np.array(places, float).T
    return Line(means(x), means(y))


def curve(name: str, *lines: Line) -> str:
    """Numbers over the steps, the second in another colour."""
    y = np.concatenate([line.y for line in lines])
    room = 0.05 * (np.ptp(y) or abs(y[0]) or 1.0)
    low, high, end = float(y.min() - room), float(y.max() + room), float(max(line.x.max() for line in lines))
    across = [(value, f"{value:,.0f}") for value in (0.0, end / 2, end)]
    up = [(value, f"{value:.3g}") for value in (low + room, (low + high) / 2, high - room)]
    colours = [replace(line, kind=kind) for line, kind in zip(lines, ("main", "other"), strict=False)]
    dots = [Dots(line.x, line.y, "other" * (line.kind == "other")) for line in colours if len(line.x) < 20]
    return svg.plot(name, [*colours, *dots], Axes((0.0, end), (low, high), "steps", "", across, up))


def means(values: np.ndarray) -> np.ndarray:
    """At most POINTS of them, each the mean of as many."""
    return np.array([part.mean() for part in np.array_split(values, min(POINTS, len(values)))])


# ---- images


def drawn(method: Any, stores: Sequence[Store], rows: np.ndarray, model: Model, loading: dict[str, Any]) -> list[str]:
    """Some images, what the method saw of them, and what it made of the rest."""
    shown = Shown(stores, monitor.sample(rows, DRAWN), model, loading)
    x = shown.batch.views[0]
    masked, whole = (
        values.cpu() for values in method.eval().reconstructed(trainer.to_device(shown.batch, place(method)))
    )
    figures = []
    triples = zip(*(shown.pixels(values) for values in (x, masked, whole)), strict=True)
    for number, (image, seen, made) in enumerate(triples):
        hidden = masked[number] != x[number]
        error = (whole[number] - x[number])[hidden].square().mean()
        figures += [
            html.figure(image, shown.findings(number) or "input"),
            html.figure(seen, f"seen: {100 * (1 - hidden.float().mean()):.0f} %"),
            html.figure(made, f"drawn, error {error:.3f}"),
        ]
    note = (
        "Errors are mean squares over hidden pixels, in units of the variance of the data: a gray plate gets about 1."
    )
    own = f'{DRAWN_FROM}{html.paragraph(note, soft=True)}<div class="six">{html.sheet(figures)}</div>{DRAWN_TO}'
    return [html.heading("What it draws"), own]


def alike(
    method: Method, stores: Sequence[Store], rows: np.ndarray, model: Model, loading: dict[str, Any]
) -> list[str]:
    """Some images, each before those whose features are nearest by cosine."""
    part = probe.extract(method.backbone, probe.shown(stores, rows, model.size, None, **loading), place(method))
    directions = F.normalize(torch.from_numpy(part.features), dim=1)
    cosine = (directions @ directions.T).fill_diagonal_(-2)  # (N, N); nobody is beside itself
    asked = np.linspace(0, len(rows) - 1, min(ASKED, len(rows))).astype(np.int64)
    near = cosine[asked].topk(min(NEIGHBOURS, len(rows) - 1), dim=1)
    places = np.concatenate([asked[:, None], near.indices.numpy()], axis=1)  # (asked, 1 + neighbours)
    shown = Shown(stores, rows[places.ravel()], model, loading)
    pixels, patients = shown.pixels(shown.batch.views[0]), shown.batch.patients.view(places.shape)
    figures = []
    for number, image in enumerate(pixels):
        row, column = divmod(number, places.shape[1])
        words = [f"{near.values[row, column - 1]:.3f}"] if column else ["asked"]
        words += ["same patient"] if column and patients[row, column] == patients[row, 0] else []
        figures.append(html.figure(image, " · ".join([*words, shown.findings(number)]).removesuffix(" · ")))
    note = f"Each row: an image and, of {len(rows):,} images, those whose features point most nearly the same way."
    notes = [html.paragraph(note + agreement(stores, part, cosine), soft=True)]
    return [html.heading("What it finds alike"), *notes, f'<div class="seven">{html.sheet(figures)}</div>']


def agreement(stores: Sequence[Store], part: Part, cosine: Tensor) -> str:
    """How often the nearest image of another patient shares a finding, beside how often any such image does."""
    present = torch.from_numpy((part.labels == 1).astype(np.float32))
    asked = present.any(dim=1)
    other = torch.from_numpy(of_other_patients(stores, part.rows))[asked]  # (asked, N)
    shared = (present[asked] @ present.T > 0) & other
    if not asked.any() or not other.any(dim=1).all():
        return ""
    nearest = shared.gather(1, cosine[asked].masked_fill(~other, -2).argmax(1, keepdim=True)).double().mean()
    by_chance = (shared.sum(1) / other.sum(1)).mean()
    return (
        f" To an image with a finding, the nearest of another patient shares one in {100 * nearest:.0f} % of cases, "
        f"any image of another patient in {100 * by_chance:.0f} %."
    )


def of_other_patients(stores: Sequence[Store], rows: np.ndarray) -> np.ndarray:
    """(N, N) bool: whether two images are of two patients; one without a name is another than all."""
    people = selection.table(stores).iloc[rows]
    names = (people["name"] + "\0" + people["patient"]).to_numpy(str)
    same = (names[:, None] == names) & (people["patient"] != "").to_numpy()
    return ~same & ~np.eye(len(rows), dtype=bool)


class Shown:
    """Images as the model sees them, with what is known of them."""

    def __init__(self, stores: Sequence[Store], rows: np.ndarray, model: Model, loading: dict[str, Any]) -> None:
        self.loader = probe.shown(stores, rows, model.size, None, batch=len(rows), **loading)
        [self.batch] = self.loader.epoch(0)

    def pixels(self, values: Tensor) -> list[np.ndarray]:
        """(N, C, H, W) as the model sees it → N gray images."""
        scales = np.array([self.loader.scale(source) for source in self.batch.sources.tolist()])
        mean, std = scales.T[:, :, None, None]
        gray = values[:, 0].float().numpy() * std + mean
        return list((255 * gray.clip(0, 1)).round().astype(np.uint8))

    def findings(self, number: int) -> str:
        """Those that are present; – where all that is known is absent."""
        labels = self.batch.labels[number]
        named = [name for name, value in zip(self.loader.findings, labels.tolist(), strict=True) if value == 1]
        return ", ".join(named).replace("_", " ") or ("–" if (labels == 0).any() else "")


def place(method: Method) -> torch.device:
    """Where a method is."""
    return next(method.parameters()).device
