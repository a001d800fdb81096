"""JSON files beside weights: read as untrusted input."""

from pathlib import Path
from typing import Any

from ribcage.bundle.spec import MAX_SIDE
from ribcage.runtime import files, limits


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object in the file; empty if there is no file or it is not valid JSON."""
    try:
        content = files.read_json(file, parse_int=limits.json_integer)
    except (ValueError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def one_line(value: Any) -> str:
    """Text made safe for the model card: one line of at most 200 printable characters."""
    return "".join(one for one in " ".join(str(value).split()) if one.isprintable())[:200].replace("<", "‹")


def image_side(value: Any) -> int:
    """An image side in pixels, validated."""
    if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"{value!r} is not a valid image size")
    return value
