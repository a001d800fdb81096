"""Format 1: translates the JSON of dataset folders and bundles written by Ribcage 0.1.0 to today's names.

All old names stand here and nowhere else. A key is renamed at any depth.
"""

from typing import Any

DATASET: dict[str, str] = {"pictures": "images"}
"""Old name → today's name, in dataset.json."""
MODEL: dict[str, str] = {
    "pictures": "images", "observed": "reliability", "bands": "bins", "colours": "rgb_normalisation",
    "spread": "feature_std",
}  # fmt: skip
"""In model.json."""
TESTS: dict[str, str] = {"images": "contents", "pictures": "images"}
"""… in tests.json."""
OPTIONS: dict[str, str] = {
    "lessons": "teacher_contents", "view": "augment_options", "watch_every": "evaluate_every", "hard": "label_weight",
    "match": "distil_loss", "features": "feature_weight", "relations": "relation_weight", "weigh": "teacher_weights",
    "teach": "teacher_mode", "boxes": "max_detections", "overlap": "nms_iou", "mask": "mask_ratio",
    "decode_share": "decode_ratio", "group": "bn_group",
}  # fmt: skip
"""… in the options.json of a run, which has no format."""
ADAPT = {"": "full", "backbone": "head"}
"""Old value of `freeze` in options.json → that of `adapt`."""
SOURCES = {"drawn by Ribcage (ribcage.phantom)": "drawn by Ribcage (ribcage.data.phantom)"}
"""Old source of a dataset → that of today, by which models of synthetic images are recognised."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "dataset.json": {"window": "", "drop_shared": []},
    "model.json": {"detector": {}, "rgb_normalisation": [], "reliability": []},
}
"""Defaults of keys that the first files of format 1 lack, by today's names."""
NAMES = {"dataset.json": DATASET, "model.json": MODEL, "tests.json": TESTS}


def current(values: Any, file: str, format: int) -> Any:
    """The content of a file with today's names; unchanged unless it is an object of format 1."""
    if not isinstance(values, dict) or values.get("format") != 1:
        return values
    try:
        known = renamed(values, NAMES[file])
    except RecursionError:
        raise ValueError(f"The JSON in {file} is nested too deeply.") from None
    return {**DEFAULTS.get(file, {}), **known, "format": format}


def options(values: dict[str, object]) -> dict[str, object]:
    """The options of a run with today's names."""
    found: dict[str, object] = renamed(values, OPTIONS)
    if "freeze" in found:
        frozen = str(found.pop("freeze"))
        found["adapt"] = ADAPT.get(frozen, frozen)
    return found


def renamed(values: Any, names: dict[str, str]) -> Any:
    """The values with today's names of their keys and sources, at any depth."""
    if isinstance(values, dict):
        return {names.get(key, key): renamed(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [renamed(value, names) for value in values]
    return SOURCES.get(values, values) if isinstance(values, str) else values
