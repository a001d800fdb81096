"""Served models: a batch of images → predictions for each, as numbers and text.

A classifier is exported to ONNX, compared with the model it came from, and run by ONNX Runtime; a detector runs in
torch. Both take images that are square already.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ribcage.bundle import attestation, deployment, ood
from ribcage.bundle.io import Bundle, Classifier, Detector
from ribcage.imaging.gray_image import GrayImage
from ribcage.inference import cam_detector, explanation, image_files

TOLERANCE = 1e-4
"""Largest difference between a probability of the exported model and of the model itself."""
ImagePredictions = dict[str, object]
"""`findings` and `boxes` of one image, or an `error`."""


@dataclass
class ServedModel:
    """A model with the id that requests name."""

    id: str
    opened: Bundle
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while torch runs the model: hooks record features, so one call at a time."""

    def prepare(self, threads: int) -> None:
        """What takes time before the first request, and what may fail."""
        self.about()

    def predict(self, images: "list[GrayImage]") -> list[ImagePredictions]:
        """Predictions for each of these squares."""
        raise NotImplementedError

    def image_warnings(self, image: GrayImage) -> list[str]:
        """What is unusual about a square."""
        return list(ood.image_warnings(self.opened.ood, image.pixels, image.tags, image.notes))

    def about(self) -> dict[str, object]:
        """The entry of /v1/models."""
        model = self.opened.spec
        return {
            "id": self.id,
            "kind": "detector" if isinstance(self.opened, Detector) else "classifier",
            "architecture": model.name,
            "findings": [self._finding(place) for place in range(len(model.findings))],
            "input": {"side": model.stored, "fit": model.fit},
            "data": [{"name": one.name, "source": one.source, "licence": one.licence} for one in model.data],
            "ood_check": self.opened.ood is not None,
            "ood_weakness": ood.weakness(self.opened.ood),
            "warning": model.warning,
        }

    def _finding(self, place: int) -> dict[str, object]:
        model = self.opened.spec
        chosen = {rule: values[place] for rule, values in model.thresholds.items()}
        return {"name": model.findings[place], "thresholds": chosen, "auroc": self._auroc(place)}

    def _auroc(self, place: int) -> dict[str, object] | None:
        """On validation, with its interval; None where it is not known."""
        if not self.opened.spec.reliability:
            return None
        fared = self.opened.spec.reliability[place]
        value, low, high = fared.auroc
        counts = {"n": fared.images, "positives": fared.positives}
        return None if value is None else {"value": value, "low": low, "high": high, **counts}


class ServedClassifier(ServedModel):
    """A classifier: one probability per finding."""

    opened: Classifier
    run: deployment.Predictor

    def prepare(self, threads: int) -> None:
        """Export, unless an exported file is there, and compare with the model itself."""
        super().prepare(threads)
        self.run = self._exported(threads)
        images = deployment.patterns(self.opened.spec.stored)
        wanted = deployment.expected(self.opened, images)
        away = deployment.max_difference(self.run, images, wanted)
        if not np.isfinite(wanted).all():
            raise ValueError(
                f"The predictions of {self.opened.folder} contain NaN or infinity, so the model cannot be served."
            )
        if not away <= TOLERANCE:
            raise ValueError(
                f"{self.opened.folder} cannot be served: the export to ONNX changes the probabilities by {away:.2g}, "
                f"which is more than the tolerance of {TOLERANCE:g}."
            )

    def _exported(self, threads: int) -> deployment.Predictor:
        """The model in ONNX Runtime: the file that this site exported, else a new export in a temporary folder. An
        opaque network runs as it is."""
        if self.opened.spec.opaque:
            return partial(deployment.file_probabilities, self.opened)
        kept = self.opened.folder / deployment.FILES["onnx"]
        if os.path.lexists(kept):
            content = attestation.attested(kept, self.opened.folder)
            if content is not None:
                return deployment.loaded_onnx(content, kept, threads)
            print(
                f"{kept} is not used, because it was not exported from this model at this site. Replace it with "
                "'ribcage export'.",
                file=sys.stderr,
            )
        with tempfile.TemporaryDirectory(prefix="ribcage-") as work:
            deployment.write_onnx(self.opened, file := Path(work) / "model.onnx")
            return deployment.opened_onnx(file, threads)

    def predict(self, images: list[GrayImage]) -> list[ImagePredictions]:
        """A probability for each finding."""
        probabilities = self.run(np.stack([one.pixels for one in images]))
        return [self._predictions(row) for row in probabilities.astype(np.float64)]

    def _predictions(self, row: np.ndarray) -> ImagePredictions:
        if not np.isfinite(row).all():
            return {"error": "The model predicts NaN or infinity for this image."}
        return {"findings": self._findings(row.tolist()), "boxes": []}

    def _findings(self, row: Sequence[float]) -> list[dict[str, object]]:
        """The probabilities of one image, beside thresholds and reliability."""
        model = self.opened.spec
        return [
            {
                "name": name,
                "probability": value,
                "above_threshold": {
                    rule: image_files.reaches(value, chosen[place]) for rule, chosen in model.thresholds.items()
                },
                "reliability": self._reliability(place, value),
            }
            for place, (name, value) in enumerate(zip(model.findings, row, strict=True))
        ]

    def _reliability(self, place: int, value: float) -> dict[str, object] | None:
        """How many of the validation images with similar probabilities are positive; None where it is not known."""
        fared = self.opened.spec.reliability
        similar = fared[place].bin_of(value) if fared else None
        if similar is None:
            return None
        frequency = {"frequency": similar.positives / similar.images, "low": similar.least, "high": similar.most}
        return {"images": similar.images, "positives": similar.positives, **frequency}

    def saliency(self, read: GrayImage, finding: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) saliency map of a finding, at most `side` long, and (K, 5) boxes around it in pixels of the file."""
        with self.lock:
            heat = explanation.file_heatmaps(self.opened, read, [finding], side=side)[0]
        return heat, explanation.heat_boxes_in_file(heat, (read.width, read.height))


class ServedDetector(ServedModel):
    """A detector: boxes with scores."""

    opened: Detector

    def predict(self, images: list[GrayImage]) -> list[ImagePredictions]:
        """Boxes above the score threshold in pixels of the file, the highest scores first."""
        model = self.opened.spec
        shown = torch.cat([explanation.view_tensor(one.pixels, model) for one in images])
        with self.lock, torch.inference_mode():
            found = cam_detector.as_detector(self.opened).found(shown)
        least = image_files.least_scores(model)
        return [
            {
                "findings": [],
                "boxes": [asdict(box) for box in image_files.boxed(model, each, (one.width, one.height), least)],
            }
            for one, each in zip(images, found, strict=True)
        ]


def served_models(opened: Sequence[Bundle]) -> dict[str, ServedModel]:
    """Models by the names of their folders; equal names get a number."""
    made: dict[str, ServedModel] = {}
    for one in opened:
        folder = one.folder.resolve()
        plain = name = (folder.parent if folder.name == "bundle" else folder).name or "model"
        while name in made:
            name = f"{plain}-{sum(other.startswith(plain) for other in made) + 1}"
        if not one.spec.findings:
            raise ValueError(f"{one.folder} is a pretrained backbone, which predicts no findings. Fine-tune it first.")
        made[name] = ServedDetector(name, one) if isinstance(one, Detector) else ServedClassifier(name, one)
    return made
