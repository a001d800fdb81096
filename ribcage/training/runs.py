"""Runs: all runs below a folder, one row each, from the files in their folders."""

import os
import posixpath
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ribcage.runtime import files
from ribcage.runtime.remote import addresses, cache
from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.mirror import WRITER
from ribcage.training import run_folder
from ribcage.training.metrics_log import LOG_FILE

DESCRIBING = ("options.json", LOG_FILE, run_folder.STATE_FILE, "metrics.json", "model.json", "dataset.json", WRITER)
"""Files that describe a run, and those by which other folders are told from runs."""
MAIN = ("auroc", "map")
"""The main metric of a classifier and of a detector."""


@dataclass(frozen=True)
class Number:
    """The main metric of a run. Validation has no interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    on: str
    """Name of the evaluation, or 'validation'."""


class RunFacts(TypedDict):
    """A run as JSON."""

    folder: str
    command: str
    data: list[str]
    model: str
    state: str
    why: str
    place: dict[str, int] | None
    """The fields of a `RunPosition`."""
    number: dict[str, str | float | None] | None
    """The fields of a `Number`."""
    changed: str
    """Time of the last change, in UTC."""


@dataclass(frozen=True)
class Row:
    """One run."""

    folder: Path
    command: str
    """pretrain moco, finetune, …"""
    data: tuple[str, ...]
    model: str
    state: run_folder.RunState
    number: Number | None
    changed: float
    """Time of the last change, in seconds since 1970."""

    def facts(self) -> RunFacts:
        """The run as JSON."""
        place, number = self.state.place, self.number
        return {
            "folder": address_text(self.folder),
            "command": self.command,
            "data": list(self.data),
            "model": self.model,
            "state": self.state.name,
            "why": self.state.why,
            "place": vars(place) if place else None,
            "number": vars(number) if number else None,
            "changed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.changed)),
        }


def local_runs(folder: Path) -> Path:
    """A local folder itself; of a remote one, a copy of those files that describe runs."""
    if not addresses.is_remote(folder):
        return folder
    return cache.local_tree(folder, lambda name: posixpath.basename(name) in DESCRIBING)


def run_rows(folder: Path) -> list[Row]:
    """All runs below a folder, most recently changed first."""
    return sorted((row(run) for run in runs(folder)), key=lambda one: (-one.changed, str(one.folder)))


def runs(folder: Path) -> Iterator[Path]:
    """All run folders below a folder. Folders inside a run or a dataset folder and hidden folders are skipped."""
    seen: set[str] = set()
    for here, inside, found in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        run = "options.json" in found
        if run and real not in seen:
            yield Path(here)
        if run or real in seen or "dataset.json" in found:
            inside.clear()
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        seen.add(real)


def row(folder: Path) -> Row:
    """A run from its files."""
    asked = _read(folder / "options.json")
    words = [str(asked.get(name, "")) for name in ("command", "method")]
    written = (folder / name for name in ("options.json", LOG_FILE, run_folder.STATE_FILE))
    data = asked.get("data")
    return Row(
        folder=folder,
        command=" ".join(word for word in words if word) or "?",
        data=tuple(Path(str(one)).name for one in data) if isinstance(data, list) else (),
        model=str(asked.get("model", "?")),
        state=run_folder.read_state(folder),
        number=main_number(folder),
        changed=max((file.stat().st_mtime for file in written if file.exists()), default=0.0),
    )


def main_number(folder: Path) -> Number | None:
    """The metric of the latest unbiased test or, without one, of the validation that selected the model."""
    tests = sorted(folder.glob("evaluation/*/metrics.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in tests:
        result = _read(file)
        honest = result.get("protocol") == "honest" and result.get("split") not in ("train", "val")
        honest = honest and not _part(result, "leak").get("found")
        for name in MAIN:
            found = _part(_part(result, "macro"), name)
            value = found.get("value")
            if honest and isinstance(value, float):
                low, high = found.get("low"), found.get("high")
                if not (isinstance(low, float) and isinstance(high, float)):
                    low = high = None
                return Number(name, value, low, high, file.parent.name)
    validation = _part(_part(_read(folder / "bundle" / "model.json"), "metrics"), "validation")
    for name in MAIN:
        value = validation.get(name)
        if isinstance(value, float):
            return Number(name, value, None, None, "validation")
    return None


def _read(file: Path) -> dict[str, object]:
    """A JSON object; {} if the file cannot be read."""
    try:
        found = files.read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(whole: dict[str, object], name: str) -> dict[str, object]:
    found = whole.get(name)
    return found if isinstance(found, dict) else {}
