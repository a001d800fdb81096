"""Predictions for image files. A file that cannot be read gets an error and the others go on.

A file is read, made square and shown to the model like its training images. Boxes are in pixels of the file. Beside the
predictions, there are the study, series and view of a DICOM file, notes on how it was read, and warnings about the
image; never the patient's name or identifier.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ribcage.bundle import ood
from ribcage.bundle.io import Bundle, Classifier, Detector
from ribcage.bundle.ood import OODCheck
from ribcage.bundle.spec import DEFAULT_RULE, DETECTION_RULE, EXCLUSIVE, HALF, ModelSpec
from ribcage.imaging import augment, image_file
from ribcage.imaging.augment import View
from ribcage.inference import cam_detector, detections, explanation, predictions
from ribcage.inference.file_predictions import FileBox, FileContext, FilePrediction, FilePredictions
from ribcage.models.detectors.boxes import Found
from ribcage.runtime import progress
from ribcage.runtime.remote.objects import UnreadableSourceError

ROOM = 512 << 20
"""Bytes of decoded images that are kept for saliency maps: some 70 of 2500 × 3000 pixels."""
UID = re.compile(r"[\d.]{1,64}")


# ---- a file as the model's input


@dataclass(frozen=True)
class Shown:
    """A file prepared as the model's input."""

    path: Path
    size: tuple[int, int]
    """(width, height) of the image in the file."""
    image: Tensor | None
    """(V, C, H, W): the model's input in V views; None if the file cannot be read."""
    error: str = ""
    context: FileContext = field(default_factory=FileContext)


class DecodedImages:
    """Images that were decoded for prediction and are kept for saliency maps, so that a file is decoded once."""

    def __init__(self, window: str = "", room: int = ROOM) -> None:
        self.window, self.room = window, room
        self._images: dict[Path, image_file.GrayImage] = {}
        self._lock = threading.Lock()

    def add(self, path: Path, image: image_file.GrayImage) -> None:
        """Keep an image of full resolution while there is room; a reduced one would be too coarse for a map."""
        if image.pixels.shape != (image.height, image.width):
            return
        with self._lock:
            if image.pixels.nbytes <= self.room:
                self._images[path], self.room = image, self.room - image.pixels.nbytes

    def read(self, path: Path, min_side: int | None = None) -> image_file.GrayImage:
        """The image of a file; decoded again if it was not kept, then reduced to no less than `min_side`."""
        kept = self._images.get(path)
        return image_file.read_image(path, min_side=min_side, window=self.window) if kept is None else kept


def model_input(
    read: image_file.GrayImage,
    model: ModelSpec,
    path: Path = Path(),
    *,
    check: OODCheck | None = None,
    seen: Sequence[View] = (),
) -> Shown:
    """Prepare an image, wherever it was read from.

    check: the model's out-of-distribution check. seen: views of the image (default: the plain view).
    """
    square = explanation.stored_square(read, model)
    images = [explanation.view_tensor(square, model, view) for view in seen or (augment.plain_view(model.size),)]
    warnings = " ".join(ood.image_warnings(check, square, read.tags, read.notes))
    uids = {name: text if UID.fullmatch(text := read.tags.get(name, "")) else "" for name in ("study", "series")}
    context = FileContext(
        **uids, view=read.tags.get("view", ""), notes="; ".join(read.note_texts), image_warnings=warnings
    )
    return Shown(path, (read.width, read.height), torch.cat(images), context=context)


def show(
    path: Path,
    model: ModelSpec,
    *,
    check: OODCheck | None = None,
    seen: Sequence[View] = (),
    window: str = "",
    decoded: DecodedImages | None = None,
) -> Shown:
    """Prepare one file; if it cannot be read, `error` says why."""
    try:
        image = image_file.read_image(path, min_side=model.stored, window=window)
        if decoded is not None:
            decoded.add(path, image)
        return model_input(image, model, path, check=check, seen=seen)
    except UnreadableSourceError:  # the connection failed, not the file
        raise
    except Exception as error:  # any file may be passed, and decoders raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        return Shown(path, (0, 0), None, text)


# ---- predictions


def predictor(
    opened: Classifier | Detector,
    *,
    rule: str = "",
    min_score: float | None = None,
    ten_crop: bool = False,
    batch: int = 16,
    window: str = "",
) -> Callable[..., FilePredictions]:
    """A function: files → their predictions, which is `classified_files` or `detected_files` with these options.

    rule: of a classifier's thresholds. min_score: of a detector's boxes (default: each finding's threshold from
    validation).
    """
    if not isinstance(opened, Detector):
        return partial(
            classified_files, opened, batch=batch, ten_crop=ten_crop, thresholds=cuts(opened.spec, rule), window=window
        )
    least = least_scores(opened.spec) if min_score is None else [min_score] * len(opened.spec.findings)
    if none := [name for name, score in zip(opened.spec.findings, least, strict=True) if score == float("inf")]:
        print(
            f"No boxes for {', '.join(none)} are shown, because no threshold was chosen in validation. Pass "
            "--min-score X."
        )
    return partial(detected_files, opened, least=least, batch=batch, window=window)


def classified_files(
    opened: Classifier,
    paths: Sequence[Path],
    *,
    batch: int = 16,
    ten_crop: bool = False,
    thresholds: Sequence[float | None] = (),
    label: str = "",
    window: str = "",
    decoded: DecodedImages | None = None,
) -> FilePredictions:
    """The calibrated probability of each finding for every file, and whether it reaches the finding's threshold.

    ten_crop: mean probability over ten views of each image.
    label: of the progress line; "" shows none.
    window: DICOM window that replaces the one in the files.
    decoded: keeps the images for saliency maps.
    """
    seen = augment.ten_crops(opened.spec.size) if ten_crop else ()
    predict = partial(_classified, opened, thresholds=thresholds or _unknown(opened.spec))
    return _file_predictions(opened, paths, batch, predict, label, seen, window, decoded)


def detected_files(
    opened: Detector,
    paths: Sequence[Path],
    *,
    least: Sequence[float],
    batch: int = 16,
    label: str = "",
    window: str = "",
    decoded: DecodedImages | None = None,
) -> FilePredictions:
    """The boxes of every file that reach their finding's minimum score."""
    return _file_predictions(opened, paths, batch, partial(_detected, opened, least=least), label, (), window, decoded)


def cuts(model: ModelSpec, rule: str = "") -> tuple[float | None, ...]:
    """The thresholds of a rule (default: youden, if the model has it); None for a finding without a threshold."""
    rules = (*model.thresholds, HALF)
    if rule and rule not in rules:
        raise ValueError(f"Unknown threshold rule {rule!r}. Rules available for this model: {', '.join(rules)}.")
    if rule == HALF:
        return (0.5,) * len(model.findings)
    return model.thresholds.get(rule or DEFAULT_RULE, _unknown(model))


def _unknown(model: ModelSpec) -> tuple[None, ...]:
    return (None,) * len(model.findings)


def _file_predictions(
    opened: Bundle,
    paths: Sequence[Path],
    batch: int,
    predict: Callable[[Sequence[Shown]], list[FilePrediction]],
    label: str,
    seen: Sequence[View] = (),
    window: str = "",
    decoded: DecodedImages | None = None,
) -> FilePredictions:
    """The prediction for every file; files are read ahead in threads."""
    opened.method.eval()
    found: list[FilePrediction] = []
    ready = partial(show, model=opened.spec, check=opened.ood, seen=seen, window=window, decoded=decoded)

    def work() -> Iterator[int]:
        for several in _read(paths, batch, ready):
            whole = [one for one in several if one.image is not None]
            predicted = iter(predict(whole) if whole else [])
            found.extend(
                FilePrediction(one.path, one.error) if one.image is None else next(predicted) for one in several
            )
            yield len(several)

    for _ in progress.track(work(), len(paths), label, "files") if label else work():
        pass
    return FilePredictions(opened.spec.findings, isinstance(opened, Detector), tuple(found), opened.spec.warning)


def _read(paths: Sequence[Path], batch: int, read: Callable[[Path], Shown]) -> Iterator[list[Shown]]:
    """Read files in order, `batch` at a time, with the next batch read ahead."""
    with ThreadPoolExecutor() as pool:
        ahead: list[Future[Shown]] = []
        for at in range(0, len(paths) + batch, batch):
            coming = [pool.submit(read, path) for path in paths[at : at + batch]]
            if ahead:
                yield [one.result() for one in ahead]
            ahead = coming


@torch.inference_mode()
def _classified(
    opened: Classifier, several: Sequence[Shown], thresholds: Sequence[float | None]
) -> list[FilePrediction]:
    """The probability of each finding for every file."""
    model = opened.spec
    exclusive = model.loss == EXCLUSIVE
    images = torch.stack([one.image for one in several if one.image is not None], 1)  # (V, N, C, H, W)
    logits = predictions.joint(exclusive)(torch.stack([opened.method.logits(view).float() for view in images]))
    if not logits.isfinite().all():
        raise ValueError(f"The predictions of {opened.folder} contain NaN or infinity: its weights are damaged.")
    found = predictions.Predictions(model.findings, np.arange(len(several)), logits.numpy(), exclusive)
    cuts = dict(zip(model.findings, thresholds, strict=True))
    return [
        FilePrediction(
            one.path,
            context=one.context,
            probabilities=(own := dict(zip(model.findings, row, strict=True))),
            above={name: reaches(own[name], cut) for name, cut in cuts.items()},
        )
        for one, row in zip(several, found.probabilities(model.temperature).tolist(), strict=True)
    ]


def reaches(probability: float, threshold: float | None) -> bool | None:
    """Whether a threshold is reached; None where there is none."""
    return None if threshold is None else probability >= threshold


@torch.inference_mode()
def _detected(opened: Detector, several: Sequence[Shown], least: Sequence[float]) -> list[FilePrediction]:
    """The boxes of every file, in pixels of the file."""
    images = torch.cat([one.image for one in several if one.image is not None])
    found = cam_detector.as_detector(opened).found(images)
    return [
        FilePrediction(one.path, context=one.context, boxes=boxed(opened.spec, each, one.size, least))
        for one, each in zip(several, found, strict=True)
    ]


def least_scores(model: ModelSpec) -> list[float]:
    """Minimum score of a box for each finding: the threshold from validation, infinity if validation found none, and 0
    for a model that was never validated."""
    cuts = model.thresholds.get(DETECTION_RULE, (0.0,) * len(model.findings))
    return [float("inf") if cut is None else cut for cut in cuts]


def boxed(model: ModelSpec, found: Found, size: tuple[int, int], least: Sequence[float]) -> tuple[FileBox, ...]:
    """The boxes of one image that reach their minimum score, in pixels of its file of this (width, height)."""
    inside = detections.to_stored_pixels(found.boxes.float().numpy(), model.size, model.stored)
    x0, y0, x1, y1 = detections.original(inside, size, model.stored, model.fit).T
    places, scores = found.findings.numpy(), found.scores.float().numpy()
    kept = (scores >= np.array(least)[places]) & (x1 > x0) & (y1 > y0)  # without those in the padding
    columns = [each[kept].tolist() for each in (scores, x0, y0, x1 - x0, y1 - y0)]
    names = [model.findings[place] for place in places[kept]]
    return tuple(FileBox(*values) for values in zip(names, *columns, strict=True))
