"""Make radiographs up, look at them, train, test, pretrain: the first minutes, without any data of one's own.

Needs no network and no data. What it does is shown as commands, which can be typed one by one. Interrupted, it goes on
where it was.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHOD, OWN = "byol", {"hidden": 1024, "momentum": 0.98}
"""How the demo pretrains."""


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
    pretrain_epochs: int = 16
    """Times through them without looking at their labels; 0 leaves this part out."""


def run(options: Options) -> Path:
    """Import the phantom, inspect it, train, evaluate, see what pretraining buys; return the first report."""
    data = options.out / "phantom"
    make(options, data)
    sheet = look(options, data)
    model = train(options, data)
    report = test(options, data, model, options.out / "evaluation")
    pages = [sheet, report, *(pretrain(options, data) if options.pretrain_epochs else [])]
    print("\nOpen in a browser:", *(page.resolve().as_uri() for page in pages), sep="\n  ")
    return report


def make(options: Options, data: Path) -> None:
    """Made-up radiographs as a dataset folder."""
    from ribcage.commands import import_

    made = {"pictures": options.pictures, "seed": options.seed}
    given = import_.Options("phantom", out=data, size=options.size, member=made)
    show("import", import_, given)
    import_.run(given)


def look(options: Options, data: Path) -> Path:
    """What is in it, as a page."""
    from ribcage.commands import inspect

    sheet = options.out / "inspect.html"
    given = inspect.Options((str(data),), html=sheet)
    show("inspect", inspect, given)
    inspect.run(given)
    return sheet


def train(options: Options, data: Path) -> Path:
    """A model for its fourteen findings."""
    how: dict[str, Any] = {"epochs": options.epochs, "batch": 32, "lr": 2e-3, "seed": options.seed}
    return tune(data, options.out / "model", options.model, options.seen, "", ("crop=0.85,1.0",), how)


def tune(data: Path, out: Path, model: str, side: int, init: str, view: tuple[str, ...], how: dict[str, Any]) -> Path:
    """A model with random or with pretrained weights."""
    from ribcage.commands import finetune

    given = finetune.Options(data=(str(data),), out=out, model=model, init=init, size=(side,), view=view, **how)
    show("finetune", finetune, given)
    finetune.run(dataclasses.replace(given, resume=(out / "options.json").exists()))
    return out


def test(options: Options, data: Path, model: Path, out: Path) -> Path:
    """A model on patients it has never seen."""
    from ribcage.commands import evaluate

    given = evaluate.Options(model, (str(data),), out=out)
    show("evaluate", evaluate, given)
    evaluate.run(given)
    return out / "index.html"


def pretrain(options: Options, data: Path) -> list[Path]:
    """What a backbone that has seen the training pictures and no label is worth where few labels are known."""
    from ribcage.commands import compare
    from ribcage.commands import pretrain as pretraining

    out, model = options.out / "pretrained", "regnetx_002" if options.model == Options.model else options.model
    given = pretraining.Options(
        method=METHOD, data=(str(data),), out=out, model=model, size=(64,), batch=64, lr=2e-3, watch_every=8,
        epochs=options.pretrain_epochs, seed=options.seed, member=dict(OWN),
    )  # fmt: skip
    show("pretrain", pretraining, given)
    pretraining.run(dataclasses.replace(given, resume=(out / "options.json").exists()))
    tested = []
    for name, init in (("few", ""), ("few-pretrained", str(out))):
        how = {"epochs": 30, "batch": 32, "lr": 1e-3, "labels": 0.05, "seed": options.seed}
        tested.append(options.out / f"evaluation-{name}")
        test(options, data, tune(data, options.out / name, model, 64, init, (), how), tested[-1])
    asked = compare.Options(tuple(map(str, tested)), html=options.out / "pretraining.html")
    show("compare", compare, asked)
    compare.run(asked)
    return [out / "pictures.html", options.out / "pretraining.html"]


def show(name: str, module: Any, options: Any) -> None:
    """The command that does the same."""
    import shlex

    from ribcage import flags

    print(f"\n$ {shlex.join(['ribcage', name, *flags.words(module, options)])}", flush=True)
