"""Answering: an opened model → what it says of a batch of images, as plain numbers and words.

What names findings is exported to ONNX, compared with the model it came from, and run by ONNX Runtime; what finds boxes
runs in torch. Both take images that are square already.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ribcage.bundle import attestation, deployment, ood
from ribcage.bundle.io import Bundle, Classifier, Detector
from ribcage.imaging.gray_image import GrayImage
from ribcage.inference import explanation, gradcam, image_files

TOLERANCE = 1e-4
"""How far a probability may be from the model's own."""
Said = dict[str, Any]
"""`findings` and `boxes` of one image, or an `error`."""


@dataclass
class Answering:
    """A model that answers, by the name it is asked by."""

    id: str
    opened: Bundle
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Whoever listens to the network, or asks it in torch, does so alone."""

    def prepare(self, threads: int) -> None:
        """What takes time before the first answer, and what may fail."""
        self.about()

    def answer(self, images: "list[GrayImage]") -> list[Said]:
        """What it says of each of these squares."""
        raise NotImplementedError

    def remarks(self, image: GrayImage) -> list[str]:
        """What is unusual about a square."""
        return list(ood.remarks(self.opened.ood, image.pixels, image.tags, image.notes))

    def about(self) -> dict[str, Any]:
        """What a person or a program wants to know before asking."""
        model = self.opened.spec
        return {
            "id": self.id,
            "kind": "detector" if isinstance(self.opened, Detector) else "classifier",
            "architecture": model.name,
            "findings": [self._finding(place) for place in range(len(model.findings))],
            "input": {"side": model.stored, "fit": model.fit},
            "data": [{key: one[key] for key in ("name", "source", "licence")} for one in model.data],
            "ood_check": self.opened.ood is not None,
            "ood_weakness": ood.weakness(self.opened.ood),
            "warning": model.warning,
        }

    def _finding(self, place: int) -> dict[str, Any]:
        model = self.opened.spec
        chosen = {rule: values[place] for rule, values in model.thresholds.items()}
        return {"name": model.findings[place], "thresholds": chosen, "auroc": self._auroc(place)}

    def _auroc(self, place: int) -> dict[str, Any] | None:
        """On validation, with its interval; None where nobody knows."""
        if not self.opened.spec.reliability:
            return None
        fared = self.opened.spec.reliability[place]
        value, low, high = fared.auroc
        counts = {"n": fared.images, "positives": fared.positives}
        return None if value is None else {"value": value, "low": low, "high": high, **counts}


class Namer(Answering):
    """One that gives each finding a probability."""

    opened: Classifier
    run: deployment.Answer

    def prepare(self, threads: int) -> None:
        """Export, unless that was done, and compare with the model itself."""
        super().prepare(threads)
        self.run = self._exported(threads)
        images = deployment.patterns(self.opened.spec.stored)
        wanted = deployment.expected(self.opened, images)
        away = deployment.away(self.run, images, wanted)
        if not np.isfinite(wanted).all():
            raise ValueError(f"{self.opened.folder} answers with what is no number: it cannot be served.")
        if not away <= TOLERANCE:
            raise ValueError(
                f"{self.opened.folder}, exported, is {away:.2g} away from itself, more than {TOLERANCE:g}."
            )

    def _exported(self, threads: int) -> deployment.Answer:
        """The model in ONNX Runtime: as this site exported it before, else exported now into a temporary folder."""
        kept = self.opened.folder / deployment.FILES["onnx"]
        if os.path.lexists(kept):
            content = attestation.attested(kept, self.opened.folder)
            if content is not None:
                return deployment.loaded_onnx(content, kept, threads)
            advice = "`ribcage export` replaces it"
            print(f"{kept} was not exported here from this model: it is exported anew ({advice}).", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="ribcage-") as work:
            deployment.write_onnx(self.opened, file := Path(work) / "model.onnx")
            return deployment.opened_onnx(file, threads)

    def answer(self, images: list[GrayImage]) -> list[Said]:
        """A probability of each finding."""
        probabilities = self.run(np.stack([one.pixels for one in images]))
        return [self._said(row) for row in probabilities.astype(np.float64)]

    def _said(self, row: np.ndarray) -> Said:
        if not np.isfinite(row).all():
            return {"error": "The model answers to this image with what is no number."}
        return {"findings": self._named(row.tolist()), "boxes": []}

    def _named(self, row: Sequence[float]) -> list[dict[str, Any]]:
        """One image's probabilities, and what they mean."""
        model = self.opened.spec
        return [
            {
                "name": name,
                "probability": value,
                "crossed": {rule: _crossed(value, chosen[place]) for rule, chosen in model.thresholds.items()},
                "reliability": self._reliability(place, value),
            }
            for place, (name, value) in enumerate(zip(model.findings, row, strict=True))
        ]

    def _reliability(self, place: int, value: float) -> dict[str, Any] | None:
        """Validation images of similar probability and how many have the finding; None where that is unknown."""
        fared = self.opened.spec.reliability
        similar = fared[place].bin_of(value) if fared else None
        if similar is None:
            return None
        share = {"share": similar.positives / similar.images, "low": similar.least, "high": similar.most}
        return {"images": similar.images, "positives": similar.positives, **share}

    def look(self, read: GrayImage, finding: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) heat for a finding, at most `side` long, and (K, 5) boxes around it in pixels of the file."""
        with self.lock:
            heat = explanation.heat(self.opened, read, [finding], side=side)[0]
        return heat, explanation.boxes(heat, (read.width, read.height))


class Finder(Answering):
    """One that finds boxes."""

    opened: Detector

    def answer(self, images: list[GrayImage]) -> list[Said]:
        """Boxes that are sure enough, in pixels of the file, the surest first."""
        model = self.opened.spec
        shown = torch.cat([explanation.view(one.pixels, model) for one in images])
        with self.lock, torch.inference_mode():
            found = gradcam.finder(self.opened).found(shown)
        least = image_files.least_scores(model)
        return [
            {"findings": [], "boxes": image_files.boxed(model, each, (one.width, one.height), least)}
            for one, each in zip(images, found, strict=True)
        ]


def _crossed(value: float, threshold: float | None) -> bool | None:
    """Whether a threshold was reached; None where there is none."""
    return None if threshold is None else value >= threshold


def named(opened: Sequence[Bundle]) -> dict[str, Answering]:
    """Models by the names of their folders, which are made to differ."""
    made: dict[str, Answering] = {}
    for one in opened:
        folder = one.folder.resolve()
        plain = name = (folder.parent if folder.name == "bundle" else folder).name or "model"
        while name in made:
            name = f"{plain}-{sum(other.startswith(plain) for other in made) + 1}"
        if not one.spec.findings:
            raise ValueError(
                f"{one.folder} is a pretrained backbone that knows no findings: there is nothing to serve."
            )
        made[name] = Finder(name, one) if isinstance(one, Detector) else Namer(name, one)
    return made
