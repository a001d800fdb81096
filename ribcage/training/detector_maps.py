"""The cached feature maps of a detector's frozen backbone, in its run folder until the run ends."""

from pathlib import Path
from typing import Literal

from ribcage.evaluation.detector_validation import DetectorValidation
from ribcage.methods.detect import Detect
from ribcage.training import feature_cache, run_folder
from ribcage.training.trainer import Trainer

KIND: Literal["float16"] = "float16"
"""Number type of the maps."""
FOLDER = "features"
"""In the run folder."""


def cache_maps(trainer: Trainer[Detect], validation: DetectorValidation, out: Path, largest: float) -> None:
    """Cache the maps of the training and of the validation images, where they do not differ from epoch to epoch.

    largest: GB of each.
    """
    if trainer.step == trainer.epochs * len(trainer.loader):
        return
    for of, loader, user in (
        ("training", trainer.loader, trainer.loader),
        ("validation", validation.loader(), validation),
    ):
        if why := feature_cache.why_uncached(trainer.method, loader, KIND, largest):
            run_folder.say(f"The feature maps for {of} are not cached: {why}.")
        else:
            user.cached = feature_cache.cache_features(
                trainer.method, loader, out / FOLDER / of, kind=KIND, compute=trainer.dtype, label=f"cache for {of}"
            )


def remove_maps(out: Path) -> None:
    """Remove the cached maps of a finished run."""
    for of in ("training", "validation", "."):
        feature_cache.discard(out / FOLDER / of)
