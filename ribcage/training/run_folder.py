"""Run folder: the options of a run, whether it can be resumed, and its state.

A process that runs holds a lock, which ends with the process. How a run ended is recorded in `state.json`; if that says
"running" and no process holds the lock, the run was killed.
"""

import contextlib
import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import OptionChange
from ribcage.data.collection import Datasets
from ribcage.runtime import distributed, files, flags, launch_variables, typed_json
from ribcage.runtime.messages import Message
from ribcage.runtime.remote.mirror import WRITER
from ribcage.runtime.spelling import count_phrase
from ribcage.training import checkpoint
from ribcage.training.metrics_log import LOG_FILE
from ribcage.training.options import LEFT_OPEN, AnyOptions, TrainingOptions, written_options

LOCATIONS = frozenset(("command", "data", "teacher", "out", "resume"))
LOGGING = frozenset(("log_format", "probe", "evaluate_every", "export_as", "track", "track_images"))
EXECUTION = frozenset(("patience", "save_minutes", "threads", "devices", "checkpoint_activations", "shard"))
FREE = LOCATIONS | LOGGING | EXECUTION
"""Options that may change when a run is resumed: they change no step. Data and teachers may move, but not change."""
ADJUSTABLE = frozenset(("lr", "clip", "epochs"))
"""Options that may change when a run is resumed, and change later steps: after a divergence, or to train longer."""
STATE_FILE = "state.json"
FOREIGN = ("dataset.json", "model.json", "tune.json")
"""Files that show that a folder is a dataset, a model or a search, not a run."""
STATES = RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
Changes = dict[str, tuple[object, object]]
"""Option → its old value and its new one."""


def check_free(options: TrainingOptions) -> None:
    """Raise if --out is not a run folder, has another run or, with --resume, has none."""
    foreign = [name for name in FOREIGN if (options.out / name).exists()]
    if foreign:
        raise ValueError(f"{options.out} is not a run folder: it contains {foreign[0]}. Choose another --out.")
    if has_begun(options.out) and not options.resume:
        raise ValueError(f"{options.out} already contains a run. Continue it with --resume, or choose another --out.")
    if options.resume and unsaved(options.out) and _recorded(options.out).name == FINISHED:
        raise FileNotFoundError(
            f"{options.out} contains a finished run without a checkpoint. It cannot be trained further, and its model "
            f"cannot be saved again if it was deleted. To repeat the run, choose another --out."
        )
    if options.resume and not unsaved(options.out) and not checkpoint.has_checkpoint(options.out):
        raise FileNotFoundError(
            f"{options.out} has no checkpoint to resume from. Leave out --resume to start a run there."
        )
    if options.resume and not (options.out / "options.json").exists():
        raise FileNotFoundError(
            f"{options.out} contains checkpoints but no options.json, so the options of the run are unknown. Restore "
            "the file, or choose another --out."
        )


def with_resume(options: AnyOptions) -> AnyOptions:
    """--resume auto is --resume where a run has begun in the folder, and no option where none has."""
    if options.resume != "auto":
        return options
    return replace(options, resume=has_begun(options.out))


@contextlib.contextmanager
def locked_folder(options: TrainingOptions) -> Iterator[None]:
    """Lock the run folder, for a command without training steps."""
    with contextlib.ExitStack() as stack:
        distributed.run_on_first(lambda: stack.enter_context(locked(options)))
        yield


@contextlib.contextmanager
def locked(options: TrainingOptions) -> Iterator[bool]:
    """Hold the lock of the folder; yields whether the run in it is resumed."""
    check_free(options)
    resumed = bool(options.resume) and not unsaved(options.out)
    with files.explained(options.out, "Free some."):
        options.out.mkdir(parents=True, exist_ok=True)
        for one in options.out.iterdir():
            files.refuse_links(options.out, one)
            if one.is_dir() and one.name in checkpoint.PLACES:
                checkpoint.refuse_links(one)
        with files.only_writer(options.out):
            check_free(options)  # another process may have started a run meanwhile
            yield resumed


def create(command: str, options: TrainingOptions, data: Datasets, teachers: Sequence[str] = ()) -> None:
    """Create the run folder; ValueError if it has another run."""
    check_free(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / LOG_FILE).unlink(missing_ok=True)
    _write(options.out, record(command, options, data, teachers))


def _write(folder: Path, values: dict[str, object]) -> None:
    files.write_text(folder / "options.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def record_changes(
    command: str,
    options: TrainingOptions,
    data: Datasets,
    teachers: Sequence[str],
    step: int,
    *,
    batch_norms: bool = False,
) -> None:
    """Print and record the options that are changed from this step on.

    batch_norms: whether the model has batch norms.
    """
    changes = check_resumable(command, options, data, teachers)
    if not changes:
        return
    before = changes.get("devices", (0, 0))[0]
    if batch_norms and isinstance(before, int) and before and (warning := norms_warning(options, before)):
        warn(warning)
    say(f"Resuming at step {step:,} with {_described(changes)}.")
    was, now = ({name: pair[place] for name, pair in changes.items()} for place in (0, 1))
    history = typed_json.to_json([*option_changes(options.out), OptionChange(step, was, now)])
    _write(options.out, {**record(command, options, data, teachers), "history": history})


def norms_warning(options: TrainingOptions, before: int) -> str:
    """A warning if the micro-batches, over which batch norms compute their statistics, change with the number of
    processes; "" if they do not.

    before: the number of processes until now.
    """
    now = distributed.world_size()
    largest = options.micro_batch or options.batch
    if now == before or all(math.ceil(options.batch / world) <= largest for world in (before, now)):
        return ""
    return (
        f"Batch norms are computed over micro-batches (--micro-batch {options.micro_batch}), which are not "
        f"the same with {count_phrase(now, 'process', 'processes')} as with {before}. The results therefore differ "
        f"from those of a run with a constant number of processes."
    )


def option_changes(folder: Path) -> tuple[OptionChange, ...]:
    """The options that were changed when the run in this folder was resumed, so far."""
    history = written_options(folder).get("history", [])
    assert isinstance(history, list)  # written_options checks it
    try:
        return tuple(typed_json.from_json(OptionChange, one) for one in history)
    except ValueError as error:
        raise ValueError(f"{folder / 'options.json'} is damaged: its history is invalid ({error}).") from None


def with_history(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The spec of the model of this run, with the options that were changed on resuming."""
    history = option_changes(folder)
    return replace(spec, training=replace(spec.training, history=history)) if history else spec


def _described(changes: Changes) -> str:
    """Changes in words."""
    parts = [f"{options_text([name], {name: now})} (was {was})" for name, (was, now) in changes.items()]
    longer = "; the learning rate schedule is now that of the longer run" if "epochs" in changes else ""
    return ", ".join(parts) + longer


def has_begun(folder: Path) -> bool:
    """Whether a run was started here that another one may not replace."""
    return ((folder / "options.json").exists() and not failed(folder)) or checkpoint.has_checkpoint(folder)


def unsaved(folder: Path) -> bool:
    """Whether a run was started here but ended before its first checkpoint; resuming it starts it again."""
    return (folder / "options.json").exists() and not checkpoint.has_checkpoint(folder)


def failed(folder: Path) -> bool:
    """Whether a run was started here but ended before its first step; another run may replace it."""
    log = folder / LOG_FILE
    return unsaved(folder) and not (log.exists() and log.stat().st_size) and _recorded(folder).name != FINISHED


def record(command: str, options: TrainingOptions, data: Datasets, teachers: Sequence[str] = ()) -> dict[str, object]:
    """The content of options.json: all options, and hashes of the data and the teachers."""
    plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    plain |= plain.pop("member", {})
    if "devices" in plain:
        plain["devices"] = distributed.world_size()
    contents = [" ".join([one.facts.contents, *one.tables_with_labels]) for one in data]
    return {"command": command, **plain, "contents": contents} | (
        {"teacher_contents": list(teachers)} if teachers else {}
    )


def check_resumable(command: str, options: TrainingOptions, data: Datasets, teachers: Sequence[str] = ()) -> Changes:
    """The options that are changed on resuming; ValueError for options or data that must not change."""
    written = written_options(options.out)
    if not written or unsaved(options.out):
        return {}
    now, before = record(command, options, data, teachers), {**default_values(options), **written}
    if before.get("command") != command:
        raise ValueError(
            f"{options.out} is a run of 'ribcage {before.get('command')}', not of 'ribcage {command}'. "
            "Choose another --out."
        )
    names = [name for name in dict.fromkeys([*before, *now]) if name != "history" and before.get(name) != now.get(name)]
    if changed := [name for name in names if name not in FREE | ADJUSTABLE]:
        raise ValueError(
            f"The run in {options.out} was started with {options_text(changed, before)}, not with "
            f"{options_text(changed, now)}{changed_content(changed)}. "
            f"Resume it with the same options, or choose another --out."
        )
    was, wanted = before.get("epochs"), now.get("epochs")
    if "epochs" in names and not (isinstance(was, int) and isinstance(wanted, int) and was < wanted):
        raise ValueError(
            f"The run in {options.out} was started with --epochs {was}, not with --epochs {wanted}. When a run is "
            f"resumed, --epochs can only be increased."
        )
    return {
        name: (before.get(name), now[name])
        for name in names
        if name in ADJUSTABLE | EXECUTION | LOGGING and name in now
    }


def default_values(options: TrainingOptions) -> dict[str, object]:
    """Defaults of all options, for those that a run of an older version does not have."""
    defaults = {field.name: flags.field_default(field) for field in dataclasses.fields(options)}
    values = {name: default for name, default in defaults.items() if default is not flags.REQUIRED and name != "member"}
    plain: dict[str, object] = json.loads(json.dumps(values, default=str))
    return plain


def resume_command(command: str, options: TrainingOptions) -> str:
    """The command line that resumes a run, quoted for the shell. Options that a resumed run keeps are left out."""
    kept = {
        field.name: flags.field_default(field)
        for field in dataclasses.fields(options)
        if field.name in (*LEFT_OPEN, "epochs")
    }
    devices = distributed.world_size() if launch_variables.launched_here() else options.devices
    again = replace(options, **{**kept, "resume": True, "devices": devices})
    return shlex.join(["ribcage", command, *flags.option_line(sys.modules[type(options).__module__], again)])


def options_text(names: Sequence[str], values: Mapping[str, object]) -> str:
    """Options as typed on the command line; hashes of data are replaced by the names of the folders."""
    named = [{"contents": "data", "teacher_contents": "teacher"}.get(name, name) for name in names]
    words = [
        word
        for name in dict.fromkeys(named)
        if values.get(name) is not None
        for word in ([str(values[name])] if name == "command" else flags.option_words(name, values[name]))
    ]
    return shlex.join(words) or "their defaults"


def changed_content(names: Sequence[str]) -> str:
    """A remark in parentheses on options whose files have other content than before; "" without any."""
    other = " (with other images or labels)" if "contents" in names else ""
    return other + " (whose predictions differ)" * ("teacher_contents" in names)


def say(message: str | Message) -> None:
    """Print on rank 0."""
    if distributed.rank() == 0:
        print(message, flush=True)


def warn(text: str) -> None:
    """Print a warning on rank 0."""
    say(Message(text, warning=True))


# ---- state


@dataclass(frozen=True)
class RunPosition:
    """The epoch and step that a run is at."""

    epoch: int
    """Completed epochs."""
    epochs: int
    step: int
    steps: int


@dataclass(frozen=True)
class RunState:
    """Whether a run is running or how it ended, its position, and the reason if it ended early."""

    name: str
    place: RunPosition | None = None
    why: str = ""


@contextlib.contextmanager
def recorded_state(folder: Path, place: Callable[[], RunPosition]) -> Iterator[None]:
    """Record that the run in this folder is running and, at the end, how it ended. The caller holds the lock."""
    _write_state(folder, RunState(RUNNING, place()))
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit) as stop:
        _write_state(folder, RunState(STOPPED, place(), str(stop)))
        raise
    except BaseException as error:
        _write_state(folder, RunState(FAILED, place(), " ".join(f"{type(error).__name__}: {error}".split())))
        raise
    here = place()
    early = "" if here.step >= here.steps else "Early stopping by --patience."
    _write_state(folder, RunState(FINISHED, here, early))


def read_state(folder: Path) -> RunState:
    """The state of the run in this folder."""
    recorded = _recorded(folder)
    written = files.is_written(folder)
    if written:
        return RunState(RUNNING, recorded.place)
    if recorded.name != RUNNING:
        return recorded
    if (folder / WRITER).exists():  # a copy of a remote folder
        return RunState(RUNNING, recorded.place, "Running or killed; locks do not reach other machines.")
    if written is None:
        return RunState(RUNNING, recorded.place, "Running or killed; this system does not support locks.")
    return RunState(STOPPED, recorded.place, "Killed. --resume continues from the last checkpoint.")


def _recorded(folder: Path) -> RunState:
    """The content of state.json; a run without it and without a log ended before its first step."""
    try:
        values = files.read_json(folder / STATE_FILE)
        place = RunPosition(**values["place"]) if values["place"] else None
        if values["name"] not in STATES or (place and any(type(count) is not int for count in vars(place).values())):
            raise ValueError("the state of the run is invalid")
        return RunState(values["name"], place, str(values["why"]))
    except FileNotFoundError:
        log = folder / LOG_FILE
        if log.exists() and log.stat().st_size:
            return RunState(STOPPED, None, f"{STATE_FILE} is missing, so it is unknown how the run ended.")
        return RunState(FAILED, None, "The run ended before its first step.")
    except (OSError, ValueError, TypeError, KeyError):
        return RunState(STOPPED, None, f"{STATE_FILE} cannot be read.")


def _write_state(folder: Path, state: RunState) -> None:
    with (
        contextlib.suppress(OSError),
        files.atomic(folder / STATE_FILE) as part,
    ):  # a full disk must not hide the error
        part.write_text(json.dumps(asdict(state), ensure_ascii=False) + "\n", encoding="utf-8")
