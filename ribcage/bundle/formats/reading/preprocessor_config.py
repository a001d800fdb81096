"""preprocessor_config.json of transformers: sizes and normalisation of the images, as fields of Published."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ribcage.bundle.formats.reading.config_file import image_side, json_object
from ribcage.bundle.spec import wrong_normalisation

PREPROCESSING = "preprocessor_config.json"
Scale = tuple[float, ...]


def folder_preprocessing(folder: Path, trained: int, mean: Scale, std: Scale) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The preprocessing of a folder, and what the folder states. Without the file, a square of the size of the model
    and the given normalisation are assumed."""
    file = folder / PREPROCESSING
    if not file.exists():
        return {"size": (trained, trained), "stored": trained, "mean": mean, "std": std}, ("architecture",)
    try:
        return preprocessing(json_object(file), trained), ("architecture", "preprocessing")
    except KeyError as error:
        raise ValueError(f"{PREPROCESSING} beside it is not valid JSON or does not state {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{PREPROCESSING} beside it describes steps that are not supported: {error}") from None


def preprocessing(content: Mapping[str, Any], trained: int) -> dict[str, Any]:
    """Sizes and normalisation in preprocessor_config.json, as fields of Published."""
    if not content.get("do_resize", True):
        raise ValueError("images that are not resized")
    rescale = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    if not math.isclose(rescale, 1 / 255, rel_tol=1e-3):
        raise ValueError(f"rescale_factor {rescale!r} instead of 1/255")
    normalised = content.get("do_normalize", True)
    mean, std = (content["image_mean"], content["image_std"]) if normalised else ((0.0,) * 3, (1.0,) * 3)
    if wrong := wrong_normalisation(mean, std):
        raise ValueError(wrong)
    size = content.get("size", {"height": trained, "width": trained})
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = content.get("crop_size") if content.get("do_center_crop") else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    found: dict[str, Any] = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
    if "shortest_edge" in size:
        stored = image_side(size["shortest_edge"])
        side = crop or {"height": stored, "width": stored}
        return found | {"size": (image_side(side["height"]), image_side(side["width"])), "stored": stored}
    height, width = image_side(size["height"]), image_side(size["width"])
    if crop and (crop["height"], crop["width"]) != (height, width):
        raise ValueError(f"a resize to {height} × {width} before another crop")
    return found | {"size": (height, width), "stored": max(height, width), "fit": "squash"}
