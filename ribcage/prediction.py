"""Prediction: picture files → what a model says of each, one file's fault being its own.

A file is read, made square and shown as the pictures were that the model learnt from. Boxes are in the file's pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ribcage import detections, image, views
from ribcage.bundle import Bundle, Detector, Model, Opened
from ribcage.metrics import multiclass, sigmoid

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima", "")
"""Of the files in a folder that are looked at."""
BOX = ("finding", "score", "x", "y", "width", "height")


@dataclass(frozen=True)
class Shown:
    """A file on its way into a model."""

    path: Path
    size: tuple[int, int]
    """(width, height) of the picture in the file."""
    picture: Tensor | None
    """(1, C, H, W)"""
    error: str = ""


def files(paths: Sequence[Path]) -> list[Path]:
    """Those named, and of folders all that may be pictures, in order of their names."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = [one for one in sorted(path.rglob("*")) if one.is_file() and one.suffix.lower() in ENDINGS]
            found |= dict.fromkeys(one for one in inside if not one.name.startswith("."))
        else:
            found[path] = None
    if not found:
        raise ValueError(f"There is no picture in {', '.join(map(str, paths)) or 'nothing'}.")
    return list(found)


def show(path: Path, model: Model) -> Shown:
    """One file as the model wants to see it, or why it cannot be read."""
    try:
        read = image.read(path, min_side=model.stored)
    except Exception as error:  # a file may be anything, and so may what goes wrong with it
        text = " ".join(str(error).split()) or type(error).__name__
        return Shown(path, (0, 0), None, text)
    size = (read.width, read.height)
    square, _ = image.fit(read.pixels, model.stored, model.fit, of=size)
    still = views.draw(views.plain(model.size), 0, 0, np.zeros(1, np.int64), 0, model.stored)
    return Shown(path, size, views.apply([square], still, model.mean, model.std).expand(-1, model.channels, -1, -1))


def probabilities(opened: Bundle, paths: Sequence[Path], *, batch: int = 16) -> pd.DataFrame:
    """One row per file, in their order: path, the calibrated probability of each finding, error."""
    rows = _answered(opened, paths, batch, lambda shown: _named(opened, shown))
    return _table(rows, ["path", *opened.model.findings, "error"])


def boxes(opened: Detector, paths: Sequence[Path], *, least: Sequence[float], batch: int = 16) -> pd.DataFrame:
    """One row per box of at least the score of its finding: path, finding, score, x, y, width, height, error.

    The surest of a file comes first; a file without any has one row without a finding.
    """
    rows = _answered(opened, paths, batch, lambda shown: _placed(opened, shown, np.array(least)))
    return _table(rows, ["path", *BOX, "error"])


Row = dict[str, object]


def _answered(
    opened: Opened, paths: Sequence[Path], batch: int, answer: Callable[[Sequence[Shown]], Iterator[list[Row]]]
) -> Iterator[Row]:
    """The rows of every file, so many read at a time."""
    opened.method.eval()
    with ThreadPoolExecutor() as pool, torch.inference_mode():
        for at in range(0, len(paths), batch):
            shown = list(pool.map(lambda path: show(path, opened.model), paths[at : at + batch]))
            whole = [one for one in shown if one.picture is not None]
            said = answer(whole) if whole else iter(())
            for one in shown:
                rows = [Row(error=one.error)] if one.picture is None else next(said)
                yield from ({"path": str(one.path), "error": "", **row} for row in rows)


def _table(rows: Iterator[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Numbers where there are such, whatever the first rows hold."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    texts = ("path", "finding", "error")
    return table.astype({name: "str" if name in texts else "float64" for name in columns}).fillna({"finding": ""})


def _stacked(shown: Sequence[Shown]) -> Tensor:
    """(N, C, H, W)"""
    return torch.cat([one.picture for one in shown if one.picture is not None])


def _named(opened: Bundle, shown: Sequence[Shown]) -> Iterator[list[Row]]:
    """One row for each file."""
    model = opened.model
    logits = opened.method.logits(_stacked(shown)).float().numpy().astype(np.float64)
    logits /= np.array(model.temperature) if len(model.temperature) else 1.0
    for row in multiclass.softmax(logits) if model.loss == "cross-entropy" else sigmoid(logits):
        yield [dict(zip(model.findings, row.tolist(), strict=True))]


def _placed(opened: Detector, shown: Sequence[Shown], least: np.ndarray) -> Iterator[list[Row]]:
    """The rows of each file."""
    model = opened.model
    for one, found in zip(shown, opened.finder.found(_stacked(shown)), strict=True):
        inside = detections.stored(found.boxes.float().numpy(), model.size, model.stored)
        x0, y0, x1, y1 = detections.original(inside, one.size, model.stored, model.fit).T
        places, scores = found.findings.numpy(), found.scores.float().numpy()
        kept = (scores >= least[places]) & (x1 > x0) & (y1 > y0)  # none that lies in the border beside the picture
        columns = [each[kept].tolist() for each in (scores, x0, y0, x1 - x0, y1 - y0)]
        names = [model.findings[place] for place in places[kept]]
        yield [dict(zip(BOX, values, strict=True)) for values in zip(names, *columns, strict=True)] or [{}]
