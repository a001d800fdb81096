"""Format 1: JSON of dataset folders and bundles as Ribcage 0.1.0 wrote it → the names of today.

Every older name stands here and nowhere else. A value is renamed wherever its key is, at any depth.
"""

from typing import Any

DATASET: dict[str, str] = {"pictures": "images"}
"""Old name → name of today, in dataset.json."""
MODEL: dict[str, str] = {
    "pictures": "images", "observed": "reliability", "bands": "bins", "colours": "rgb_normalisation",
    "spread": "feature_std",
}  # fmt: skip
"""… in model.json."""
TESTS: dict[str, str] = {"images": "contents", "pictures": "images"}
"""… in tests.json."""
OPTIONS: dict[str, str] = {"lessons": "teacher_contents"}
"""… in the options.json of a run, which has no format."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "dataset.json": {"window": "", "drop_shared": []},
    "model.json": {"detector": {}, "rgb_normalisation": [], "reliability": []},
}
"""What the first files of format 1 do not have, by today's names."""
NAMES = {"dataset.json": DATASET, "model.json": MODEL, "tests.json": TESTS}


def current(values: Any, file: str, format: int) -> Any:
    """The content of a file of this name in today's words; of another format than 1, or no object: as it is."""
    if not isinstance(values, dict) or values.get("format") != 1:
        return values
    try:
        known = renamed(values, NAMES[file])
    except RecursionError:
        raise ValueError(f"{file} is nested too deeply.") from None
    return {**DEFAULTS.get(file, {}), **known, "format": format}


def renamed(values: Any, names: dict[str, str]) -> Any:
    """The values with today's names of their keys, at any depth."""
    if isinstance(values, dict):
        return {names.get(key, key): renamed(value, names) for key, value in values.items()}
    return [renamed(value, names) for value in values] if isinstance(values, list) else values
