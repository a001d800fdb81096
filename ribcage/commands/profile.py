"""Measure the cost of models: parameters, multiply-adds, activation memory, and time on this CPU.

The arguments are names of architectures, run folders, or bundles. Multiply-adds are given both as counted by thop, for
comparison with papers, and in full, including the matrix products of attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from rich.console import Console

    from ribcage.bundle.cost import ModelCosts, Profile
    from ribcage.bundle.cost.subject import Subject

POSITIONAL = ("models",)
PLACES = {"models": Place.MODEL, "json": Place.FILE_OUT}
EXAMPLES = ("profile densenet121 eeea_net_c2", "profile runs/chexnet", "profile --list resnet")
GROUPS = {"size": "Model"}


@dataclass(frozen=True)
class Options:
    """What to profile, and how thoroughly."""

    models: tuple[str, ...] = ()
    """Names of architectures, run folders, or bundles."""
    list: bool = False
    """List the names of all architectures, or of those whose names contain one of MODELS, instead of profiling them."""
    baselines: bool = False
    """Also profile five published models, each with three input channels and with one input channel."""
    classes: int | None = None
    """Number of findings predicted by an architecture (default: 14)."""
    channels: Literal[1, 3] | None = None
    """Number of input channels of an architecture (default: 3, as in papers; other commands use 1)."""
    size: tuple[int, ...] = ()
    """Input height and width in pixels, or one number for both, for architectures and --baselines (default: 224)."""
    latency: bool = True
    """Measure the inference time in PyTorch and in ONNX Runtime."""
    threads: int = 0
    """Number of CPU threads; 0 means one per core."""
    runs: int = 10
    """Number of timed runs per model and batch size; the median is reported."""
    json: Path | None = None
    """Write all numbers to this JSON file."""


def run(options: Options) -> "Profile":
    """Count, measure, print, write; return the numbers."""
    from ribcage.bundle import cost
    from ribcage.runtime import progress

    if options.list:
        print("\n".join(listed(options.models)))
        return {"models": [], "threads": threads(options), "runs": 0, **cost.here()}
    check(options)
    subjects = chosen(options)
    models = [cost.counted(one) for one in subjects]
    show_counts(models)
    timing = cost.Timing(options.threads, options.runs) if options.latency else None
    first = {one.body: place for place, one in reversed(list(enumerate(subjects)))}
    for number, place in enumerate(sorted(first.values()), 1):
        with progress.working(f"measuring {models[place]['model']}, {number} of {len(first)}"):
            cost.measure(models[place], subjects[place], timing)
    result: Profile = {"models": models, "threads": threads(options), "runs": options.runs, **cost.here()}
    show_measured(result)
    write(options, result)
    return result


def listed(parts: Sequence[str]) -> Sequence[str]:
    """Names of the architectures that contain one of these parts; all names without parts."""
    from ribcage.models.catalogue import model_names

    names = [name for name in model_names() if not parts or any(part in name for part in parts)]
    if not names:
        raise ValueError(f"No architecture has {' or '.join(map(repr, parts))} in its name.")
    return names


def check(options: Options) -> None:
    """Raise one ValueError with everything that is wrong with the options."""
    from ribcage.runtime import limits

    given = {"--classes": options.classes, "--channels": options.channels, "--size": options.size}
    folders = [word for word in options.models if is_folder(word)]
    wrong = (
        []
        if options.models or options.baselines
        else ["MODELS is missing: pass names of architectures, run folders or bundles, or --baselines"]
    )
    wrong += [
        f"{flag} applies to names of architectures, not to the folder {folders[0]}"
        for flag in given
        if folders and given[flag]
    ]
    if options.baselines and not options.models:
        wrong += [
            f"{flag} applies to names of architectures; --baselines sets its own" for flag in FIXED if given[flag]
        ]
    if options.threads and not options.latency:
        wrong.append("--threads has no effect with --no-latency")
    wrong += [f"--classes {options.classes} must be at least 1"] * (options.classes is not None and options.classes < 1)
    wrong += [f"--channels {options.channels} must be 1 or 3"] * (options.channels not in (None, 1, 3))
    wrong += [text for word in options.models if not is_folder(word) and (text := strange(word))]
    wrong += [f"--runs {options.runs} must be at least 1"] * (options.runs < 1)
    limits.check_options(options, wrong)


def strange(word: str) -> str:
    """What is wrong with the name of a model."""
    from ribcage.models.catalogue import known_model

    try:
        known_model(word)
    except ValueError as error:
        return str(error).rstrip(".")
    return ""


def is_folder(word: str) -> bool:
    """Whether a word is a folder and not the name of an architecture."""
    return Path(word).is_dir() or "/" in word


def chosen(options: Options) -> "list[Subject]":
    """What is profiled, each once."""
    from ribcage.bundle import cost

    size = (options.size[0], options.size[-1]) if options.size else (224, 224)
    classes, channels = options.classes or 14, options.channels or 3
    found = [
        cost.Subject.of(Path(word)) if is_folder(word) else cost.Subject(word, classes, channels, size)
        for word in options.models
    ]
    return list(dict.fromkeys([*found, *(cost.famous(size) if options.baselines else ())]))


def threads(options: Options) -> int:
    """Number of CPU threads."""
    import torch

    return options.threads or torch.get_num_threads()


def wide() -> "Console":
    """A console that is wide enough for the tables."""
    from ribcage.runtime import terminal

    console = terminal.console()
    console.width = max(console.width, WIDTH)
    return console


def show_counts(models: "Sequence[ModelCosts]") -> None:
    """Print what is counted."""
    from ribcage.reports.console import print_table
    from ribcage.reports.html import Table

    print_table(wide(), Table(COUNTS, [counted(one) for one in models]))


def show_measured(result: "Profile") -> None:
    """Print what is measured on this machine."""
    from ribcage.reports.console import print_table
    from ribcage.reports.html import Table

    console = wide()
    measured = [one for one in result["models"] if one["memory"] is not None]
    timed = [batch["batch"] for batch in measured[0]["latency"]] if measured else []
    head = [*TAKEN, *(f"{kind} {batch}" for batch in timed for kind in ("eager", "exported"))]
    print_table(console, Table(head, [taken(one) for one in measured]))
    console.print(
        "MB is the peak activation memory per image in float32; MB to train is the memory kept for the backward pass."
    )
    if timed:
        processor = f"{result['threads']} thread{'s' * (result['threads'] > 1)} of {result['processor']}"
        sizes = " or ".join(map(str, timed))
        said = f"Latencies are in milliseconds for batches of {sizes}: medians of {result['runs']} runs on {processor}."
        console.print(said)
    for one in measured:
        if why := next((batch["why"] for batch in one["latency"]), ""):
            console.print(f"! The inference time of {one['model']} in ONNX Runtime was not measured: {why}")


FIXED = ("--classes", "--channels")
"""Options that --baselines ignores, since each model has its own."""
WIDTH = 112
"""Least columns of a table, so that no number is cut."""
COUNTS = ("model", "classes", "channels", "px", "parameters", "thop", "multiply-adds", "outside layers")
TAKEN = ("model", "channels", "px", "MB", "MB to train")


def counted(one: "ModelCosts") -> Sequence[object]:
    """The row of a model among the counts."""
    numbers = [f"{value:,}" for value in (one["parameters"], one["thop"], one["multiply_adds"], one["outside"])]
    return [one["model"], one["classes"], one["channels"], pixels(one), *numbers]


def taken(one: "ModelCosts") -> Sequence[object]:
    """The row of a model among the measurements."""
    memory = [f"{value / 1e6:.1f}" for value in (one["memory"] or {}).values()]
    times = [batch[kind] for batch in one["latency"] for kind in ("eager", "exported")]
    shown = ["–" if each is None else f"{each:.1f}" for each in times]
    return [one["model"], one["channels"], pixels(one), *memory, *shown]


def pixels(one: "ModelCosts") -> str:
    """224, or 224 × 192."""
    return " × ".join(map(str, dict.fromkeys(one["size"])))


def write(options: Options, result: "Profile") -> None:
    """Write all numbers as JSON."""
    import json

    from ribcage.runtime import files

    if options.json is None:
        return
    files.write_text(options.json, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    print(f"Wrote {address_text(options.json)}")
