"""A classifier as a detector: boxes around the regions of its saliency maps."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ribcage.bundle.io import Detector
from ribcage.imaging import heatmaps
from ribcage.inference import predictions
from ribcage.inference.gradcam import saliency_maps
from ribcage.inference.map_cells import height_width
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.models.detectors.boxes import Found
from ribcage.models.detectors.cam import CamBoxes

DRAWN = CamBoxes()


def as_detector(opened: Detector) -> "Detect | CamDetector":
    """The method that finds boxes: that of a detector, or a classifier with boxes around its saliency maps."""
    if isinstance(opened.method, Detect):
        return opened.method
    return CamDetector(opened.method, temperature=opened.spec.temperature, boxes=opened.cam)


class CamDetector:
    """A classifier used as a detector: boxes around the regions of its saliency maps, for every finding.

    temperature: one per finding, for its calibrated probability.
    """

    def __init__(self, method: Supervised, *, temperature: Sequence[float] = (), boxes: CamBoxes = DRAWN) -> None:
        self.method, self.temperature, self.boxes = method, tuple(temperature), boxes

    @property
    def training(self) -> bool:
        """Whether the classifier is in training mode."""
        return self.method.training

    def train(self, mode: bool = True) -> object:
        """Switch the classifier to training mode, or to evaluation mode if `mode` is False."""
        return self.method.train(mode)

    def found(self, images: Tensor) -> list[Found]:
        """Boxes in pixels of (N, C, H, W) images, by falling score: probability × mean saliency in the region."""
        seen = saliency_maps(self.method, images)
        probability = predictions.Predictions(
            self.method.findings, np.arange(len(images)), seen.logits.float().cpu().numpy(), self.method.exclusive
        ).probabilities(self.temperature)
        size = height_width(images)
        return [
            self._around(heatmaps.upsampled_maps(one[None], seen.cells, size)[0].cpu().numpy(), probabilities)
            for one, probabilities in zip(seen.maps, probability, strict=True)
        ]

    def _around(self, heats: np.ndarray, probabilities: np.ndarray) -> Found:
        """The boxes of one image from (F, H, W) heat-maps and (F,) probabilities."""
        several = [heatmaps.heatmap_boxes(heat, self.boxes.share) for heat in heats]
        every = np.concatenate(several)
        finding = np.repeat(np.arange(len(several)), [len(one) for one in several])
        scores = probabilities[finding] * every[:, 4]
        order = np.argsort(-scores, kind="stable")[: self.boxes.keep]
        return Found(
            torch.from_numpy(every[order, :4]).float(),
            torch.from_numpy(finding[order]),
            torch.from_numpy(scores[order]).float(),
        )
