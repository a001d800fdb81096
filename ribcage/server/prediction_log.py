"""Prediction log: an optional log of predictions in a folder, without images."""

import datetime
import threading
from pathlib import Path
from typing import Any

from ribcage.runtime import files
from ribcage.server.problem import Problem, dump


class PredictionLog:
    """Appends each response as one line of JSON to a file per day."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        with files.explained(folder, "Free some."):
            folder.mkdir(parents=True, exist_ok=True)
            self._opened(datetime.datetime.now(datetime.UTC)).close()

    def _opened(self, now: datetime.datetime) -> Any:
        file = self.folder / f"predictions-{now:%Y-%m-%d}.jsonl"
        return files.open_regular(file, "ab", rights=0o600)

    def append(self, response: dict[str, object]) -> None:
        """One line; a response that cannot be logged is not sent."""
        now = datetime.datetime.now(datetime.UTC)
        line = dump({"time": now.isoformat(timespec="seconds"), **response}) + b"\n"
        try:
            with self.lock, self._opened(now) as file:
                file.write(line)
        except OSError as error:
            raise Problem(
                503, f"The predictions could not be logged ({error.strerror}), so they are not sent."
            ) from None
