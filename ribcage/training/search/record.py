"""Record of a search: the options with which it was begun, and whether it may be continued with others."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from ribcage.runtime import files
from ribcage.training.metrics_log import LOG_FILE
from ribcage.training.run_folder import EXECUTION, LOCATIONS, LOGGING, changed_content, options_text
from ribcage.training.search import claims

RECORD_FILE, JOURNAL_FILE, TABLE_FILE = "tune.json", "journal.log", "trials.csv"
MAY_CHANGE = (LOCATIONS | LOGGING | EXECUTION) - {"command", "patience"}
"""Options that may differ when a search is continued: they do not affect the result of a trial."""
FOREIGN = {"options.json": "a run folder", "dataset.json": "a dataset folder", "model.json": "a bundle"}


def check_folder(folder: Path) -> None:
    """Raise if the folder is one of another kind, or has files of others."""
    for name, kind in FOREIGN.items():
        if (folder / name).exists():
            raise ValueError(f"{folder} is {kind}, not the folder of a hyperparameter search. Choose another --out.")


def begin_or_continue(folder: Path, asked: Mapping[str, object]) -> None:
    """Record the options of a new search, also in place of one in which no trial took a step; ValueError if the folder
    has another search."""
    file, now = folder / RECORD_FILE, json.loads(json.dumps(asked))
    try:
        before = files.read_json(file)
    except (ValueError, FileNotFoundError):
        before = None
    if not begun(folder):
        if before == now and not any(folder.glob("trial-*")):
            return  # another process may just be opening the journal
        for one in (folder / JOURNAL_FILE, *folder.glob("trial-*/options.json")):
            one.unlink(missing_ok=True)
        files.write_text(file, json.dumps(asked, indent=1, ensure_ascii=False) + "\n")
        return
    if not isinstance(before, dict):
        raise ValueError(f"{file} is missing or damaged. Choose another --out.")
    if changed := [
        name for name in dict.fromkeys([*before, *now]) if name not in MAY_CHANGE and before.get(name) != now.get(name)
    ]:
        raise ValueError(
            f"{folder} contains a search with {options_text(changed, before)}, not with {options_text(changed, now)}"
            f"{changed_content(changed)}. Use the same options to continue it, or choose another --out."
        )


def begun(folder: Path) -> bool:
    """Whether a trial has finished or taken a step, or a process is working on one."""
    if any_finished(folder / TABLE_FILE):
        return True
    logs = any(log.stat().st_size for log in folder.glob(f"trial-*/{LOG_FILE}"))
    return logs or not all(map(claims.is_abandoned, folder.glob("trial-*.claim")))


def any_finished(table: Path) -> bool:
    """Whether a table of trials has a finished one; the run folders of all trials may have been deleted."""
    try:
        with files.open_regular(table, "r", encoding="utf-8", newline="") as stream:
            return any(row.get("state") == "finished" for row in csv.DictReader(stream))
    except FileNotFoundError:
        return False
