"""Pretrain a backbone, mostly without labels; finetune, probe or timm then start from its weights.

'ribcage pretrain METHOD --help' shows the options of a method. The run folder holds the options, a log line per step, a
checkpoint, the backbone as `bundle/` and a page of example images. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before
the program ends; --resume continues from it, also in the middle of an epoch.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ribcage.models.hyperparameters import told
from ribcage.training.options import ASKED, Course

if TYPE_CHECKING:
    from ribcage.data.collection import Datasets

if TYPE_CHECKING:
    from ribcage.methods import Method

POSITIONAL = ("method",)
EXAMPLES = (
    "pretrain moco --data data/nih --model resnet50 --out runs/moco",
    "pretrain mae --data data/nih data/chexpert --model vit_base_patch16_224 --out runs/mae",
)


@dataclass(frozen=True, kw_only=True)
class Options(Course):
    """Options of pretraining."""

    method: str
    """Pretraining method."""
    model: str = "resnet50"
    """Architecture: a timm model or one of Ribcage's own."""
    findings: tuple[str, ...] = ()
    """Findings to train on, for methods that use labels (default: all findings of the data)."""
    pool: str = ""
    """Pooling of features, by timm's names: avg, token … (default: avg after mae, else the model's own)."""
    epochs: int | None = None  # type: ignore[assignment]  # until it is settled
    """Training epochs."""
    batch: int = 256
    """Batch size: images per optimizer step, over all processes."""
    train: tuple[str, ...] = ("train",)
    """Splits to train on."""
    share: tuple[float, ...] = ()
    """Fraction of a batch from each dataset (default: in proportion to its size)."""
    augment: Literal["radiograph", "paper"] = "radiograph"
    """Augmentation preset: one for radiographs, or the paper's for photographs, without colour."""
    probe: tuple[str, ...] = ()
    """Labelled dataset folders for a linear probe and kNN during training."""
    watch_every: int = 10
    """Epochs between two evaluations of the features, each of which also saves the bundle."""
    log_format: Literal["bar", "moco"] = "bar"
    """Format of the log: a progress bar, or moco: a line every ten steps as the authors' code prints it."""
    member: dict[str, Any] = field(default_factory=dict)


def members() -> tuple[str, ...]:
    """The methods there are."""
    from ribcage import methods

    return methods.pretraining()


def member(name: str) -> "type[Method]":
    """The class whose keywords are the method's own options."""
    from ribcage import methods

    kind = methods.load(name)
    if kind.command != "pretrain":
        raise ValueError(f"{name} is not a pretraining method: train it with 'ribcage {kind.command}'.")
    return kind


def member_file(name: str) -> Path:
    """The source of a method."""
    return Path(__file__).parents[1] / "methods" / f"{name}.py"


def defaults(method: str = "") -> dict[str, str]:
    """What options become that are left open, for the help page: what the method's paper says."""
    if not method:
        return dict.fromkeys(("epochs", *ASKED), "the method's: ribcage pretrain METHOD --help")
    return told(member(method).published(None, Options.batch))


def settled(options: Options) -> Options:
    """The options with all that they leave open as the method's paper has it, or as the run to go on with was begun."""
    from ribcage.training import options as course

    kind = member(options.method)
    epochs = course.begun(options, ["epochs"]).get("epochs") if options.epochs is None else options.epochs
    published = kind.published(epochs, options.batch)
    own = {**published.own, **course.begun(options, tuple(published.own)), **options.member}
    whole = dataclasses.replace(options, epochs=published.epochs if epochs is None else epochs, member=own)
    return course.settled(whole, published)


def run(options: Options) -> Any:
    """Build, train, say what came of it; return the run folder."""
    import sys

    from ribcage.training import options as course

    return course.run("pretrain", sys.modules[__name__], settled(options), train)


def train(options: Options, device: Any) -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import options as course
    from ribcage.training import run_folder
    from ribcage.training.monitor import before
    from ribcage.training.run import Plan, Training

    check(options)
    data = Datasets.open(options.data)
    selection.distinct(data)
    if options.resume:
        run_folder.check_same("pretrain", options, data)
    rows, said = course.rows(options, data, *options.train)
    run_folder.say(f"{said}.")
    model, findings = describe(options, data, rows)
    run = build(options, data, rows, model, findings, device)
    course.check_layout(options, run.method, model)
    monitor = watcher(options, run, data, rows, model, device)
    keep = keeper(options, run, data, rows, model, monitor)
    plan = Plan("", options.save_minutes, options.watch_every)
    training = Training(run, options.out, plan, looking(monitor), keep)
    with run_folder.going("pretrain", options, training, data, facts=model.training):
        monitor.found += before(options.out / "metrics.jsonl")
        watch(options, training, monitor)
        if distributed.rank() == 0:
            report(options, run, data, rows, model, monitor)
    return options.out


def check(options: Options) -> None:
    """All that is wrong with the options, at once."""
    from ribcage import methods
    from ribcage.runtime import limits
    from ribcage.training import options as course

    kind = methods.load(options.method)
    wrong = limits.faults(options)
    if not kind.divisible and course.parts(options, options.batch) > 1:
        wrong.append(
            f"{options.method} compares the images of a whole batch: it cannot be computed in parts of "
            f"--micro-batch {options.micro_batch}; take a smaller --batch, or more processes"
        )
    if options.share and len(options.share) != len(options.data):
        wrong.append(f"--share has {len(options.share)} numbers for {len(options.data)} data sets")
    if any(share < 0 for share in options.share) or (options.share and not sum(options.share)):
        wrong.append("--share takes numbers of 0 or more, one of them above 0")
    if not kind.from_labels and (options.findings or options.policy != Options.policy):
        wrong.append(f"{options.method} looks at no label: --findings and --policy do not go with it")
    if wrong:
        raise ValueError("; ".join(wrong) + ".")


def describe(options: Options, data: "Datasets", rows: Any) -> tuple[Any, tuple[str, ...]]:
    """The facts of the backbone to be, and the findings it learns from."""
    import numpy as np

    from ribcage import methods
    from ribcage.bundle.init import data_sources, initial_normalisation, initial_pool
    from ribcage.bundle.spec import ModelSpec
    from ribcage.data import dataset_folder, selection
    from ribcage.models.backbone import GRAY
    from ribcage.training import options as course

    findings = course.findings(options, data)
    learnt = findings if methods.load(options.method).from_labels else ()
    if methods.load(options.method).from_labels and not learnt:
        raise ValueError(f"{options.method} needs labels, and {', '.join(options.data)} has none.")
    scales = [(one.mean, one.std) for one in data]
    common = np.average(scales, axis=0, weights=shares(options, data, rows)).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else common)
    counts = {"images": len(rows), "patients": selection.known_patients(data, rows)}
    facts = {"method": options.method, **counts, "selection": 0, "scales": scales, "learnt": learnt}
    return ModelSpec(
        name=options.model,
        findings=(),
        size=(options.size[0], options.size[-1]),
        stored=data[0].size,
        fit=data[0].facts.fit,
        mean=mean,
        std=std,
        channels=options.channels,
        pool=options.pool or initial_pool(options.init) or ("avg" if options.method == "mae" else ""),
        data=data_sources(data, options.init),
        training=json.loads(json.dumps({**facts, "options": course.written(options)})),
        versions=dataset_folder.versions(),
    ), learnt


def shares(options: Options, data: "Datasets", rows: Any) -> Any:
    """Each data set's share of what is seen."""
    import numpy as np

    return options.share or np.bincount(data.source(rows), minlength=len(data))


def build(options: Options, data: "Datasets", rows: Any, model: Any, findings: tuple[str, ...], device: Any) -> Any:
    """The run: method, batches, optimizer, learning rates."""
    import torch

    from ribcage import methods
    from ribcage.bundle.init import initial_backbone
    from ribcage.training import options as course

    torch.manual_seed(options.seed)
    kind = methods.load(options.method)
    method = kind(initial_backbone(model, options.init, options.drop_path), findings, **options.member)
    loader = loader_of(options, data, rows, model, method, device)
    if wrong := method.faults(len(rows), options.batch):
        raise ValueError("; ".join(wrong) + ".")
    method.count(torch.from_numpy(loader.labels(0, rows)))
    return course.begin(options, method, loader, device)


def loader_of(options: Options, data: "Datasets", rows: Any, model: Any, method: Any, device: Any) -> Any:
    """What shows the images; each data set by its own mean and spread, unless weights expect another."""
    from ribcage.data.findings import Policy
    from ribcage.imaging import augment
    from ribcage.training import options as course

    return course.loader(
        options,
        data,
        [augment.changed_view(view, options.view) for view in method.views(model.size, options.augment)],
        rows,
        model,
        device,
        findings=method.findings,
        policy=Policy.parse(options.policy, method.findings),
        weights=options.share or None,
        same_patient=bool(options.member.get("patient_aware")) and method.same_patient,
        drop_last=True,
        normalise=(model.mean, model.std) if options.init else None,
    )


def watcher(options: Options, run: Any, data: "Datasets", rows: Any, model: Any, device: Any) -> Any:
    """What looks at the features every few epochs."""
    from ribcage.data.collection import Datasets
    from ribcage.training import monitor, run_folder

    labelled = None
    if options.probe:
        opened = Datasets.open(options.probe)
        if "val" in options.train:
            run_folder.say(
                "! The probe is evaluated on the val split, which is also used for pretraining: its results are "
                "optimistic."
            )
        labelled = monitor.Labelled(opened, opened.rows_of("train"), opened.rows_of("val"))
    return monitor.Monitor(
        lambda: run.method,
        data,
        rows,
        size=model.size,
        device=device,
        labelled=labelled,
        channels=model.channels,
        normalise=run.loader.normalise,
        threads=options.threads or None,
    )


def looking(monitor: Any) -> Callable[[], dict[str, float]]:
    """A look at the features that says when they have collapsed."""
    from ribcage.training import run_folder

    def look() -> dict[str, float]:
        found: dict[str, float] = monitor()
        if warning := monitor.warning():
            run_folder.say(f"! {warning}")
        return found

    return look


def keeper(options: Options, run: Any, data: "Datasets", rows: Any, model: Any, monitor: Any) -> Callable[[], None]:
    """What stores the backbone as it is."""
    from ribcage.bundle.init import initial_provenance
    from ribcage.bundle.io import save_bundle
    from ribcage.data.provenance import Provenance

    provenance = Provenance.of(data, rows, rows[:0]) | initial_provenance(options.init)

    def keep() -> None:
        found = dataclasses.replace(model, metrics={"features": monitor.found[-1]})
        save_bundle(options.out / "bundle", run.method, found, provenance)

    return keep


def watch(options: Options, training: Any, monitor: Any) -> None:
    """Train, and show how it goes."""
    from ribcage.training import run_folder
    from ribcage.training.log_formats import MoCoLines

    if options.log_format == "moco":
        lines = MoCoLines()
        for log in training.steps():
            lines.show(log)
        return

    def note(log: Any) -> str:
        values = {"loss": log.loss, **log.values, **(monitor.found[-1] if monitor.found else {})}
        return ", ".join(f"{name} {value:.4g}" for name, value in values.items())

    run_folder.watch(training, options.batch, note)


def report(options: Options, run: Any, data: "Datasets", rows: Any, model: Any, monitor: Any) -> None:
    """Images, the other layout if one was asked for, and what to do next."""
    import shlex

    from ribcage.reports import pretraining
    from ribcage.training import options as course

    page = pretraining.write_pretraining_page(
        options.out,
        run.method,
        data,
        rows,
        model,
        title=f"{options.method} · {options.model}",
        normalise=run.loader.normalise,
        threads=options.threads or None,
    )
    print("Features: " + ", ".join(f"{name} {value:.3f}" for name, value in monitor.found[-1].items()) + ".")
    print(f"The backbone is {options.out / 'bundle'}, images are in {page}.")
    if options.export_as:
        course.export(options, run.method, model)
    folders, size = shlex.join(options.probe or options.data), " ".join(map(str, options.size))
    out = shlex.quote(str(options.out))
    shape = f"--model {options.model} --size {size}" + (" --channels 3" if options.channels == 3 else "")
    print(f"Try its features: ribcage probe {out} --data {folders}")
    print(f"Fine-tune it: ribcage finetune {shape} --init {out} --data {folders} --out …")
