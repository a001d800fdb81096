"""Pretrain a backbone, with or without labels, for `finetune`, `localise`, `probe` or timm.

'ribcage pretrain METHOD --help' shows the options of a method. The run folder holds the options, a log line per step, a
checkpoint, the backbone in `bundle/`, and a report with curves and example images. Ctrl-C, SIGTERM and SIGUSR1 save a
checkpoint before the program ends; --resume continues from it, also in the middle of an epoch.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.models.hyperparameters import default_texts
from ribcage.runtime.remote.places import Place
from ribcage.training.options import LEFT_OPEN, TrainingOptions, as_json, earlier_values, with_defaults

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ribcage.bundle.spec import ModelSpec
    from ribcage.data.collection import Datasets
    from ribcage.data.loader import Loader
    from ribcage.imaging.augment import View
    from ribcage.methods import Method
    from ribcage.training.monitor import Monitor
    from ribcage.training.run import Run
    from ribcage.training.step_log import StepLog
    from ribcage.training.tracking import Tracking
    from ribcage.training.trainer import Trainer

POSITIONAL = ("method",)
PLACES = {
    "data": Place.DATASET,
    "init": Place.WEIGHTS,
    "teacher": Place.PREDICTOR,
    "probe": Place.DATASET,
    "out": Place.FOLDER_OUT,
}
EXAMPLES = (
    "pretrain moco --data data/nih --model resnet50 --out runs/moco",
    "pretrain mae --data data/nih data/chexpert --model vit_base_patch16_224 --out runs/mae",
)


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Options of pretraining."""

    method: str
    """Pretraining method."""
    model: str = "resnet50"
    findings: tuple[str, ...] = ()
    """Findings whose labels are used, for methods that use labels (default: all findings in the data)."""
    teacher: str = ""
    """Frozen teacher of eva: a run folder or bundle of a vision transformer, such as one made by 'ribcage convert'."""
    pool: str = ""
    """Global pooling: a timm pool type, such as avg or token (default: avg for eva, ijepa, mae, else the model's)."""
    epochs: int | None = None  # type: ignore[assignment]  # until it is settled
    """Training epochs."""
    batch: int = 256
    """Batch size: images per optimizer step, summed over all processes."""
    train: tuple[str, ...] = ("train",)
    """Splits to train on."""
    data_weights: tuple[float, ...] = ()
    """Sampling weight of each dataset (default: in proportion to its size)."""
    augment: Literal["radiograph", "paper"] = "radiograph"
    """Augmentation preset: radiograph (suited to radiographs), or paper (as in the paper of the method, but without
    colour augmentation)."""
    probe: tuple[str, ...] = ()
    """Labelled dataset folders for evaluating the features during training (linear probe and k nearest neighbours)."""
    evaluate_every: int = 10
    """Evaluate the features every N epochs; each evaluation also saves the bundle."""
    log_format: Literal["bar", "moco"] = "bar"
    """Progress format on the terminal: bar, or moco (a line every ten steps, as in MoCo's published code)."""
    member: dict[str, object] = field(default_factory=dict)


def members() -> tuple[str, ...]:
    """The methods there are."""
    from ribcage import methods

    return methods.pretraining()


def member(name: str) -> "type[Method]":
    """The class whose keywords are the method's own options."""
    from ribcage import methods

    kind = methods.load_method(name)
    if kind.command != "pretrain":
        raise ValueError(f"{name} is not a pretraining method. Use it with 'ribcage {kind.command}'.")
    return kind


def member_file(name: str) -> Path:
    """The source of a method."""
    return Path(__file__).parents[1] / "methods" / f"{name}.py"


def defaults(method: str = "") -> dict[str, str]:
    """The defaults of options that are left open, for the help: those of the method's paper."""
    if not method:
        return dict.fromkeys(("epochs", *LEFT_OPEN), "depends on METHOD")
    known = member(method)
    return default_texts(known.published(None, Options.batch), known.hyperparameters)


def settled(options: Options) -> Options:
    """The options with all that is left open filled in: from the run that is resumed, else as published."""

    kind = member(options.method)
    earlier = earlier_values(options, ["epochs"]).get("epochs") if options.epochs is None else options.epochs
    epochs = earlier if isinstance(earlier, int) else None
    published = kind.published(epochs, options.batch)
    own = {**published.own, **earlier_values(options, tuple(published.own)), **options.member}
    whole = dataclasses.replace(options, epochs=published.epochs if epochs is None else epochs, member=own)
    return with_defaults(whole, published)


def run(options: Options) -> Path | int:
    """Pretrain a backbone; the run folder, or an exit code of several processes."""
    import sys

    from ribcage.training import run_folder, setup

    options = settled(run_folder.with_resume(options))
    return setup.run_processes("pretrain", sys.modules[__name__], options, train, wrong(options))


def train(options: Options, device: "torch.device") -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import chosen_rows, metrics_log, run_folder, setup
    from ribcage.training.run import Plan, Run, opened_run
    from ribcage.training.teachers import opening

    data = Datasets.open(options.data)
    selection.distinct(data)
    hashes = opening.content_hashes([options.teacher]) if options.teacher else []
    if options.resume:
        run_folder.check_resumable("pretrain", options, data, hashes)
    rows, said = chosen_rows.training_rows(options, data, *options.train)
    run_folder.say(f"{said}.")
    model, findings = describe(options, data, rows)
    trainer = build(options, data, rows, model, findings, device)
    setup.check_layout(options, trainer.result, model)
    monitor = watcher(options, trainer, data, rows, model, device)
    keep = keeper(options, trainer, data, rows, model, monitor)
    plan = Plan("", options.save_minutes, options.evaluate_every)
    run = Run(trainer, options.out, plan, monitor.warned(run_folder.warn), keep)
    with opened_run("pretrain", options, run, data, hashes):
        monitor.found += metrics_log.validations(metrics_log.read_log(options.out / metrics_log.LOG_FILE))
        fit(options, run, monitor)
        if distributed.rank() == 0:
            report(options, trainer, data, rows, model, monitor, run.tracking)
    return options.out


def wrong(options: Options) -> list[str]:
    """Options that do not go together."""
    from types import SimpleNamespace

    from ribcage import methods
    from ribcage.runtime import launch_variables, limits
    from ribcage.runtime.spelling import count_phrase
    from ribcage.training import micro_batches, setup

    kind = methods.load_method(options.method)
    wrong, processes = setup.loader_faults(options), launch_variables.number_of_processes(options.devices)
    if options.batch > 0 and micro_batches.accumulation_steps(options, options.batch, processes) > 1:
        wrong += kind.faults_of_parts(options.micro_batch)
    wrong += kind.faults_of_teacher(options.teacher)
    if options.data_weights and len(options.data_weights) != len(options.data):
        datasets = count_phrase(len(options.data), "dataset")
        wrong.append(f"--data-weights has {len(options.data_weights)} numbers for {datasets}")
    if any(share < 0 for share in options.data_weights) or (options.data_weights and not sum(options.data_weights)):
        wrong.append("--data-weights needs numbers of 0 or more, one of them above 0")
    if not kind.from_labels and (options.findings or options.policy != Options.policy):
        wrong.append(f"--findings and --policy have no effect with {options.method}, which uses no labels")
    return wrong + limits.faults(SimpleNamespace(**options.member))


def describe(options: Options, data: "Datasets", rows: "np.ndarray") -> tuple["ModelSpec", tuple[str, ...]]:
    """The spec of the backbone, and the findings whose labels it uses."""
    import numpy as np

    from ribcage import methods
    from ribcage.bundle.init import data_sources, initial_normalisation, initial_pool
    from ribcage.bundle.spec import ModelSpec
    from ribcage.bundle.training_record import TrainingRecord
    from ribcage.data import dataset_folder, selection
    from ribcage.models.stem import GRAY
    from ribcage.training import setup
    from ribcage.training.teachers.patches import with_patch_teacher

    findings = setup.findings_of(options, data)
    kind = methods.load_method(options.method)
    learnt = findings if kind.from_labels else ()
    if kind.from_labels and not learnt:
        raise ValueError(f"{options.method} needs labels, but there are none in {', '.join(options.data)}.")
    scales = [(one.mean, one.std) for one in data]
    common = np.average(scales, axis=0, weights=shares(options, data, rows)).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else common)
    training = TrainingRecord(
        method=options.method,
        images=len(rows),
        patients=selection.count_known_patients(data, rows),
        selection=0,
        scales=tuple(scales),
        learnt=tuple(learnt),
        options=as_json(options),
    )
    spec = ModelSpec(
        name=options.model,
        findings=(),
        size=options.final_size,
        stored=data[0].size,
        fit=data[0].facts.fit,
        mean=mean,
        std=std,
        channels=options.channels,
        pool=options.pool or initial_pool(options.init) or kind.pool,
        data=data_sources(data, options.init),
        training=training,
        versions=dataset_folder.versions(),
    )
    return with_patch_teacher(spec, options.teacher), learnt


def shares(options: Options, data: "Datasets", rows: "np.ndarray") -> "np.ndarray":
    """The fraction of each dataset in a batch."""
    import numpy as np

    return np.array(options.data_weights or np.bincount(data.source(rows), minlength=len(data)), np.float64)


def build(
    options: Options,
    data: "Datasets",
    rows: "np.ndarray",
    model: "ModelSpec",
    findings: tuple[str, ...],
    device: "torch.device",
) -> "Trainer[Method]":
    """The trainer: method, batches, optimizer, learning rate schedule."""
    import torch

    from ribcage import methods
    from ribcage.bundle.init import initial_backbone
    from ribcage.training import setup
    from ribcage.training.teachers.patches import taught

    torch.manual_seed(options.seed)
    kind = methods.load_method(options.method)
    backbone = initial_backbone(model, options.init, options.drop_path)
    method = kind(backbone, findings, **options.member, **taught(options.teacher, model, device))
    loader = loader_of(options, data, rows, model, method, device)
    if wrong := method.faults(len(rows), options.batch):
        raise ValueError("; ".join(wrong) + ".")
    setup.count_labels(method, loader)
    return setup.build_trainer(options, method, loader, device)


def loader_of(
    options: Options, data: "Datasets", rows: "np.ndarray", model: "ModelSpec", method: "Method", device: "torch.device"
) -> "Loader":
    """The loader; without --init and --teacher, each dataset is normalised by its own mean and standard deviation."""
    from ribcage.data.label_policy import Policy
    from ribcage.imaging import augment
    from ribcage.training import setup

    def views(size: tuple[int, int]) -> "Sequence[View]":
        return [augment.changed_view(view, options.augment_options) for view in method.views(size, options.augment)]

    return setup.build_loader(
        options,
        data,
        views,
        rows,
        model,
        device,
        findings=method.findings,
        policy=Policy.parse(options.policy, method.findings, data.names),
        weights=options.data_weights or None,
        same_patient=bool(options.member.get("patient_aware")) and method.same_patient,
        drop_last=True,
        per_dataset=not options.init and not options.teacher,
    )


def watcher(
    options: Options,
    trainer: "Trainer[Method]",
    data: "Datasets",
    rows: "np.ndarray",
    model: "ModelSpec",
    device: "torch.device",
) -> "Monitor":
    """The monitor of the features."""
    from ribcage.training import monitor, run_folder

    if options.probe and "val" in options.train:
        run_folder.warn(
            "--probe evaluates on the val split, which is also used for training: the AUROC is biased upwards."
        )
    return monitor.Monitor(
        lambda: trainer.result,
        data,
        rows,
        size=model.size,
        device=device,
        labelled=monitor.labelled_images(options.probe) if options.probe else None,
        channels=model.channels,
        normalise=trainer.loader.normalise,
        threads=options.threads or None,
        dtype=trainer.dtype,
    )


def keeper(
    options: Options,
    trainer: "Trainer[Method]",
    data: "Datasets",
    rows: "np.ndarray",
    model: "ModelSpec",
    monitor: "Monitor",
) -> Callable[[], None]:
    """A function that saves the backbone."""
    from ribcage.bundle.io import save_bundle
    from ribcage.training import run_folder, setup
    from ribcage.training.teachers.opening import teacher_provenance

    seen = [teacher_provenance(options.teacher)] if options.teacher else []
    provenance = setup.lazy_provenance(options, data, rows, rows[:0], seen)

    def keep() -> None:
        found = dataclasses.replace(model, metrics={"features": monitor.found[-1]})
        save_bundle(options.out / "bundle", trainer.result, run_folder.with_history(found, options.out), provenance())

    return keep


def fit(options: Options, run: "Run", monitor: "Monitor") -> None:
    """Train, with a progress bar or log lines."""
    from ribcage.training.log_formats import MoCoLines
    from ribcage.training.run import show_progress

    if options.log_format == "moco":
        lines = MoCoLines()
        for log in run.steps():
            lines.show(log)
        return

    def note(log: "StepLog") -> str:
        values = {"loss": log.loss, **log.scheduled, **log.values, **(monitor.found[-1] if monitor.found else {})}
        return ", ".join(f"{name} {value:.4g}" for name, value in values.items())

    show_progress(run, options.batch, note)


def report(
    options: Options,
    trainer: "Trainer[Method]",
    data: "Datasets",
    rows: "np.ndarray",
    model: "ModelSpec",
    monitor: "Monitor",
    tracking: "Tracking",
) -> None:
    """Write the report and the layout of --export-as, and print what to do next."""
    import shlex

    from ribcage.reports import pretraining
    from ribcage.training import setup

    page = pretraining.write_pretraining_page(
        options.out,
        trainer.result,
        data,
        rows,
        model,
        title=f"{options.method} · {options.model}",
        normalise=trainer.loader.normalise,
        threads=options.threads or None,
        tracking=tracking,
    )
    print("Features: " + ", ".join(f"{name} {value:.3f}" for name, value in monitor.found[-1].items()) + ".")
    print(f"The backbone was saved to {options.out / 'bundle'}, the report to {page}.")
    if options.export_as:
        setup.export_layout(options, trainer.result, model)
    folders, size = shlex.join(options.probe or options.data), " ".join(map(str, dict.fromkeys(options.final_size)))
    out = shlex.quote(str(options.out))
    shape = f"--model {options.model} --size {size}" + (" --channels 3" if options.channels == 3 else "")
    print(f"To evaluate the features: ribcage probe {out} --data {folders}")
    print(f"To fine-tune the backbone: ribcage finetune {shape} --init {out} --data {folders} --out …")
