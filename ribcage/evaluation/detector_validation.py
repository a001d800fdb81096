"""Validation of a detector during training: its scores, and its score thresholds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ribcage.bundle.spec import DETECTION_RULE, ModelSpec
from ribcage.data.batch import CachedMaps
from ribcage.data.collection import Datasets
from ribcage.data.index import SIDES
from ribcage.data.label_policy import IGNORE, Policy
from ribcage.data.loader import Loader
from ribcage.evaluation.validation import DIVERGED
from ribcage.imaging.augment import plain_view
from ribcage.inference import detections
from ribcage.inference.detections import BoxFinder, Detections
from ribcage.metrics.box_precision import box_average_precision
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.matching import THRESHOLDS, match_boxes
from ribcage.runtime import distributed

AT_50, AT_75 = THRESHOLDS.index(0.5), THRESHOLDS.index(0.75)


class DetectorValidation:
    """`Validation` of a detector."""

    def __init__(
        self,
        method: Callable[[], BoxFinder],
        data: Datasets,
        rows: np.ndarray,
        model: ModelSpec,
        *,
        device: torch.device,
        batch: int,
        policy: Policy = IGNORE,
        threads: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.method, self.data, self.rows, self.model = method, data, np.unique(rows), model
        self.device, self.batch, self.threads, self.dtype, self.policy = device, batch, threads, dtype, policy
        self.ground_truth = {name: detections.truth(data, self.rows, name, policy) for name in model.findings}
        known = detections.drawn(data, self.rows, model.findings, policy).T
        self.known = dict(zip(model.findings, known, strict=True))
        self.cached: CachedMaps | None = None
        """Feature maps of the validation images from a frozen backbone."""
        self.scores: dict[str, float] = {}
        self.detections: Detections | None = None
        """The last detections; only on rank 0."""

    def loader(self) -> Loader:
        """Loader of the validation images, for caching their feature maps."""
        model = self.model
        return Loader(
            self.data, [plain_view(model.size)], batch=self.batch, rows=self.rows, findings=model.findings,
            shuffle=False, threads=self.threads, channels=model.channels, normalise=(model.mean, model.std),
            device=self.device,
        )  # fmt: skip

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings with ground-truth boxes in validation images."""
        return tuple(name for name, true in self.ground_truth.items() if len(true))

    def __call__(self) -> dict[str, float]:
        """mAP, AP at IoU 0.5 and 0.75, and mAP of every finding; undefined values are left out. All ranks must call
        it."""
        found = detections.detect(
            self.method(), self.data, self.rows, model=self.model, device=self.device, batch=self.batch,
            threads=self.threads, dtype=self.dtype, cached=self.cached,
        )  # fmt: skip
        if distributed.rank() > 0:
            return {}
        self.detections = found
        if not np.isfinite(found.boxes[["score", *SIDES]].to_numpy()).all():
            raise ValueError(DIVERGED)
        count = len(self.rows)
        precisions = {
            name: box_average_precision(self.box_table(name), self.ground_truth[name], count) for name in self.judged
        }
        mean = np.mean(list(precisions.values()), axis=0)  # (T,)
        self.scores = {"map": float(mean.mean()), "ap50": float(mean[AT_50]), "ap75": float(mean[AT_75])}
        self.scores |= {f"map_{name}": float(each.mean()) for name, each in precisions.items()}
        return self.scores

    def box_table(self, finding: str) -> BoxTable:
        """The detections of a finding, in images whose ground-truth boxes are known."""
        assert self.detections is not None, "not validated yet"
        return self.detections.box_table(finding).on_images(self.known[finding])

    def chosen_spec(self) -> ModelSpec:
        """The spec with the score thresholds and scores of the last detections."""
        chosen = tuple(
            best_f1_threshold(self.box_table(name), true, len(self.rows)) for name, true in self.ground_truth.items()
        )
        return replace(self.model, thresholds={DETECTION_RULE: chosen}, metrics={"validation": self.scores})


def best_f1_threshold(found: BoxTable, true: BoxTable, count: int) -> float | None:
    """The score threshold with the highest F1 = 2 TP / (detections + boxes) at the lowest IoU; None without any hit.

    Detections with the same score are above the threshold together or not at all.
    """
    matches = match_boxes(found, true, count, THRESHOLDS[:1])
    correct = np.cumsum(matches.right[0])
    f1 = 2 * correct / (np.arange(1, len(correct) + 1) + len(true))
    last = np.append(matches.scores[1:] != matches.scores[:-1], True) if len(correct) else np.empty(0, bool)
    f1 = np.where(last, f1, 0.0)
    return float(matches.scores[f1.argmax()]) if f1.any() else None
