"""Pretraining report: training curves, reconstructions, and nearest neighbours in feature space.

`images.html` in a run folder. Reconstructions are shown for methods that mask images (`reconstructed`),
nearest neighbours for all methods. Labels are used only in captions and in the agreement of neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.bundle.spec import ModelSpec
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.methods import Method
from ribcage.reports import html, svg
from ribcage.reports.html import Figure
from ribcage.reports.svg import Axes, Dots, Line
from ribcage.reports.tracked_images import tracked_images
from ribcage.runtime import files
from ribcage.training import monitor, probe, trainer
from ribcage.training.metrics_log import LOG_FILE, LogLine, read_log, validations
from ribcage.training.probe import FeatureTable, LoaderOptions
from ribcage.training.tracking import Tracking

NEIGHBOURS = 6
RECONSTRUCTIONS, QUERIES = 8, 8
"""Images that are reconstructed, and images whose neighbours are shown."""
POINTS = 120
"""Of a curve; each is the mean of the steps around it."""
CLASSIFIERS = ("probe", "knn")
NAMES = {
    "loss": "loss",
    "rank": "effective rank of the features",
    "feature_std": "standard deviation of the feature directions",
    "probe": "mean AUROC of a linear probe",
    "knn": "mean AUROC of nearest neighbours",
}


@runtime_checkable
class Reconstructs(Protocol):
    """A method that reconstructs masked images."""

    def reconstructed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The masked images and the reconstructed ones, each (N, C, H, W)."""

    def eval(self) -> Self:
        """The method in evaluation mode."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""


@dataclass(frozen=True)
class Neighbours:
    """Images beside their nearest neighbours."""

    figures: list[Figure]
    """Each query, then its neighbours, the nearest first."""
    images: int
    """How many images were searched."""
    agreement: tuple[float, float] | None
    """How often the nearest image of another patient shares a finding, and any such image; None where unknown."""


def write_pretraining_page(
    folder: Path,
    method: Method,
    data: Datasets,
    rows: np.ndarray,
    model: ModelSpec,
    *,
    title: str,
    normalise: tuple[float, float] | None = None,
    images: int = 1000,
    threads: int | None = None,
    tracking: Tracking | None = None,
) -> Path:
    """The page in a run folder, whose images trackers also get; neighbours are searched among at most so many of the
    images."""
    loading: LoaderOptions = {"channels": model.channels, "normalise": normalise, "threads": threads}
    rows, log = monitor.sample(rows, images), read_log(folder / LOG_FILE)
    with monitor.unchanged_modes(method):
        reconstructions = (
            reconstruction_figures(method, data, rows, model, loading) if isinstance(method, Reconstructs) else []
        )
        neighbours = nearest_neighbours(method, data, rows, model, loading)
    page = html.render(
        "pretraining.html",
        title=title,
        collapse=monitor.warning(validations(log)),
        facts=run_facts(data, model, log),
        curves=training_curves(log),
        has_classifiers=any(name in line.all_numbers for line in log for name in CLASSIFIERS),
        reconstructions=reconstructions,
        neighbours=neighbours,
    )
    files.write_text(folder / "images.html", page)
    if tracking is not None:
        step = max((line.step for line in log), default=0)
        tracking.show("reconstructions", tracked_images(reconstructions), step)
        tracking.show("neighbours", tracked_images(neighbours.figures), step)
    return folder / "images.html"


# ---- numbers


def run_facts(data: Datasets, model: ModelSpec, log: Sequence[LogLine]) -> list[tuple[str, str]]:
    """(name, text) of method, model, data, and the last numbers of the log."""
    steps = [line for line in log if "loss" in line.numbers]
    found = validations(log)
    size = f"{model.size[0]} × {model.size[1]}, {model.channels} channel{'s' * (model.channels > 1)}"
    facts = [
        ("method", model.training.method or ""),
        ("model", model.name),
        ("data", ", ".join(dataset.facts.name for dataset in data)),
        ("images", f"{model.training.images or 0:,} from {model.training.patients or 0:,} patients"),
        ("input size", size),
        (
            "steps",
            f"{steps[-1].step:,} in {steps[-1].epoch:,} epoch{'s' * (steps[-1].epoch != 1)}" if steps else "",
        ),
        ("loss", f"{means(np.array([line.numbers['loss'] for line in steps]))[-1]:.4g}" if steps else ""),
        *((NAMES.get(name, name), f"{value:.3g}") for name, value in (found[-1] if found else {}).items()),
    ]
    return [(name, value) for name, value in facts if value]


def training_curves(log: Sequence[LogLine]) -> list[Markup]:
    """Every number over the steps; linear probe and nearest neighbours in one plot."""
    names = dict.fromkeys(name for line in log for name in line.all_numbers)
    lines = {name: over_steps(log, name) for name in sorted(names, key=lambda name: [*NAMES, name].index(name))}
    drawings = [curve_plot(NAMES.get(name, name), line) for name, line in lines.items() if name not in CLASSIFIERS]
    classifiers = [lines[name] for name in CLASSIFIERS if name in lines]
    return [*drawings, *([curve_plot("mean AUROC on labelled images", *classifiers)] if classifiers else [])]


def over_steps(log: Sequence[LogLine], name: str) -> Line:
    """A number at its steps."""
    places = [(line.step, line.all_numbers[name]) for line in log if name in line.all_numbers]
    x, y = np.array(places, float).T
    return Line(means(x), means(y))


def curve_plot(name: str, *lines: Line) -> Markup:
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


def reconstruction_figures(
    method: Reconstructs, data: Datasets, rows: np.ndarray, model: ModelSpec, loading: LoaderOptions
) -> list[Figure]:
    """Some images: as they are, masked, and reconstructed."""
    shown = SampledBatch(data, monitor.sample(rows, RECONSTRUCTIONS), model, loading)
    x = shown.batch.views[0]
    masked, whole = (
        values.cpu() for values in method.eval().reconstructed(trainer.to_device(shown.batch, device_of(method)))
    )
    figures = []
    triples = zip(*(shown.pixels(values) for values in (x, masked, whole)), strict=True)
    for number, (image, seen, made) in enumerate(triples):
        hidden = masked[number] != x[number]
        error = (whole[number] - x[number])[hidden].square().mean()
        figures += [
            html.gray_figure(image, shown.findings(number) or "input"),
            html.gray_figure(seen, f"masked image ({100 * (1 - hidden.float().mean()):.0f} % visible)"),
            html.gray_figure(made, f"reconstruction, MSE {error:.3f}"),
        ]
    return figures


def nearest_neighbours(
    method: Method, data: Datasets, rows: np.ndarray, model: ModelSpec, loading: LoaderOptions
) -> Neighbours:
    """Some images, each before those with the highest cosine similarity of their features."""
    images = probe.plain_loader(data, rows, model.size, None, **loading)
    part = probe.extract(method.backbone, images, device_of(method))
    directions = F.normalize(torch.from_numpy(part.features), dim=1)
    cosine = (directions @ directions.T).fill_diagonal_(-2)  # (N, N); no image is its own neighbour
    queries = np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).astype(np.int64)
    near = cosine[queries].topk(min(NEIGHBOURS, len(rows) - 1), dim=1)
    places = np.concatenate([queries[:, None], near.indices.numpy()], axis=1)  # (queries, 1 + neighbours)
    shown = SampledBatch(data, rows[places.ravel()], model, loading)
    pixels, patients = shown.pixels(shown.batch.views[0]), shown.batch.patients.view(places.shape)
    figures = []
    for number, image in enumerate(pixels):
        row, column = divmod(number, places.shape[1])
        words = [f"{near.values[row, column - 1]:.3f}"] if column else ["query"]
        words += ["same patient"] if column and patients[row, column] == patients[row, 0] else []
        figures.append(html.gray_figure(image, " · ".join([*words, shown.findings(number)]).removesuffix(" · ")))
    return Neighbours(figures, len(rows), label_agreement(data, part, cosine))


def label_agreement(data: Datasets, part: FeatureTable, cosine: Tensor) -> tuple[float, float] | None:
    """Among images with a finding: how often the nearest image of another patient shares one, and how often any image
    of another patient does; None where that is not defined."""
    present = torch.from_numpy((part.labels == 1).astype(np.float32))
    queries = present.any(dim=1)
    other = torch.from_numpy(of_other_patients(data, part.rows))[queries]  # (queries, N)
    shared = (present[queries] @ present.T > 0) & other
    if not queries.any() or not other.any(dim=1).all():
        return None
    nearest = shared.gather(1, cosine[queries].masked_fill(~other, -2).argmax(1, keepdim=True)).double().mean()
    by_chance = (shared.sum(1) / other.sum(1)).mean()
    return float(nearest), float(by_chance)


def of_other_patients(data: Datasets, rows: np.ndarray) -> np.ndarray:
    """(N, N) bool: whether two images are of two patients; an image of an unknown patient is of another than all."""
    people = data.table.iloc[rows]
    names = (people["name"] + "\0" + people["patient"]).to_numpy(str)
    same = (names[:, None] == names) & (people["patient"] != "").to_numpy()
    return ~same & ~np.eye(len(rows), dtype=bool)


class SampledBatch:
    """Images as the model sees them, with their labels."""

    def __init__(self, data: Datasets, rows: np.ndarray, model: ModelSpec, loading: LoaderOptions) -> None:
        options: LoaderOptions = {**loading, "batch": len(rows)}
        self.loader = probe.plain_loader(data, rows, model.size, None, **options)
        [self.batch] = self.loader.epoch(0)

    def pixels(self, values: Tensor) -> list[np.ndarray]:
        """(N, C, H, W) as the model sees it → N gray images."""
        scales = np.array([self.loader.scale(source) for source in self.batch.sources.tolist()])
        mean, std = scales.T[:, :, None, None]
        gray = values[:, 0].float().numpy() * std + mean
        return list((255 * gray.clip(0, 1)).round().astype(np.uint8))

    def findings(self, number: int) -> str:
        """Findings that are present; "no finding" where all known labels are negative."""
        labels = self.batch.labels[number]
        named = [name for name, value in zip(self.loader.findings, labels.tolist(), strict=True) if value == 1]
        return ", ".join(named).replace("_", " ") or ("no finding" if (labels == 0).any() else "")


def device_of(method: Method | Reconstructs) -> torch.device:
    """The device of a method."""
    return next(method.parameters()).device
