"""The file of an evaluation: one writer and one reader of metrics.json.

`metrics` of a row and `context` of an evaluation stand among the other keys of their object.
"""

import json
from pathlib import Path

from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.detection_evaluation import DetectionEvaluation
from ribcage.metrics.evaluation import Evaluation
from ribcage.runtime import files, typed_json

METRICS_FILE = "metrics.json"
LARGEST_FILE = 1 << 28
"""Bytes of metrics.json."""


def evaluation_json(evaluation: Evaluation) -> dict[str, object]:
    """The content of metrics.json."""
    found: dict[str, object] = typed_json.to_json(evaluation)
    return found


def write_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Write metrics.json."""
    numbers = json.dumps(evaluation_json(evaluation), indent=1, ensure_ascii=False, allow_nan=False)
    files.write_text(file, numbers + "\n")


def read_evaluation(file: Path) -> Evaluation:
    """Read metrics.json, or raise one ValueError."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError("the file is too large")
        values = files.read_json(file)
        kind = DetectionEvaluation if isinstance(values, dict) and "kind" in values else ClassificationEvaluation
        found: Evaluation = typed_json.from_json(kind, values)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{file} is damaged, or was written by another version of Ribcage. Run 'ribcage evaluate' again."
        ) from None
    return found
