"""Running: the folder of a training – what was asked for, whether another may go on in it – and its line on screen."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ribcage import distributed, files, flags, progress
from ribcage.loop import Log
from ribcage.store import Store
from ribcage.training import Training

WHERE = frozenset(("command", "data", "teacher", "out", "resume"))
SEEN = frozenset(("log_format", "probe", "watch_every", "export_as"))
FREE = WHERE | SEEN | frozenset(("patience", "save_minutes", "threads", "devices"))
"""What may be said otherwise when a run goes on: it changes no step to come. Data and teachers may move, not change."""


def check_free(options: Any) -> None:
    """Raise where the run folder is something else, or another run lies in it."""
    foreign = [name for name in ("dataset.json", "model.json") if (options.out / name).exists()]
    if foreign:
        raise ValueError(f"{options.out} is no folder for a run: it holds {foreign[0]}. Choose another --out.")
    if (options.out / "options.json").exists() and not options.resume and not failed(options.out):
        raise ValueError(f"{options.out} holds a run already. Pass --resume to go on, or choose another --out.")


def begin(command: str, options: Any, stores: Sequence[Store], lessons: Sequence[str] = ()) -> None:
    """Make the run folder; another run in it is not touched."""
    file = options.out / "options.json"
    check_free(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "metrics.jsonl").unlink(missing_ok=True)
    with files.atomic(file) as part:
        text = json.dumps(asked(command, options, stores, lessons), indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def unsaved(folder: Path) -> bool:
    """Whether a run began here and was killed before its first checkpoint: to go on is to begin again."""
    return (folder / "options.json").exists() and not (folder / "checkpoint.pt").exists()


def failed(folder: Path) -> bool:
    """Whether a run began here and came to no step: nothing is lost when another takes its place."""
    log = folder / "metrics.jsonl"
    return unsaved(folder) and not (log.exists() and log.stat().st_size)


def asked(command: str, options: Any, stores: Sequence[Store], lessons: Sequence[str] = ()) -> dict[str, Any]:
    """All options as they are written down, and hashes of the data and the teachers they name."""
    plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    plain |= plain.pop("member", {})
    contents = [f"{one.facts.contents} {one.facts.tables['index.parquet']}" for one in stores]
    return {"command": command, **plain, "contents": contents} | ({"lessons": list(lessons)} if lessons else {})


def check_same(command: str, options: Any, stores: Sequence[Store], lessons: Sequence[str] = ()) -> None:
    """Raise where a run that is to go on was begun with other options or other data."""
    file = options.out / "options.json"
    if not file.exists() or unsaved(options.out):
        return
    now = asked(command, options, stores, lessons)
    before = {**usual(options), **json.loads(file.read_text(encoding="utf-8"))}
    if before.get("command") != command:
        raise ValueError(f"{options.out} is a run of 'ribcage {before.get('command')}', not of 'ribcage {command}'.")
    changed = [
        name for name in dict.fromkeys([*before, *now]) if name not in FREE and before.get(name) != now.get(name)
    ]
    if changed:
        other = " (which holds other pictures or labels)" if "contents" in changed else ""
        other += " (who answers otherwise)" if "lessons" in changed else ""
        raise ValueError(
            f"{options.out} was begun with {_words(changed, before)}, not with {_words(changed, now)}{other}. "
            "Go on with the same, or choose another --out."
        )


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
            yield log.pictures * distributed.world()

    if distributed.rank() > 0:
        list(counts())
        return
    steps = training.run.epochs * len(training.run.loader)
    shown = progress.track(
        counts(), steps * batch, "train", "pictures", training.run.step * batch, lambda: note(last[0]) if last else ""
    )
    list(shown)


def say(text: str) -> None:
    """Print at rank 0."""
    if distributed.rank() == 0:
        print(text, flush=True)
