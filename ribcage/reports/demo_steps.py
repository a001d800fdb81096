"""Journey: a way in several parts – which are done, what each took, and how long is left.

`journey.json` in the folder of the way says it, so that an interrupted one goes on behind the last part that was done.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ribcage.runtime import files

FILE = "journey.json"


@dataclass(frozen=True)
class Part:
    """One part of the way."""

    name: str
    title: str
    share: float
    """Of the time of the whole, about; only their ratios matter."""
    makes: tuple[str, ...]
    """Files in the folder that are there when it is done."""


@dataclass
class Done:
    """What is known of a part that was begun."""

    seconds: float = 0.0
    """All that it took, over all times that it was begun."""
    finished: bool = False
    commands: list[str] = field(default_factory=list)
    """Those that do the same."""


class Journey:
    """A way through parts, written down as it goes."""

    def __init__(self, folder: Path, parts: Sequence[Part], asked: dict[str, Any]) -> None:
        self.folder, self.parts = folder, tuple(parts)
        self.asked = json.loads(json.dumps(asked, default=str))
        self.done = {part.name: Done() for part in parts} | self._before()

    def _before(self) -> dict[str, Done]:
        """What was done the last time; nothing where other things were asked for, or the file is damaged."""
        try:
            said = files.read_json(self.folder / FILE)
            before = {name: Done(**one) for name, one in said["done"].items()}
            same = said["asked"] == self.asked
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {part.name: before[part.name] for part in self.parts if part.name in before} if same else {}

    def finished(self, part: Part) -> bool:
        """Whether a part is done, and what it made still there."""
        return self.done[part.name].finished and all((self.folder / name).exists() for name in part.makes)

    @contextmanager
    def walking(self, part: Part) -> Iterator[Done]:
        """A part, from its beginning to its end; what it took is kept however it ends."""
        own, start = self.done[part.name], time.monotonic()
        own.finished, own.commands = False, []
        try:
            yield own
            own.finished = True
        finally:
            own.seconds += time.monotonic() - start
            self.save()

    def save(self) -> None:
        """Write it down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said = {"asked": self.asked, "done": {name: asdict(one) for name, one in self.done.items()}}
        files.write(self.folder / FILE, json.dumps(said, indent=1, ensure_ascii=False) + "\n")

    def left(self) -> float | None:
        """Seconds that the parts to come may take, by what those that are done took; None before the first."""
        ended = [part for part in self.parts if self.finished(part)]
        if not ended:
            return None
        pace = sum(self.done[part.name].seconds for part in ended) / sum(part.share for part in ended)
        return pace * sum(part.share for part in self.parts if not self.finished(part))

    def line(self, part: Part) -> str:
        """Where the way is: [3/9] pretrain without labels · 1:24 gone, about 2:40 left"""
        place, gone = self.parts.index(part) + 1, sum(one.seconds for one in self.done.values())
        left = self.left()
        ahead = "" if left is None else f", about {clock(left)} left"
        return f"[{place}/{len(self.parts)}] {part.title} · {clock(gone)} gone{ahead}"


def clock(seconds: float) -> str:
    """2:05"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
