"""Make radiographs up, look at them, train, test, pretrain, distil, localise: a first look, without data of one's own.

Needs no network and no data. What it does is shown as commands, which can be typed one by one. Interrupted, it goes on
where it was.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHOD, OWN = "moco", {"queue": 512, "momentum": 0.99, "temperature": 0.1}
"""How the demo pretrains."""
FEW = 0.1
"""Share of the training patients whose labels are known where few are."""
STUDENT, SMALL = "test_byobnet", 48
"""A small model, and the side of what it sees."""
VIEW, MILD = ("crop=0.85,1.0",), ("crop=0.5,1.0", "flip=0", "rotation=5", "blur_probability=0")


@dataclass(frozen=True)
class Options:
    """How much to make, and where."""

    out: Path = Path("demo")
    """The folder for everything the demo makes."""
    pictures: int = 2400
    """How many radiographs to make up."""
    size: int = 256
    """Their side in pixels."""
    seed: int = 0
    """Another seed, other patients."""
    model: str = "test_resnet"
    """What to train."""
    seen: int = 64
    """Side of what the model sees."""
    epochs: int = 10
    """Times through the training pictures."""
    pretrain_epochs: int = 12
    """Times through them without looking at their labels; 0 leaves this part out."""
    distil_epochs: int = 6
    """Times that a small model is taught them by the first one; 0 leaves this part out."""
    localise_epochs: int = 8
    """Times that a detector on the frozen first model sees them; 0 leaves this part out."""


def run(options: Options) -> Path:
    """All of it, one command after the other; what the trained model is worth comes back as the first report."""
    data = options.out / "phantom"
    make(options, data)
    sheet = look(options, data)
    model = train(options, data)
    report = test(data, model)
    pages = [sheet, report, *(pretrain(options, data) if options.pretrain_epochs else [])]
    pages += [distil(options, data, model)] if options.distil_epochs else []
    pages += [localise(options, data, model)] if options.localise_epochs else []
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
    how: dict[str, Any] = {"epochs": options.epochs, "batch": 32, "lr": 3e-3, "seed": options.seed}
    return tune(data, options.out / "model", options.model, options.seen, "", VIEW, how)


def tune(data: Path, out: Path, model: str, side: int, init: str, view: tuple[str, ...], how: dict[str, Any]) -> Path:
    """A model with random or with pretrained weights."""
    from ribcage.commands import finetune

    given = finetune.Options(data=(str(data),), out=out, model=model, init=init, size=(side,), view=view, **how)
    show("finetune", finetune, given)
    finetune.run(dataclasses.replace(given, resume=(out / "options.json").exists()))
    return out


def test(data: Path, model: Path) -> Path:
    """A model on patients it has never seen."""
    from ribcage.commands import evaluate

    given = evaluate.Options(model, (str(data),))
    show("evaluate", evaluate, given)
    evaluate.run(given)
    return model / "evaluation" / f"{data.name}-{given.split}" / "index.html"


def pretrain(options: Options, data: Path) -> list[Path]:
    """What a backbone that has seen the training pictures and no label is worth where few labels are known."""
    from ribcage.commands import pretrain as pretraining

    out = options.out / "pretrained"
    given = pretraining.Options(
        method=METHOD, data=(str(data),), out=out, model=options.model, size=(options.seen,), view=MILD, batch=64,
        lr=3e-3, weight_decay=0.05, watch_every=8, epochs=options.pretrain_epochs, seed=options.seed, member=dict(OWN),
    )  # fmt: skip
    show("pretrain", pretraining, given)
    pretraining.run(dataclasses.replace(given, resume=(out / "options.json").exists()))
    tuned = []
    for name, init in (("few", ""), ("few-pretrained", str(out))):
        how = {"epochs": 20, "batch": 16, "lr": 1e-3, "labels": FEW, "validate_every": 5, "seed": options.seed}
        tuned.append(tune(data, options.out / name, options.model, options.seen, init, VIEW, how))
        test(data, tuned[-1])
    return [out / "pictures.html", beside(tuned, options.out / "pretraining.html")]


def distil(options: Options, data: Path, teacher: Path) -> Path:
    """What a small model with few labels learns from a larger one that speaks of all pictures."""
    from ribcage.commands import distil as teaching

    how: dict[str, Any] = {"batch": 32, "lr": 2e-3, "labels": FEW, "seed": options.seed}
    alone = tune(
        data,
        options.out / "small",
        STUDENT,
        SMALL,
        "",
        VIEW,
        {**how, "epochs": 5 * options.distil_epochs, "validate_every": 5},
    )
    given = teaching.Options(
        data=(str(data),), out=options.out / "small-taught", teacher=(str(teacher),), model=STUDENT, size=(SMALL,),
        view=VIEW, epochs=options.distil_epochs, **how,
    )  # fmt: skip
    show("distil", teaching, given)
    teaching.run(dataclasses.replace(given, resume=(given.out / "options.json").exists()))
    for one in (alone, given.out):
        test(data, one)
    return beside([alone, given.out, teacher], options.out / "distillation.html")


def localise(options: Options, data: Path, model: Path) -> Path:
    """Where findings are, by a detector on what the first model has learnt; the pictures with true and found boxes."""
    from ribcage.commands import localise as localising

    given = localising.Options(
        data=(str(data),), out=options.out / "boxes", init=str(model), freeze="backbone", size=(options.seen,),
        augment="plain", width=64, depth=2, batch=32, lr=2e-3, epochs=options.localise_epochs, seed=options.seed,
    )  # fmt: skip
    show("localise", localising, given)
    localising.run(dataclasses.replace(given, resume=(given.out / "options.json").exists()))
    return test(data, given.out)


def beside(models: list[Path], page: Path) -> Path:
    """Tested models compared on a page: how good they are, and what they cost."""
    from ribcage.commands import compare

    given = compare.Options(tuple(map(str, models)), html=page)
    show("compare", compare, given)
    compare.run(given)
    return page


def show(name: str, module: Any, options: Any) -> None:
    """The command that does the same."""
    import shlex

    from ribcage import flags

    print(f"\n$ {shlex.join(['ribcage', name, *flags.words(module, options)])}", flush=True)
