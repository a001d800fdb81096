"""Keeping: answers in a folder, where that was asked for. Never an image."""

import datetime
import threading
from pathlib import Path
from typing import Any

from ribcage.runtime import files
from ribcage.server.problem import Problem, dump


class Keeper:
    """Appends each answer as one line of JSON to a file of its day."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        with files.explained(folder, "Free some."):
            folder.mkdir(parents=True, exist_ok=True)
            self._opened(datetime.datetime.now(datetime.UTC)).close()

    def _opened(self, now: datetime.datetime) -> Any:
        file = self.folder / f"answers-{now:%Y-%m-%d}.jsonl"
        return files.opened(file, "ab", rights=0o600)

    def keep(self, answers: dict[str, Any]) -> None:
        """One line; an answer that cannot be kept is not given."""
        now = datetime.datetime.now(datetime.UTC)
        line = dump({"time": now.isoformat(timespec="seconds"), **answers}) + b"\n"
        try:
            with self.lock, self._opened(now) as file:
                file.write(line)
        except OSError as error:
            raise Problem(503, f"The answer could not be kept ({error.strerror}), so it is not given.") from None
