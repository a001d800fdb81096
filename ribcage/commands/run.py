"""Run the steps of a recipe: import, train, evaluate.

'ribcage recipes' lists the recipes. --data takes imported datasets, and --download takes downloaded datasets, which are
imported first. Options of the training command, such as --epochs 1, can be added. Each step is printed as a command. An
interrupted recipe continues when the same command is run again.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place
from ribcage.runtime.remote.run_command import run_command

Value = TypeVar("Value")
POSITIONAL = ("name",)
PLACES = {
    "data": Place.DATASET,
    "download": Place.SOURCE,
    "out": Place.STEPS,
    "init": Place.WEIGHTS,
    "teacher": Place.PREDICTOR,
    "probe": Place.DATASET,
}
EXAMPLES = ("run small-moco --dry-run", "run chexnet-nih-densenet121 --data data/nih --out runs/chexnet")
GROUPS = {"download": "Data"}


@dataclass(frozen=True)
class Options:
    """Which recipe, on which data."""

    name: str
    """Name of a recipe, or a TOML file."""
    data: tuple[str, ...] = ()
    """Dataset folders, in the order of the recipe (default: those in the recipe)."""
    download: tuple[Path, ...] = ()
    """Downloaded folders or files to import first, in the order in which the recipe imports them."""
    out: Path | None = None
    """Run folder to write (default: the run folder in the recipe)."""
    dry_run: bool = False
    """Print the commands without running them."""
    member: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One command of a recipe, with its options."""

    command: str
    module: ModuleType
    options: Any
    trains: bool
    """Whether it is the training step of this recipe."""

    @property
    def text(self) -> str:
        """The command line."""
        import shlex

        from ribcage.runtime import flags

        return shlex.join(["ribcage", self.command, *flags.option_line(self.module, self.options)])


def member(name: str) -> Callable[..., None]:
    """The options of the step that trains, with the recipe's values as defaults."""
    from ribcage.runtime import flags

    (trains,) = (step for step in steps(name) if step.trains)
    own = {one.name for one in dataclasses.fields(Options)}
    known = [
        one
        for one in flags.read_flags(trains.module, flags.option_line(trains.module, trains.options))
        if not one.positional and one.name not in own and one.name != "resume"
    ]
    settled = {**getattr(trains.options, "member", {}), **vars(trains.options)}
    return flags.keyword_function(known, settled)


def run(options: Options) -> Path | int:
    """Run every step; return the run folder, or the exit code of a step that failed."""
    import shlex
    import sys

    from ribcage.runtime import flags, resuming

    again = shlex.join(["ribcage", "run", *flags.option_line(sys.modules[__name__], options)])
    todo = list(planned(options))
    check(options, todo)
    for step in todo:
        print(f"\n$ {step.text}", flush=True)
        if options.dry_run:
            continue
        if missing := absent(step):
            print(f"Skipped: {missing} does not exist.")
            continue
        with resuming.resumed_instead_by(again):
            result = run_command(step.module, resumed(step).options)
        if isinstance(result, int) and result:
            return result
    return next(step.options.out for step in todo if step.trains)


def steps(name: str) -> list[Step]:
    """The commands of a recipe."""
    import importlib

    from ribcage.runtime import flags, recipe

    found, one = [], recipe.read_recipe(name)
    if not one.commands:
        raise ValueError(
            f"The recipe {name} contains no command. Its first lines must contain one, such as "
            f"'#   ribcage finetune --recipe {name} …'."
        )
    for command, *words in one.commands:
        module = importlib.import_module(f"ribcage.commands.{'import_' if command == 'import' else command}")
        options = flags.parse(command, module, flags.read_flags(module, words), words)
        found.append(Step(command, module, options, trains=(command, *words) == one.training))
    return found


def planned(options: Options) -> Iterator[Step]:
    """The steps to run, with the folders and options of the command line."""
    every = steps(options.name)
    moved = moves(options, every)
    downloads = list(options.download)
    for step in every:
        if step.command == "import":
            if options.data or (kept(step) and not downloads):
                continue
            changed = {"root": downloads.pop(0)} if downloads else {}
            yield dataclasses.replace(step, options=dataclasses.replace(step.options, **changed))
            continue
        placed = {name: relocated(value, moved) for name, value in vars(step.options).items() if name != "member"}
        if options.data and len(options.data) != len(named(every)) and "data" in placed:
            placed["data"] = options.data
        if step.trains:
            known = {one.name for one in dataclasses.fields(step.options)} - {"member"}
            placed |= {name: value for name, value in options.member.items() if name in known}
            own = {name: value for name, value in options.member.items() if name not in known}
            placed |= {"member": {**step.options.member, **own}} if hasattr(step.options, "member") else {}
        yield dataclasses.replace(step, options=dataclasses.replace(step.options, **placed))


def named(every: list[Step]) -> list[str]:
    """The dataset folders that a recipe names, each once."""
    return list(dict.fromkeys(name for step in every for name in getattr(step.options, "data", ())))


def kept(step: Step) -> bool:
    """Whether the import of a downloaded dataset is complete already."""
    return step.options.root is not None and exists(step.options.out / "dataset.json")


def moves(options: Options, every: list[Step]) -> dict[str, str]:
    """Old name → new name of the folders that the recipe names."""
    found: dict[str, str] = {}
    if len(options.data) == len(named(every)):
        found |= dict(zip(named(every), options.data, strict=True))
    if options.out is not None:
        main = next(str(step.options.out) for step in every if step.trains)
        others = [step.options.out for step in every if step.command != "import" and getattr(step.options, "out", None)]
        found |= {str(other): f"{address_text(options.out)}-{other.name}" for other in others}
        found[main] = address_text(options.out)
    return found


def relocated(value: Value, moved: dict[str, str]) -> Value:
    """An option's value with its folders moved."""
    if isinstance(value, tuple):
        return type(value)(relocated(one, moved) for one in value)
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    for old, new in moved.items():
        if text == old or text.startswith(f"{old}/"):
            return type(value)(new + text[len(old) :])
    return value


def check(options: Options, todo: list[Step]) -> None:
    """Raise one ValueError with everything that the steps need and that is missing."""
    from ribcage.runtime import recipe

    wrong, made = [], {str(step.options.out) for step in todo if getattr(step.options, "out", None)}
    downloads = [step for step in steps(options.name) if step.command == "import" and step.options.root is not None]
    if len(options.download) > len(downloads):
        wrong.append(f"--download has {len(options.download)} values, but the recipe imports {len(downloads)}")
    if options.data and options.download:
        wrong.append("--data and --download cannot be combined: pass either imported or downloaded folders")
    for step in todo:
        if step.command == "import" and step.options.root is not None and not exists(step.options.root):
            wrong.append(
                f"{step.options.root} does not exist: pass --download FOLDER, or --data FOLDER after 'ribcage import "
                f"{step.options.dataset}'"
            )
        if not step.trains:
            continue
        wrong += [
            f"{one} does not exist: pass --data" for one in step.options.data if one not in made and not exists(one)
        ]
        for name in ("init", "teacher"):
            value = getattr(step.options, name, ())
            wrong += lacking(name, value if isinstance(value, tuple) else (value,), made, recipe.leaves)
    if wrong and not options.dry_run:
        raise ValueError("; ".join(wrong) + ".")


def lacking(option: str, values: tuple[str, ...], made: set[str], leaves: Callable[[str], str]) -> list[str]:
    """Missing initial weights or teachers, with the recipe that makes them."""
    missing = []
    for one in values:
        if one == "PRETRAINED":
            missing.append(f"--{option} is missing: pass a run folder or a weights file")
        elif (maker := leaves(one)) and one not in made and not exists(one):
            missing.append(f"{one} does not exist: create it with 'ribcage run {maker}', or pass --{option}")
    return missing


def absent(step: Step) -> str:
    """The first missing run of a comparison; "" if all are there."""
    runs = step.options.runs if step.command == "compare" else ()
    return next((one for one in runs if not exists(one)), "")


def resumed(step: Step) -> Step:
    """The step; with --resume where its run was begun before."""
    if hasattr(step.options, "resume") and exists(step.options.out / "options.json"):
        return dataclasses.replace(step, options=dataclasses.replace(step.options, resume=True))
    return step


def exists(place: Path | str) -> bool:
    """Whether there is a file or folder, local or remote."""
    from ribcage.runtime.remote import objects

    return objects.is_there(place)
