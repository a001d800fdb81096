"""Running: the folder of a training – what was asked for, whether another may go on in it – and its line on screen."""

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ribcage.data.collection import Datasets
from ribcage.runtime import distributed, files, flags, progress, threads
from ribcage.training import checkpoint
from ribcage.training.run import Training
from ribcage.training.trainer import Log

WHERE = frozenset(("command", "data", "teacher", "out", "resume"))
SEEN = frozenset(("log_format", "probe", "watch_every", "export_as"))
HOW = frozenset(("patience", "save_minutes", "threads", "devices"))
FREE = WHERE | SEEN | HOW
"""What may be said otherwise when a run goes on: it changes no step to come. Data and teachers may move, not change."""
STEERS = frozenset(("lr", "clip", "epochs"))
"""What may be changed when a run goes on, and changes the steps to come: after a divergence, or to train longer."""
Changes = dict[str, tuple[Any, Any]]
"""Option → its value so far, and from now on."""


def check_free(options: Any) -> None:
    """Raise where the run folder is something else, or another run lies in it."""
    foreign = [name for name in ("dataset.json", "model.json") if (options.out / name).exists()]
    if foreign:
        raise ValueError(f"{options.out} is not a run folder: it contains {foreign[0]}. Choose another --out.")
    if (options.out / "options.json").exists() and not options.resume and not failed(options.out):
        raise ValueError(f"{options.out} already holds a run. Pass --resume to continue it, or choose another --out.")


@contextlib.contextmanager
def going(
    command: str,
    options: Any,
    training: Training,
    data: Datasets,
    lessons: Sequence[str] = (),
    facts: dict[str, Any] | None = None,
) -> Iterator[None]:
    """While it lasts, the run folder is this process's alone, and the run in it begins, or goes on where it stopped.

    facts: what the model to be says of its training; it says, too, what was changed on the way.
    """
    with contextlib.ExitStack() as held:
        again = distributed.run_on_first(lambda: held.enter_context(_owned(options)))
        if not again:
            distributed.run_on_first(lambda: begin(command, options, data, lessons))
        else:
            if said := training.resume():
                say(f"! {said}")
            step = training.run.step
            history = distributed.run_on_first(lambda: _changed(command, options, data, lessons, step))
            if history and facts is not None:
                facts["history"] = history
        yield


@contextlib.contextmanager
def alone(options: Any) -> Iterator[None]:
    """While it lasts, the run folder is this process's alone; for what has no steps, so that no run goes on."""
    with contextlib.ExitStack() as held:
        distributed.run_on_first(lambda: held.enter_context(_owned(options)))
        yield


@contextlib.contextmanager
def _owned(options: Any) -> Iterator[bool]:
    """The folder is nobody else's while this lasts; whether the run in it goes on."""
    check_free(options)
    again = bool(options.resume) and not unsaved(options.out)
    if again and not checkpoint.there(options.out):
        raise FileNotFoundError(
            f"{options.out} has no checkpoint to resume from: leave out --resume to start a new run."
        )
    with files.explained(options.out, "Free some."):
        options.out.mkdir(parents=True, exist_ok=True)
        for one in options.out.iterdir():
            files.refuse_links(options.out, one)
        with files.only_writer(options.out):
            check_free(options)  # another may have begun meanwhile
            yield again


def begin(command: str, options: Any, data: Datasets, lessons: Sequence[str] = ()) -> None:
    """Make the run folder; another run in it is not touched."""
    check_free(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "metrics.jsonl").unlink(missing_ok=True)
    _write(options.out, asked(command, options, data, lessons))


def _write(folder: Path, values: dict[str, Any]) -> None:
    files.write_text(folder / "options.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _changed(command: str, options: Any, data: Datasets, lessons: Sequence[str], step: int) -> list[dict[str, Any]]:
    """Say and write down what is otherwise from this step on; all that was changed in this run so far."""
    changes = check_same(command, options, data, lessons)
    history: list[dict[str, Any]] = begun(options.out).get("history", [])
    if not changes:
        return history
    say(f"Resuming at step {step:,} with {_told(changes)}.")
    was, now = ({name: pair[place] for name, pair in changes.items()} for place in (0, 1))
    history = [*history, {"step": step, "was": was, "now": now}]
    _write(options.out, {**asked(command, options, data, lessons), "history": history})
    return history


def _told(changes: Changes) -> str:
    """Changes in words."""
    parts = [f"{_words([name], {name: now})} (was {was})" for name, (was, now) in changes.items()]
    longer = "; the learning rate is from now on that of a run of this length" if "epochs" in changes else ""
    return ", ".join(parts) + longer


def begun(folder: Path) -> dict[str, Any]:
    """What the run in this folder was begun with, as its options.json says; {} where there is none."""
    file = folder / "options.json"
    try:
        said = files.read_json(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        said = None
    history = said.get("history", []) if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(history, list) or not all(isinstance(one, dict) for one in history):
        raise ValueError(f"{file} is damaged: the options of the run are missing. Choose another --out.")
    return said


def unsaved(folder: Path) -> bool:
    """Whether a run began here and was killed before its first checkpoint: to go on is to begin again."""
    return (folder / "options.json").exists() and not checkpoint.there(folder)


def failed(folder: Path) -> bool:
    """Whether a run began here and came to no step: nothing is lost when another takes its place."""
    log = folder / "metrics.jsonl"
    return unsaved(folder) and not (log.exists() and log.stat().st_size)


def asked(command: str, options: Any, data: Datasets, lessons: Sequence[str] = ()) -> dict[str, Any]:
    """All options as they are written down, and hashes of the data and the teachers they name."""
    plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    plain |= plain.pop("member", {})
    if "devices" in plain:
        plain["devices"] = distributed.world()
    contents = [f"{one.facts.contents} {one.facts.tables['index.parquet']}" for one in data]
    return {"command": command, **plain, "contents": contents} | ({"lessons": list(lessons)} if lessons else {})


def check_same(command: str, options: Any, data: Datasets, lessons: Sequence[str] = ()) -> Changes:
    """Raise where a run that is to go on was begun with other options or other data; what may be changed, and is."""
    said = begun(options.out)
    if not said or unsaved(options.out):
        return {}
    now, before = asked(command, options, data, lessons), {**usual(options), **said}
    if before.get("command") != command:
        raise ValueError(f"{options.out} is a run of 'ribcage {before.get('command')}', not of 'ribcage {command}'.")
    names = [name for name in dict.fromkeys([*before, *now]) if name != "history" and before.get(name) != now.get(name)]
    if changed := [name for name in names if name not in FREE | STEERS]:
        other = " (which holds other images or labels)" if "contents" in changed else ""
        other += " (who answers otherwise)" if "lessons" in changed else ""
        raise ValueError(
            f"{options.out} was started with {_words(changed, before)}, not with {_words(changed, now)}{other}. "
            "Use the same options, or choose another --out."
        )
    if "epochs" in names and not (isinstance(before["epochs"], int) and before["epochs"] < now["epochs"]):
        raise ValueError(
            f"{options.out} was started with --epochs {before['epochs']}, which can be increased, not set "
            f"to {now['epochs']}."
        )
    return {name: (before.get(name), now[name]) for name in names if name in STEERS | HOW | SEEN and name in now}


def usual(options: Any) -> dict[str, Any]:
    """The defaults, as they are written down: what an older run was begun with where it does not say."""
    defaults = {field.name: flags.field_default(field) for field in dataclasses.fields(options)}
    said = {name: default for name, default in defaults.items() if default is not flags.NEEDED and name != "member"}
    plain: dict[str, Any] = json.loads(json.dumps(said, default=str))
    return plain


def _words(names: Sequence[str], said: dict[str, Any]) -> str:
    """These options as one would type them; the contents of data by the names of its folders."""
    named = [{"contents": "data", "lessons": "teacher"}.get(name, name) for name in names]
    words = [word for name in named if name in said for word in flags.option_words(name, said[name])]
    return shlex.join(words) or "their defaults"


def watch(training: Training, batch: int, note: Callable[[Log], str]) -> None:
    """Train to the end with a progress bar; `note` says of the last step what is worth seeing."""
    last: list[Log] = []

    def counts() -> Iterator[int]:
        for log in training.steps():
            last[:] = [log]
            yield log.images * distributed.world()

    if distributed.rank() > 0:
        list(counts())
        return
    if distributed.world() == 1 and (advice := threads.advice()):
        print(advice, file=sys.stderr, flush=True)
    steps = training.run.epochs * len(training.run.loader)
    shown = progress.track(
        counts(), steps * batch, "train", "images", training.run.step * batch, lambda: note(last[0]) if last else ""
    )
    list(shown)


def say(text: str) -> None:
    """Print at rank 0."""
    if distributed.rank() == 0:
        print(text, flush=True)
