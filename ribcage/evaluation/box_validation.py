"""Box validation: what chooses the best detector while it learns, and the score from which its boxes are shown."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ribcage.bundle.spec import DETECTION_RULE, ModelSpec
from ribcage.data.batch import CachedMaps
from ribcage.data.collection import Datasets
from ribcage.data.findings import IGNORE, Policy
from ribcage.data.loader import Loader
from ribcage.evaluation.validation import DIVERGED
from ribcage.imaging.augment import plain_view
from ribcage.inference import detections
from ribcage.inference.detections import Detections, Finder
from ribcage.metrics.box_precision import box_average_precision
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.matching import THRESHOLDS, match_boxes
from ribcage.runtime import distributed

HALF, THREE_QUARTERS = THRESHOLDS.index(0.5), THRESHOLDS.index(0.75)


class BoxValidation:
    """A detector on the images that choose among detectors: call it for the numbers of this moment."""

    def __init__(
        self,
        method: Callable[[], Finder],
        data: Datasets,
        rows: np.ndarray,
        model: ModelSpec,
        *,
        device: torch.device,
        batch: int,
        policy: Policy = IGNORE,
        threads: int | None = None,
        bf16: bool = False,
    ) -> None:
        self.method, self.data, self.rows, self.model = method, data, np.unique(rows), model
        self.device, self.batch, self.threads, self.bf16 = device, batch, threads, bf16
        self.true = {name: detections.truth(data, self.rows, name) for name in model.findings}
        known = detections.drawn(data, self.rows, model.findings, policy).T
        self.known = dict(zip(model.findings, known, strict=True))
        self.cached: CachedMaps | None = None
        """What a frozen backbone makes of the images, where that is known."""
        self.found: dict[str, float] = {}
        self.said: Detections | None = None
        """What the detector found last, at rank 0."""

    def loader(self) -> Loader:
        """Of the images as they are shown: for who makes what is kept."""
        model = self.model
        return Loader(
            self.data, [plain_view(model.size)], batch=self.batch, rows=self.rows, findings=model.findings,
            shuffle=False, threads=self.threads, channels=model.channels, normalise=(model.mean, model.std),
            device=self.device,
        )  # fmt: skip

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings that are drawn somewhere."""
        return tuple(name for name, true in self.true.items() if len(true))

    def __call__(self) -> dict[str, float]:
        """mAP, AP at overlaps of a half and of three quarters, mAP of every finding; undefined ones are left out.
        Every rank must call it."""
        said = detections.detect(
            self.method(), self.data, self.rows, model=self.model, device=self.device, batch=self.batch,
            threads=self.threads, bf16=self.bf16, cached=self.cached,
        )  # fmt: skip
        if distributed.rank() > 0:
            return {}
        self.said = said
        if not np.isfinite(said.boxes[["score", *detections.SIDES]].to_numpy()).all():
            raise ValueError(DIVERGED)
        count = len(self.rows)
        precisions = {name: box_average_precision(self.marks(name), self.true[name], count) for name in self.judged}
        mean = np.mean(list(precisions.values()), axis=0)  # (T,)
        self.found = {"map": float(mean.mean()), "ap50": float(mean[HALF]), "ap75": float(mean[THREE_QUARTERS])}
        self.found |= {f"map_{name}": float(each.mean()) for name, each in precisions.items()}
        return self.found

    def marks(self, finding: str) -> BoxTable:
        """What was found of a finding, on images of which it is known where it is."""
        assert self.said is not None, "not validated yet"
        return self.said.marks(finding).on_images(self.known[finding])

    def calibrated(self) -> ModelSpec:
        """The model's facts with the score that boxes should have to be shown, and what it scored."""
        chosen = tuple(cut(self.marks(name), true, len(self.rows)) for name, true in self.true.items())
        return replace(self.model, thresholds={DETECTION_RULE: chosen}, metrics={"validation": self.found})


def cut(found: BoxTable, true: BoxTable, count: int) -> float | None:
    """The least score at which F1 = 2 right / (found + true) is highest, at the lowest overlap; None if none is.

    Of boxes with the same score all are shown or none.
    """
    matches = match_boxes(found, true, count, THRESHOLDS[:1])
    right = np.cumsum(matches.right[0])
    f1 = 2 * right / (np.arange(1, len(right) + 1) + len(true))
    last = np.append(matches.scores[1:] != matches.scores[:-1], True) if len(right) else np.empty(0, bool)
    f1 = np.where(last, f1, 0.0)
    return float(matches.scores[f1.argmax()]) if f1.any() else None
