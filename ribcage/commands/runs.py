"""List the runs below a folder: command, model, data, state, progress and main result.

The state is running, finished, stopped (by a signal, or killed) or failed. The main result is the mean AUROC (for a
detector, the mAP) of the latest test with --protocol honest, with its 95 % interval; before the first test, it is the
validation result.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.training.runs import Number, Row, RunFacts

POSITIONAL = ("folder",)
PLACES = {"folder": Place.RUNS, "json": Place.FILE_OUT}
EXAMPLES = ("runs runs",)
TRAINING = ("finetune", "pretrain", "distil", "localise")


@dataclass(frozen=True)
class Options:
    """Options of the list."""

    folder: Path = Path("runs")
    """Folder to search for runs."""
    json: Path | None = None
    """Write the list to this JSON file."""


def run(options: Options) -> "list[RunFacts]":
    """Look, show, write; return the rows."""
    import json

    from ribcage.runtime import files
    from ribcage.training import runs

    folder = runs.local_runs(options.folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{options.folder} is not a folder. Pass the folder that contains your runs: ribcage runs FOLDER."
        )
    rows = runs.run_rows(folder)
    show(folder, rows)
    facts = [one.facts() for one in rows]
    if options.json is not None:
        files.write_text(options.json, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        print(f"Wrote {address_text(options.json)}")
    return facts


def show(folder: Path, rows: list["Row"]) -> None:
    """A table, and why some runs did not come to their end."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ribcage.runtime import terminal

    if not rows:
        print(f"There is no run below {address_text(folder)}.")
        return
    console = terminal.console()
    if not console.is_terminal:  # a file or a pipe has room
        console = terminal.console(width=200)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("run", "command, model and data", "state", "result", "last change"):
        table.add_column(head, overflow="fold", justify="right" if head == "last change" else "left")
    for one in rows:
        table.add_row(*(Text(text) for text in cells(folder, one)))
    console.print(table)
    for one in rows:
        if one.state.why:
            text = f"{shown(folder, one.folder)} · {one.state.name} · {one.state.why}"
            console.print(text, soft_wrap=not console.is_terminal)
        if one.state.name == "stopped" and (command := resume_command(one.folder)):
            console.print(f"  {command}", soft_wrap=True)


def cells(folder: Path, one: "Row") -> tuple[str, ...]:
    """A run as a row of the table."""
    place = one.state.place
    return (
        shown(folder, one.folder),
        f"{one.command} {one.model} on {', '.join(one.data) or '–'}",
        f"{one.state.name}, epoch {place.epoch} of {place.epochs}" if place else one.state.name,
        worth(one.number),
        age(one.changed),
    )


def resume_command(folder: Path) -> str:
    """The command line that resumes the run in a folder; "" if its options are damaged."""
    import dataclasses
    import importlib

    from ribcage.runtime import flags
    from ribcage.training import options, run_folder

    try:
        values = options.written_options(folder)
        command = values.get("command")
        if command not in TRAINING:
            return ""
        module = importlib.import_module(f"ribcage.commands.{command}")
        method = [str(values[name]) for name in getattr(module, "POSITIONAL", ())]
        known = flags.read_flags(module, method)
        words = [
            word
            for flag in known
            if not flag.positional and values.get(flag.name) is not None
            for word in flags.option_words(flag.name, values[flag.name])
        ]
        parsed = flags.parse(str(command), module, known, [*method, *words])
        return run_folder.resume_command(str(command), dataclasses.replace(parsed, out=folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def shown(folder: Path, run: Path) -> str:
    """A run's name below the folder."""
    return str(run.relative_to(folder)) if run != folder else run.name


def worth(number: "Number | None") -> str:
    """The main number with its interval, and what it is from."""
    if number is None:
        return "–"
    name = {"auroc": "AUROC", "map": "mAP"}[number.name]
    interval = f" ({number.low:.3f}–{number.high:.3f})" if number.low is not None else ""
    return f"{name} {number.value:.3f}{interval}, {number.on}"


def age(changed: float) -> str:
    """How long ago, in the largest unit that fits."""
    import time

    seconds = max(0.0, time.time() - changed)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
