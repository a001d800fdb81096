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
"""In tests.json."""
OPTIONS: dict[str, str] = {"lessons": "teacher_contents"}
"""In the options.json of a run, which has no format number."""
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
        raise ValueError(f"{file} is nested too deeply.") from None
    return {**DEFAULTS.get(file, {}), **known, "format": format}


def renamed(values: Any, names: dict[str, str]) -> Any:
    """The values with today's names for their keys, at any depth."""
    if isinstance(values, dict):
        return {names.get(key, key): renamed(value, names) for key, value in values.items()}
    return [renamed(value, names) for value in values] if isinstance(values, list) else values
