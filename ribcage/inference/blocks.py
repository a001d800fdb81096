"""Predictions in blocks: files or rows are divided into blocks, which an engine computes, such as a Ray cluster.

Every block consists of whole batches, so the model is applied to the same batches as in a single process, and on the
same processor the results are identical to the last bit.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from ribcage.bundle.io import Classifier, Detector
from ribcage.data.collection import Datasets
from ribcage.inference import cam_detector, detections, predictions
from ribcage.inference.detections import Detections
from ribcage.inference.file_predictions import FilePrediction, FilePredictions
from ribcage.inference.predictions import Predictions
from ribcage.runtime import progress
from ribcage.runtime.engines import Engine

Task = TypeVar("Task", bound=Sequence[Path] | np.ndarray)
Result = TypeVar("Result")
LEAST = 64
"""Wanted number of blocks: many more than processes, so that all of them end at about the same time."""
MOST = 8
"""Limit on the batches of a block."""


def blocks(count: int, batch: int) -> list[slice]:
    """Divide `count` items into blocks of the same number of whole batches."""
    size = batch * max(1, min(MOST, -(-count // batch) // LEAST))
    return [slice(start, start + size) for start in range(0, count, size)]


def predicted_files(
    engine: Engine, compute: Callable[..., FilePredictions], paths: Sequence[Path], *, batch: int = 16
) -> FilePredictions:
    """The predictions that `compute` returns for these files; it is made by `image_files.predictor` with this batch."""
    found_none = compute([])  # reads the out-of-distribution check, so that not every process has to
    tasks = [paths[block] for block in blocks(len(paths), batch)]
    found = list(_tracked(engine, FileBlocks(compute, batch).prepared, tasks, "files"))
    for path in (path for one in found for path in one.absent if path.exists()):
        raise FileNotFoundError(
            f"{path} exists on this machine, but not on another one. The files must have the same path on all machines."
        )
    files = tuple(each for one in found for each in one.files)
    return replace(found_none, files=files)


def predicted_rows(
    engine: Engine, opened: Classifier, data: Datasets, rows: np.ndarray, *, batch: int = 64, ten_crop: bool = False
) -> Predictions:
    """The predictions that `predictions.predict` returns for these rows."""
    rows = np.unique(rows)
    work = RowBlocks.of(opened, data, batch, ten_crop)
    tasks = [rows[block] for block in blocks(len(rows), batch)]
    parts = list(_tracked(engine, work.classify, tasks, "images"))
    return Predictions(opened.spec.findings, rows, np.concatenate(parts), opened.spec.loss == "cross-entropy")


def detected_rows(engine: Engine, opened: Detector, data: Datasets, rows: np.ndarray, *, batch: int = 64) -> Detections:
    """The boxes that `detections.detect` returns for these rows."""
    rows = np.unique(rows)
    places = blocks(len(rows), batch)
    work = RowBlocks.of(opened, data, batch)
    found = _tracked(engine, work.detect, [rows[block] for block in places], "images")
    boxes = [each.assign(image=each["image"] + block.start) for each, block in zip(found, places, strict=True)]
    columns = {name: np.concatenate([each[name].to_numpy() for each in boxes]) for name in detections.COLUMNS}
    joined = pd.DataFrame(columns).astype(detections.TYPES)
    return Detections(opened.spec.findings, detections.detection_context(data, rows), joined)


def _tracked(
    engine: Engine, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], unit: str
) -> Iterator[Result]:
    """The result of every block, with a progress line."""
    found: list[Result] = []

    def counts() -> Iterator[int]:
        for task, result in zip(tasks, engine.map(prepare, tasks), strict=True):
            found.append(result)
            yield len(task)

    for _ in progress.track(counts(), sum(map(len, tasks)), "predict", unit):
        yield found.pop()


# ---- in the processes of the engine: they receive the following objects pickled


@dataclass(frozen=True)
class FileBlock:
    """The predictions of a block of files."""

    files: tuple[FilePrediction, ...]
    absent: tuple[Path, ...]
    """Files that do not exist on the machine of the process."""


@dataclass(frozen=True)
class FileBlocks:
    """Predicts blocks of files."""

    compute: Callable[..., FilePredictions]
    batch: int

    def prepared(self) -> Callable[[Sequence[Path]], FileBlock]:
        """A function that predicts these files."""
        return self._predict

    def _predict(self, paths: Sequence[Path]) -> FileBlock:
        return FileBlock(self.compute(paths).files, tuple(path for path in paths if not os.path.lexists(path)))


@dataclass(frozen=True)
class RowBlocks:
    """Predicts blocks of rows of dataset folders, on a GPU if there is one."""

    opened: Classifier | Detector
    folders: tuple[Path, ...]
    plans: tuple[str, ...]
    """What each folder contains, as a hash."""
    batch: int
    ten_crop: bool = False

    @classmethod
    def of(cls, opened: Classifier | Detector, data: Datasets, batch: int, ten_crop: bool = False) -> "RowBlocks":
        """For the dataset folders that are opened here."""
        folders = tuple(each.folder for each in data)
        return cls(opened, folders, tuple(each.facts.plan for each in data), batch, ten_crop)

    def classify(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function: (N,) rows → (N, F) logits."""
        data, device = self._data(), self._device()
        assert isinstance(self.opened, Classifier)
        model, method = self.opened.spec, self.opened.method.to(device)

        def logits(rows: np.ndarray) -> np.ndarray:
            return predictions.predict(
                method, data, rows, model=model, device=device, batch=self.batch, ten_crop=self.ten_crop,
                threads=_threads(device),
            ).logits  # fmt: skip

        return logits

    def detect(self) -> Callable[[np.ndarray], pd.DataFrame]:
        """A function: (N,) rows → the boxes of these rows, as in `Detections`."""
        data, device = self._data(), self._device()
        assert isinstance(self.opened, Detector)
        self.opened.method.to(device)
        model, finder = self.opened.spec, cam_detector.as_detector(self.opened)

        def boxes(rows: np.ndarray) -> pd.DataFrame:
            return detections.detect(
                finder, data, rows, model=model, device=device, batch=self.batch, threads=_threads(device)
            ).boxes

        return boxes

    def _data(self) -> Datasets:
        """The dataset folders, opened on this machine."""
        data = Datasets.open(self.folders)
        for folder, plan, each in zip(self.folders, self.plans, data, strict=True):
            if each.facts.plan != plan:
                raise ValueError(f"The content of {folder} differs on another machine. Copy the dataset folder again.")
        return data

    def _device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _threads(device: torch.device) -> int | None:
    """Threads that load images: the default number for a GPU; one on the CPU, where every core has its own process."""
    return None if device.type == "cuda" else 1
