"""The command line: `ribcage x` runs `commands/x.py`; a mistake is one line, `--debug` shows where an error arose."""

import ast
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ribcage import __version__
from ribcage.runtime import help_pages, launch_variables, resuming, signals, terminal, threads
from ribcage.runtime.flags import parse, read_flags
from ribcage.runtime.limits import UsageError
from ribcage.runtime.remote.addresses import with_addresses
from ribcage.runtime.remote.run_command import run_command
from ribcage.runtime.spelling import did_you_mean

SYNONYMS = {
    "train": "finetune", "fit": "finetune", "fine-tune": "finetune", "learn": "finetune", "classify": "finetune",
    "test": "evaluate", "eval": "evaluate", "validate": "evaluate", "score": "evaluate", "benchmark": "evaluate",
    "infer": "predict", "inference": "predict", "ask": "predict", "explain": "predict", "heatmap": "predict",
    "audit": "inspect", "check": "inspect", "describe": "inspect", "stats": "inspect", "leaks": "inspect",
    "load": "import", "prepare": "import", "ingest": "import", "preprocess": "import", "download": "import",
    "detect": "localise", "localize": "localise", "boxes": "localise", "distill": "distil", "ssl": "pretrain",
    "pre-train": "pretrain", "diff": "compare", "onnx": "export", "server": "serve", "deploy": "serve",
    "cost": "profile", "flops": "profile", "linear": "probe", "ls": "runs", "list": "runs", "status": "runs",
    "env": "doctor", "info": "doctor", "example": "demo", "tutorial": "demo", "reproduce": "run",
    "soup": "blend", "ensemble": "blend", "average": "blend",
    "search": "tune", "sweep": "tune", "hpo": "tune", "optimise": "tune", "optimize": "tune",
}  # fmt: skip
"""What others call a command."""
TRAINING = ("distil", "finetune", "localise", "pretrain")
"""Commands that train a model."""
PARALLEL = (*TRAINING, "evaluate")
"""Commands that may be started as several processes by torchrun, srun or Ray Train. All others would write the same
files once per process, and are refused; `tune` refuses it itself, with advice of its own."""
COMMANDS = Path(__file__).parent / "commands"
ALL_OPTIONS = "--help-all"
LONGEST = 1200
"""Characters of an error."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code: 0 done, 1 failed, 2 not understood, 3 done but for inputs that could
    not be read, 75 stopped by SIGTERM or SIGUSR1, 130 stopped by Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    threads.calm()
    _open_streams()
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets '?', not an error
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with terminal.guarded_streams():
        code = answered(words)
    if arguments is None and _can_be_resumed(words):  # the exit code is that of the command from now on
        signals.ignore()
    return code


def _open_streams() -> None:
    """A standard stream that was closed (`>&-`) leads nowhere: Python gives None for it, and the next file that is
    opened would take its number, and what a library prints."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def answered(words: list[str]) -> int:
    """Run a command line; its exit code."""
    own = [word for word in words if word != "--debug"]
    try:
        with signals.stoppable() if _can_be_resumed(own) else contextlib.nullcontext():
            return dispatch(own)
    except BrokenPipeError:  # `ribcage … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        if not _is_later_process():  # of several processes, the first prints it for all
            print(f"ribcage: stopped. {stop}".rstrip() + resume_line(stop), file=sys.stderr)
        return getattr(stop, "code", 130)
    except Exception as error:
        if "--debug" in words:
            raise
        same = hasattr(error, "echo") or (isinstance(error, UsageError) and _is_later_process())
        if not same:  # of several processes that raise the same error, one prints it
            print(f"ribcage: {error_line(error)}{resume_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _can_be_resumed(words: list[str]) -> bool:
    """Whether this is a command that signals stop with the exit code that asks for a restart, from its beginning on."""
    return bool({*words[:1]} & {*TRAINING, "import", "tune", "run"})


def resume_line(error: BaseException) -> str:
    """A further line, with the command that resumes the run that an error ended; "" where none does."""
    note = resuming.resume_note(error)
    return f"\n{terminal.plain_line(note)}" if note else ""


def error_line(error: Exception) -> str:
    """An error as one line. What is the user's to fix reads as written; anything else is a fault of Ribcage's.

    Of a line that a hostile file made endless the middle is left out.
    """
    text = terminal.plain_line(with_addresses(_told(error)))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} […] {text[-300:]}"


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, FileNotFoundError) and not _here():
        text = "The current folder no longer exists: change to another one."
    elif isinstance(error, FileNotFoundError) and " " not in text:
        text = f"{text} does not exist"
    if isinstance(error, ValueError | OSError | ImportError | MemoryError) and text:
        return text
    return f"{type(error).__name__}: {text} – this is a bug in Ribcage; --debug prints the traceback."


def _here() -> bool:
    """Whether the current folder is still there."""
    try:
        return Path.cwd().exists()
    except OSError:
        return False


def dispatch(words: list[str]) -> int:
    """Find the command and run it."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"ribcage {__version__}")
        return 0
    module = command(words[0])
    if asked := {"-h", "--help", ALL_OPTIONS} & set(words):
        rest = [word for word in words[1:] if word not in asked]
        print(help_pages.help_page(words[0], module, rest, everything=ALL_OPTIONS in asked))
        return 0
    _refuse_several_processes(words[0])
    options = parse(words[0], module, read_flags(module, words[1:]), words[1:])
    result = run_command(module, options)
    if hasattr(module, "exit_code"):
        return int(module.exit_code(options, result))
    return result if isinstance(result, int) else 0


def _refuse_several_processes(name: str) -> None:
    """UsageError if a launcher has started a command that runs as one process."""
    if name not in (*PARALLEL, "tune") and (processes := launch_variables.number_of_processes(1)) > 1:
        raise UsageError(
            f"A launcher started {processes} processes, but 'ribcage {name}' runs as one process. Run it without "
            f"torchrun or srun; only the commands {', '.join(PARALLEL)} can use several processes."
        )


def _is_later_process() -> bool:
    """Whether a launcher has started this process, and it is not the first."""
    with contextlib.suppress(ValueError):  # invalid variables are reported elsewhere
        return launch_variables.rank_before_start() > 0
    return False


def command_names() -> list[str]:
    """All commands."""
    return sorted(file.stem.rstrip("_") for file in COMMANDS.glob("*.py") if file.stem != "__init__")


def command_file(name: str) -> Path:
    """Where a command is written; `import` is a word of Python's own, so its file is import_.py."""
    plain = COMMANDS / f"{name}.py"
    return plain if plain.exists() else COMMANDS / f"{name}_.py"


def command(name: str) -> ModuleType:
    """The module of a command."""
    if name not in command_names():
        meant = SYNONYMS.get(name.lower())
        hint = f" Did you mean {meant!r}?" if meant else did_you_mean(name, command_names())
        raise UsageError(f"Unknown command {name!r}.{hint} Commands: {', '.join(command_names())}.")
    return importlib.import_module(f"ribcage.commands.{command_file(name).stem}")


def overview() -> str:
    """What `ribcage --help` prints."""
    import shutil
    import textwrap

    width = max(map(len, command_names())) + 2
    columns = min(max(60, shutil.get_terminal_size().columns), 120)
    rows = [
        textwrap.fill(
            command_summary(command_file(name)),
            columns,
            initial_indent=f"  {name:<{width}}",
            subsequent_indent=f"{'':{width + 2}}",
        )
        for name in command_names()
    ]
    lines = [
        "usage: ribcage COMMAND … [--help] [--debug]",
        "",
        "One tool for the whole life cycle of a chest-radiograph model. Research use only.",
        "",
        "commands:",
        *rows,
        "",
        "'ribcage COMMAND --help' explains a command; --help-all shows all of its options.",
        "--debug prints the traceback of an error; --version prints the version.",
    ]
    return "\n".join(lines)


def command_summary(file: Path) -> str:
    """The first line of a module's docstring, read without importing it."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]
