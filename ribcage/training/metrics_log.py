"""The log of a run, `metrics.jsonl`: one line per step and per validation, each a JSON object. Where lines of earlier
steps were missing when the run was resumed, a line with `missing`, their number, says so."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime import files

if TYPE_CHECKING:
    from ribcage.training.step_log import StepLog

LOG_FILE = "metrics.jsonl"
MISSING = "missing"
OF_THE_LOOP = ("step", "epoch", "lr", "seconds", "waited", "validation", MISSING)
"""What a line has beside the loss and the method's own numbers."""


@dataclass(frozen=True)
class LogLine:
    """The numbers of a step, or of a validation after it."""

    step: int
    epoch: int
    """Epochs begun; of a validation, completed."""
    numbers: dict[str, float]
    """The loss and the method's own numbers."""
    validation: dict[str, float] | None = None
    """The numbers of a validation; None in the line of a step."""
    missing: int = 0
    """Steps before this one whose lines are missing; the line has nothing else."""

    @property
    def all_numbers(self) -> dict[str, float]:
        """The numbers of the step and of the validation."""
        return self.numbers | (self.validation or {})


def step_values(log: "StepLog") -> dict[str, float]:
    """A step as a line of the log."""
    return {
        "step": log.step,
        "epoch": log.epoch + 1,
        "loss": log.loss,
        "lr": log.rate,
        "seconds": round(log.seconds, 4),
        "waited": round(log.waited, 4),
        **log.scheduled,
        **log.values,
    }


def validation_values(step: int, epoch: int, found: Mapping[str, float]) -> dict[str, object]:
    """A validation as a line of the log."""
    return {"step": step, "epoch": epoch, "validation": dict(found)}


@dataclass(frozen=True)
class TrackedNumbers:
    """A line of the log as trackers get it: all numbers under one name each, such as train/loss or validation/auroc."""

    step: int
    numbers: dict[str, float]
    time: float
    """Seconds since 1970."""


def tracked_numbers(values: Mapping[str, object], time: float) -> TrackedNumbers:
    """The numbers of `step_values` or `validation_values`."""
    step, found = values["step"], values.get("validation")
    kind, source = ("validation", found) if isinstance(found, Mapping) else ("train", values)
    assert isinstance(step, int)
    return TrackedNumbers(
        step,
        {
            f"{kind}/{name}": float(value)
            for name, value in source.items()
            if name != "step" and isinstance(value, int | float)
        },
        time,
    )


def read_log(file: Path) -> list[LogLine]:
    """The lines of steps and validations; invalid ones, as an incomplete last one is, are left out."""
    return [line for line in map(_line, _texts(file)) if line is not None and not line.missing]


def validations(log: Sequence[LogLine]) -> list[dict[str, float]]:
    """The numbers of each validation."""
    return [line.validation for line in log if line.validation is not None]


def cut_log(file: Path, step: int, epoch: int) -> int:
    """Remove the lines of a log after this step, of which `epoch` epochs were complete, and invalid ones. Returns the
    number of steps whose lines are missing, which a new line records."""
    kept = [(text, line) for text in _texts(file) if (line := _line(text)) is not None and line.step <= step]
    steps = {line.step for _, line in kept if line.validation is None and not line.missing}
    missing = step - len(steps) - sum(line.missing for _, line in kept)
    texts = [text for text, _ in kept]
    if missing > 0:
        texts.append(json.dumps({"step": step, "epoch": epoch, MISSING: missing}))
    if texts or file.exists():
        files.write_text(file, "".join(text + "\n" for text in texts))
    return max(0, missing)


def _texts(file: Path) -> list[str]:
    return files.regular(file).read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def _line(text: str) -> LogLine | None:
    """None for an invalid line."""
    values: object = None
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(text)
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        return None
    epoch, found, missing = (values.get(name) for name in ("epoch", "validation", MISSING))
    return LogLine(
        values["step"],
        epoch if isinstance(epoch, int) else 0,
        _numbers({name: value for name, value in values.items() if name not in OF_THE_LOOP}),
        _numbers(found) if isinstance(found, dict) else None,
        missing if isinstance(missing, int) else 0,
    )


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Those that are numbers; null is an undefined one."""
    known = {name: math.nan if value is None else value for name, value in values.items()}
    return {name: value for name, value in known.items() if isinstance(value, int | float)}
