"""Make radiographs up, look at them, train on them, test the model: the first minutes, without any data of one's own.

Needs no network and no data. What it does is shown as commands, which can be typed one by one. Interrupted, it goes on
where it was.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """How much to make, and where."""

    out: Path = Path("demo")
    """The folder for everything the demo makes."""
    pictures: int = 3000
    """How many radiographs to make up."""
    size: int = 256
    """Their side in pixels."""
    seed: int = 0
    """Another seed, other patients."""
    model: str = "resnet10t"
    """What to train."""
    seen: int = 80
    """Side of what the model sees."""
    epochs: int = 12
    """Times through the training pictures."""


def run(options: Options) -> Path:
    """Import the phantom, inspect it, train, evaluate; return the report."""
    data = options.out / "phantom"
    make(options, data)
    sheet = look(options, data)
    model = train(options, data)
    report = test(options, data, model)
    print(f"\nOpen in a browser:\n  {sheet.resolve().as_uri()}\n  {report.resolve().as_uri()}")
    return report


def make(options: Options, data: Path) -> None:
    """Made-up radiographs as a dataset folder."""
    from ribcage.commands import import_

    made = {"pictures": options.pictures, "seed": options.seed}
    flags = " ".join(f"--{name} {value}" for name, value in made.items())
    step(f"ribcage import phantom --out {quoted(data)} --size {options.size} {flags}")
    import_.run(import_.Options("phantom", out=data, size=options.size, member=made))


def look(options: Options, data: Path) -> Path:
    """What is in it, as a page."""
    from ribcage.commands import inspect

    sheet = options.out / "inspect.html"
    step(f"ribcage inspect {quoted(data)} --html {quoted(sheet)}")
    inspect.run(inspect.Options((str(data),), html=sheet))
    return sheet


def train(options: Options, data: Path) -> Path:
    """A model for its fourteen findings."""
    from ribcage.commands import finetune

    out = options.out / "model"
    how: dict[str, Any] = {"epochs": options.epochs, "batch": 32, "lr": 2e-3, "seed": options.seed}
    view = ("crop=0.85,1.0",)
    flags = " ".join(f"--{name} {value}" for name, value in how.items())
    shape = f"--model {options.model} --size {options.seen} --view {view[0]} {flags}"
    step(f"ribcage finetune --data {quoted(data)} --out {quoted(out)} {shape}")
    begun = (out / "checkpoint.pt").exists()
    given = finetune.Options((str(data),), out, options.model, size=(options.seen,), view=view, resume=begun)
    finetune.run(dataclasses.replace(given, **how))
    return out


def test(options: Options, data: Path, model: Path) -> Path:
    """The model on patients it has never seen."""
    from ribcage.commands import evaluate

    out = options.out / "evaluation"
    step(f"ribcage evaluate {quoted(model)} --data {quoted(data)} --split test --out {quoted(out)}")
    evaluate.run(evaluate.Options(model, (str(data),), out=out))
    return out / "index.html"


def quoted(path: Path) -> str:
    """A path as it must be typed."""
    import shlex

    return shlex.quote(str(path))


def step(command: str) -> None:
    """Show the command that does the same."""
    print(f"\n$ {command}", flush=True)
