"""Steps of the demo: which are done, how long each took, and how long the rest may take.

`demo.json` in the folder of the demo keeps this, so that an interrupted demo resumes after the last step that was done.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ribcage.runtime import files

FILE = "demo.json"


@dataclass(frozen=True)
class DemoStep:
    """One step."""

    name: str
    title: str
    share: float
    """About its share of the total time; only ratios matter."""
    outputs: tuple[str, ...]
    """Files in the folder that exist when it is done."""


@dataclass
class StepRecord:
    """What is known of a step that was begun."""

    seconds: float = 0.0
    """Over all attempts."""
    finished: bool = False
    commands: list[str] = field(default_factory=list)
    """Commands that do the same."""


class DemoProgress:
    """The steps of a demo and their records, saved after each step."""

    def __init__(self, folder: Path, steps: Sequence[DemoStep], options: dict[str, Any]) -> None:
        self.folder, self.steps = folder, tuple(steps)
        self.options = json.loads(json.dumps(options, default=str))
        self.done = {step.name: StepRecord() for step in steps} | self._before()

    def _before(self) -> dict[str, StepRecord]:
        """Records of an earlier demo; none where its options differ, or the file is damaged."""
        try:
            saved = files.read_json(self.folder / FILE)
            before = {name: StepRecord(**one) for name, one in saved["done"].items()}
            same = saved["options"] == self.options
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {step.name: before[step.name] for step in self.steps if step.name in before} if same else {}

    def finished(self, step: DemoStep) -> bool:
        """Whether a step is done, and its files are still there."""
        return self.done[step.name].finished and all((self.folder / name).exists() for name in step.outputs)

    @contextmanager
    def running(self, step: DemoStep) -> Iterator[StepRecord]:
        """A step from its start to its end; its time is kept however it ends."""
        own, start = self.done[step.name], time.monotonic()
        own.finished, own.commands = False, []
        try:
            yield own
            own.finished = True
        finally:
            own.seconds += time.monotonic() - start
            self.save()

    def save(self) -> None:
        """Write the records."""
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = {"options": self.options, "done": {name: asdict(one) for name, one in self.done.items()}}
        files.write_text(self.folder / FILE, json.dumps(saved, indent=1, ensure_ascii=False) + "\n")

    def remaining(self) -> float | None:
        """Seconds that the remaining steps may take at the pace so far; None before the first is done."""
        ended = [step for step in self.steps if self.finished(step)]
        if not ended:
            return None
        pace = sum(self.done[step.name].seconds for step in ended) / sum(step.share for step in ended)
        return pace * sum(step.share for step in self.steps if not self.finished(step))

    def line(self, step: DemoStep) -> str:
        """[3/9] Pretrain without labels · 1:24 elapsed, about 2:40 left"""
        place, elapsed = self.steps.index(step) + 1, sum(one.seconds for one in self.done.values())
        remaining = self.remaining()
        ahead = "" if remaining is None else f", about {clock(remaining)} left"
        return f"[{place}/{len(self.steps)}] {step.title} · {clock(elapsed)} elapsed{ahead}"


def clock(seconds: float) -> str:
    """2:05"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
