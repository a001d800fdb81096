"""Run every step on synthetic radiographs in minutes, from import to a served model.

The demo needs neither a network connection nor data. Each step is printed as a command, and a report, index.html, shows
the results. An interrupted demo continues where it stopped.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ribcage.reports.demo_steps import DemoProgress
    from ribcage.training.options import TrainingOptions

    Training = TypeVar("Training", bound=TrainingOptions)

METHOD, OWN = "mae_unet", {"mask_ratio": 0.5, "patch": 16, "width": 32}
"""How the demo pretrains: a masked autoencoder, whose reconstructions can be looked at."""
FEW = 0.1
"""Share of the training patients with labels, where few have any."""
STUDENT, SMALL = "eeea_net_c2", 48
"""A small model, and the side of its input."""
VIEW, MILD = ("crop=0.85,1.0",), ("crop=0.5,1.0", "flip=0", "rotation=5", "blur_probability=0")
QUICK = {"images": 480, "size": 128, "input_size": 32, "epochs": 4, "pretrain_epochs": 3, "distil_epochs": 1}
QUICK |= {"localise_epochs": 2}
"""Options of --quick, where they are not given."""


EXAMPLES = ("demo --out demo", "demo --quick --out demo")
GROUPS = {"serve": "Server"}


@dataclass(frozen=True)
class Options:
    """How much is made and trained, and where."""

    out: Path = Path("demo")
    """Output folder."""
    quick: bool = False
    """Use fewer images and epochs, to try every step quickly; the results are not meaningful."""
    images: int = 1800
    """Number of synthetic radiographs."""
    size: int = 256
    """Side length of the stored images in pixels."""
    seed: int = 0
    """Random seed of the radiographs and of training."""
    model: str = "test_resnet"
    """Architecture of the backbone (a timm name)."""
    input_size: int = 64
    """Input height and width in pixels."""
    epochs: int = 10
    """Epochs of fine-tuning."""
    pretrain_epochs: int = 8
    """Epochs of pretraining."""
    distil_epochs: int = 3
    """Epochs of distillation."""
    localise_epochs: int = 5
    """Epochs of detector training."""
    serve: bool = True
    """Serve the models after the last step until Ctrl-C is pressed, if the demo runs in a terminal."""
    port: int = 8000
    """Port of the server; 0 means any free port."""


def run(options: Options) -> Path:
    """Run every step that is not done yet, write the report, then serve."""
    import shlex
    import sys

    from ribcage.reports import demo
    from ribcage.runtime import flags, resuming

    again = shlex.join(["ribcage", "demo", *flags.option_line(sys.modules[__name__], options)])
    options = quickened(options)
    kept = {name: value for name, value in dataclasses.asdict(options).items() if name not in ("serve", "port")}
    progress = demo_progress(options.out, kept)
    for step in progress.steps:
        if progress.finished(step):
            print(f"{step.title}: already done.")
            continue
        print(f"\n{progress.line(step)}", flush=True)
        with progress.running(step) as record, resuming.resumed_instead_by(again):
            WORK[step.name](options, CommandLog(record.commands))
    page = demo.write_demo_page(progress)
    print(f"\nDemo report: {page.resolve().as_uri()}", flush=True)
    models = (options.out / "small-distilled", options.out / "boxes")
    if options.serve and sys.stdout.isatty():
        serve(options, models)
    return page


def quickened(options: Options) -> Options:
    """With --quick smaller values of the options that are not given."""
    if not options.quick:
        return options
    usual = vars(Options())
    less: dict[str, Any] = {name: value for name, value in QUICK.items() if getattr(options, name) == usual[name]}
    return dataclasses.replace(options, **less)


def demo_progress(folder: Path, options: dict[str, object]) -> "DemoProgress":
    """The steps, and about what share of the time each takes."""
    from ribcage.reports import demo
    from ribcage.reports.demo_steps import DemoProgress, DemoStep

    pages = "evaluation/phantom-test/index.html"
    return DemoProgress(
        folder,
        (
            DemoStep("make", "Generate synthetic radiographs", 36, ("phantom/dataset.json",)),
            DemoStep("inspect", "Audit the dataset", 4, ("inspect.html",)),
            DemoStep("train", "Train and test a classifier", 52, (f"model/{pages}",)),
            DemoStep("pretrain", "Pretrain without labels", 50, ("pretrained/images.html",)),
            DemoStep("few", "Fine-tune with few labels, from scratch and pretrained", 36, ("pretraining.json",)),
            DemoStep("distil", "Distil into EEEA-Net-C2", 75, ("distillation.json",)),
            DemoStep("localise", "Train and test a detector", 65, (f"boxes/{pages}",)),
            DemoStep("export", "Export for other runtimes", 15, (demo.EXPORTED,)),
            DemoStep("serve", "Send an image to the server", 20, (demo.SERVED,)),
        ),
        options,
    )


class CommandLog:
    """Prints the command of each step, and records it."""

    def __init__(self, commands: list[str]) -> None:
        self.commands = commands

    def __call__(self, name: str, module: ModuleType, options: object) -> None:
        """Print one command before it runs."""
        import shlex

        from ribcage.runtime import flags

        self.commands.append(shlex.join(["ribcage", name, *flags.option_line(module, options)]))
        print(f"\n$ {self.commands[-1]}", flush=True)


# ---- the parts


def make(options: Options, log: CommandLog) -> None:
    """Synthetic radiographs as a dataset folder."""
    from ribcage.commands import import_

    made: dict[str, object] = {"images": options.images, "seed": options.seed}
    given = import_.Options("phantom", out=data(options), size=options.size, member=made)
    log("import", import_, given)
    import_.run(given)


def look(options: Options, log: CommandLog) -> None:
    """An audit of it, as a page."""
    from ribcage.commands import inspect

    given = inspect.Options((str(data(options)),), html=options.out / "inspect.html")
    log("inspect", inspect, given)
    inspect.run(given)


def train(options: Options, log: CommandLog) -> None:
    """A classifier of fourteen findings, and its test on other patients."""
    tune(options, log, "model", options.model, options.input_size, epochs=options.epochs, batch=32, lr=3e-3, prior=True)
    test(options, log, "model")


def pretrain(options: Options, log: CommandLog) -> None:
    """A backbone pretrained on the training images without labels."""
    from ribcage.commands import pretrain as pretraining

    given = pretraining.Options(
        method=METHOD, data=(str(data(options)),), out=options.out / "pretrained", model=options.model,
        size=(options.input_size,), augment_options=MILD, batch=64, evaluate_every=8, optimizer="adamw", lr=3e-3,
        betas=(0.9, 0.999), weight_decay=0.05, warmup=1.0,
        epochs=options.pretrain_epochs, seed=options.seed, member=dict(OWN),
    )  # fmt: skip
    log("pretrain", pretraining, given)
    pretraining.run(resumed(given))


def few(options: Options, log: CommandLog) -> None:
    """What pretraining gains where few labels are known."""
    how = {"epochs": 20, "batch": 16, "lr": 1e-3, "labels": FEW, "validate_every": 5}
    for name, init in (("few", ""), ("few-pretrained", str(options.out / "pretrained"))):
        tune(options, log, name, options.model, options.input_size, init=init, **how)
        test(options, log, name)
    beside(options, log, ("few", "few-pretrained"), "pretraining")


def distil(options: Options, log: CommandLog) -> None:
    """A small model with few labels, alone and distilled from a larger one."""
    from ribcage.commands import distil as teaching

    how: dict[str, Any] = {"batch": 32, "lr": 3e-3, "labels": FEW, "seed": options.seed}
    long = 5 * options.distil_epochs
    tune(options, log, "small", STUDENT, SMALL, epochs=long, validate_every=5, **how)
    given = teaching.Options(
        data=(str(data(options)),), out=options.out / "small-distilled", teacher=(str(options.out / "model"),),
        model=STUDENT, size=(SMALL,), augment_options=VIEW, epochs=options.distil_epochs, **how,
    )  # fmt: skip
    log("distil", teaching, given)
    teaching.run(resumed(given))
    for name in ("small", "small-distilled"):
        test(options, log, name)
    beside(options, log, ("small", "small-distilled", "model"), "distillation")


def localise(options: Options, log: CommandLog) -> None:
    """A detector on the backbone of the classifier."""
    from ribcage.commands import localise as localising

    given = localising.Options(
        data=(str(data(options)),), out=options.out / "boxes", init=str(options.out / "model"), adapt="head",
        size=(options.input_size,), augment="plain", head_width=64, head_depth=2, batch=32, lr=2e-3,
        epochs=options.localise_epochs, seed=options.seed,
    )  # fmt: skip
    log("localise", localising, given)
    localising.run(resumed(given))
    test(options, log, "boxes", resamples=200)


def write_file(options: Options, log: CommandLog) -> None:
    """The small model as an ONNX file, where the packages for that are installed."""
    from ribcage.bundle import deployment
    from ribcage.commands import export

    if absent := deployment.missing_packages("onnx"):
        print(f"Skipped, because {', '.join(absent)} is missing (pip install 'ribcage[export]').")
        return
    given = export.Options(options.out / "small-distilled", data=(str(data(options)),), runs=2 if options.quick else 10)
    log("export", export, given)
    export.run(given)


def ask(options: Options, log: CommandLog) -> None:
    """A server, and its predictions for one uploaded image."""
    from ribcage.commands import serve as serving
    from ribcage.reports.demo_server import ask_server

    given = serving.Options((options.out / "small-distilled", options.out / "boxes"))
    if absent := serving.missing():
        print(f"Skipped, because {', '.join(absent)} is missing (pip install 'ribcage[serve]').")
        return
    log("serve", serving, given)
    ask_server(options.out, given.models)


WORK: dict[str, Callable[[Options, CommandLog], None]] = {
    "make": make, "inspect": look, "train": train, "pretrain": pretrain, "few": few, "distil": distil,
    "localise": localise, "export": write_file, "serve": ask,
}  # fmt: skip


# ---- what they share


def data(options: Options) -> Path:
    """The dataset folder."""
    return options.out / "phantom"


def resumed(given: "Training") -> "Training":
    """The same, resumed where a run was interrupted."""
    return dataclasses.replace(given, resume=(given.out / "options.json").exists())


def tune(options: Options, log: CommandLog, name: str, model: str, side: int, **options_of_run: object) -> None:
    """Fine-tune a model from random or pretrained weights."""
    from ribcage.commands import finetune

    how: dict[str, Any] = {"augment_options": VIEW, "seed": options.seed, **options_of_run}
    given = finetune.Options(data=(str(data(options)),), out=options.out / name, model=model, size=(side,), **how)
    log("finetune", finetune, given)
    finetune.run(resumed(given))


def test(options: Options, log: CommandLog, name: str, resamples: int = 1000) -> None:
    """Test a model on the test patients."""
    from ribcage.commands import evaluate

    given = evaluate.Options(options.out / name, (str(data(options)),), resamples=resamples)
    log("evaluate", evaluate, given)
    evaluate.run(given)


def beside(options: Options, log: CommandLog, names: tuple[str, ...], page: str) -> None:
    """Compare tested models: metrics and cost."""
    from ribcage.commands import compare

    models, file = tuple(str(options.out / name) for name in names), options.out / page
    given = compare.Options(models, html=file.with_suffix(".html"), json=file.with_suffix(".json"))
    log("compare", compare, given)
    compare.run(given)


def serve(options: Options, models: tuple[Path, ...]) -> None:
    """Serve the models until Ctrl-C."""
    from ribcage.commands import serve as serving

    if not serving.missing():
        serving.run(serving.Options(models, port=options.port))
