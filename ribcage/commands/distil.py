"""Train a small student on the predictions of one or several teachers and on the known labels.

A teacher is a model or a table of predictions. A teacher model receives the same augmented image as the student,
resized to the input size of the teacher. Unlabelled images are used as well. The best epoch is selected on the
validation split; the test split is not used. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before the program ends;
--resume continues from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.commands import finetune
from ribcage.runtime.remote.places import Place
from ribcage.training.options import as_json, with_defaults

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ribcage.bundle.spec import ModelSpec
    from ribcage.data.collection import Datasets
    from ribcage.data.label_policy import Policy
    from ribcage.evaluation.classifier_validation import ClassifierValidation
    from ribcage.imaging.augment import View
    from ribcage.methods.distil import Distil
    from ribcage.training.run import Run
    from ribcage.training.teachers.opening import OpenedTeacher
    from ribcage.training.trainer import Trainer

POSITIONAL = ()
PLACES = {"data": Place.DATASET, "teacher": Place.PREDICTOR, "init": Place.WEIGHTS, "out": Place.FOLDER_OUT}
EXAMPLES = ("distil --teacher runs/chexnet --data data/nih --model eeea_net_c2 --out runs/small",)


@dataclass(frozen=True, kw_only=True)
class Options(finetune.Options):
    """Options of distillation."""

    teacher: tuple[str, ...]
    """Teachers: run folders, bundles, or tables of predictions (.parquet or .csv)."""
    model: str = "eeea_net_c2"
    """Architecture of the student: a timm model, such as resnet18, or one of Ribcage's own, such as eeea_net_c2.
    'ribcage profile --list' lists them all."""
    labels: float = 1.0
    """Fraction of the training patients whose labels are used; teachers predict on the images of all patients."""
    label_weight: float = 0.5
    """Weight of the label loss, from 0 to 1; the distillation loss has weight 1 - X."""
    temperature: float | str = 2.0
    """Temperature of the kl distillation loss. With START:END, it follows a cosine from START to END."""
    distil_loss: Literal["kl", "mse"] = "kl"
    """Distillation loss: Kullback-Leibler divergence of the softened probabilities, or mean squared error of the
    logits."""
    feature_weight: float = 0.0
    """Weight of the feature loss: 1 - cosine similarity between the projected features of the student and the features
    of a teacher."""
    relation_weight: float = 0.0
    """Weight of the relation loss: squared difference between the pairwise similarities of feature-map locations in the
    student and in a teacher."""
    teacher_weights: Literal["mean", "auroc"] = "mean"
    """How several teachers are weighted: equally (mean), or for each finding in proportion to validation
    AUROC - 0.5 (auroc)."""
    teacher_mode: Literal["auto", "live", "stored"] = "auto"
    """How the teachers predict: live (on each augmented image during training), stored (once on each unaugmented image
    before training), or auto (live if images are augmented or the feature or relation loss is used, otherwise stored).
    """
    allow_leak: bool = False
    """Continue even if a teacher was trained on images of the --val split; the leakage is stated in the model card."""


defaults = finetune.defaults


def run(options: Options) -> Path | int:
    """Train the student; the run folder, or an exit code of several processes."""
    import sys

    from ribcage.training import run_folder, setup

    options = with_defaults(run_folder.with_resume(options))
    errors = [*wrong(options), *setup.loader_faults(options)]
    return setup.run_processes("distil", sys.modules[__name__], options, train, errors)


def wrong(options: Options) -> list[str]:
    """Options that do not go together."""
    from ribcage.training.teachers.tables import is_table

    tables = [is_table(name) for name in options.teacher]
    inside = inside_losses(options)
    found = []
    if not options.teacher:
        found.append("--teacher requires a bundle or a table of predictions")
    twice = [name for name in dict.fromkeys(options.teacher) if options.teacher.count(name) > 1]
    found += [f"--teacher has {name} twice" for name in twice]
    if options.patience and options.keep == "last":
        found.append("--patience needs --keep best, not --keep last")
    if options.micro_batch:
        found.append("--micro-batch is not possible: the losses are means over the labels and predictions of a batch")
    if inside and (all(tables) or not live(options)):
        found.append(f"{' and '.join(inside)} require a bundle as teacher, and --teacher-mode live")
    mixes = [f"--{name}" for name in ("mixup", "cutmix") if getattr(options, name)]
    if mixes and (any(tables) or not live(options)):
        found.append(
            f"{' and '.join(mixes)} requires bundles as teachers and --teacher-mode live, because the teachers predict "
            "on the mixed images"
        )
    if options.adapt != "full" and not options.init:
        found.append(f"--adapt {options.adapt} needs --init")
    if options.adapt == "head" and inside:
        found.append(f"--adapt head leaves nothing to train by {' and '.join(inside)}")
    if options.label_weight == 1 and not inside:
        found.append("--label-weight 1 excludes the distillation loss: use ribcage finetune")
    if options.distil_loss == "mse" and options.temperature != Options.temperature:
        found.append("--temperature has no effect with --distil-loss mse, only with kl")
    return found


def inside_losses(options: Options) -> list[str]:
    """The options of losses that need the features of a teacher."""
    return [f"--{name.replace('_', '-')}" for name in ("feature_weight", "relation_weight") if getattr(options, name)]


def live(options: Options) -> bool:
    """Whether teachers predict on each augmented image, and not once on each image as it is."""
    augmented = options.augment != "plain" or bool(options.augment_options)
    needed = bool(augmented or inside_losses(options))
    return options.teacher_mode == "live" or (options.teacher_mode == "auto" and needed)


def train(options: Options, device: "torch.device") -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import run_folder, setup
    from ribcage.training.run import Plan, Run, opened_run
    from ribcage.training.teachers import opening

    data = Datasets.open(options.data)
    selection.distinct(data)
    hashes = opening.content_hashes(options.teacher)
    if options.resume:
        run_folder.check_resumable("distil", options, data, hashes)
    teachers = opening.open_teachers(options.teacher)
    opening.report_teachers(teachers, data)
    opening.check_features(inside_losses(options), teachers)
    of_all = replace(options, findings=findings(options, data, teachers), labels=1.0)
    train_rows, val_rows = finetune.split_rows(of_all, data)
    leak = check_teachers(options, data, val_rows)
    policy = finetune.policy_of(options, data)
    spec = describe(options, finetune.describe(of_all, data, train_rows, val_rows, policy), teachers, leak)
    trainer = build(options, data, train_rows, val_rows, spec, policy, teachers, device)
    setup.check_layout(options, trainer.method, spec)
    validation = validator(of_all, trainer, data, val_rows, spec, policy, device)
    seen = [opening.teacher_provenance(name) for name in options.teacher]
    keep = setup.bundle_saver(
        options, data, train_rows, val_rows,
        lambda: (trainer.result, validation.chosen_spec() if validation else spec), seen,
    )  # fmt: skip
    score = "auroc" if options.keep == "best" and validation else ""
    plan = Plan(score, options.save_minutes, options.validate_every, options.patience)
    run = Run(trainer, options.out, plan, validation or dict, keep)
    with opened_run("distil", options, run, data, hashes):
        fit(options, run, validation)
        if distributed.rank() == 0:
            report(options, run, validation)
            finetune.export(options)
    return options.out


def findings(options: Options, data: "Datasets", teachers: "Mapping[str, OpenedTeacher]") -> tuple[str, ...]:
    """Those of --findings, or those of the data, or those of the teachers."""
    from ribcage.runtime.spelling import did_you_mean
    from ribcage.training.teachers.opening import teacher_findings

    taught = list(dict.fromkeys(name for one in teachers.values() for name in teacher_findings(one)))
    chosen = options.findings or data.findings or tuple(taught)
    unknown = [name for name in chosen if name not in taught and name not in data.findings]
    if unknown or not set(chosen) & set(taught):
        hint = did_you_mean(unknown[0], [*taught, *data.findings]) if unknown else ""
        raise ValueError(
            f"No teacher predicts {', '.join(unknown or chosen)}.{hint} The teachers predict {', '.join(taught)}."
        )
    return tuple(chosen)


def check_teachers(options: Options, data: "Datasets", val_rows: "np.ndarray") -> str:
    """Raise where a teacher was trained on validation images: the selection of the student would be biased. With
    --allow-leak, a sentence about it instead; "" without a leak."""
    from ribcage.evaluation import leakage
    from ribcage.training.run_folder import warn
    from ribcage.training.teachers.opening import teacher_provenance

    leaks = []
    for name in options.teacher:
        seen = teacher_provenance(name)
        try:
            leakage.check_leakage(seen, data, val_rows, selected=True)
        except leakage.LeakError as error:
            found = f"{name} was trained on images of split {options.val!r}"
            why = error.leak.sentence("validation")
            if not error.leak.alike and (seen.role == 1).any() and not len(seen.selected):
                why += (
                    ", but possibly only for model selection, which its provenance does not distinguish from training"
                )
            if not options.allow_leak:
                raise ValueError(
                    f"{found}, on which the student is selected. {why}. Use another --val, or pass --allow-leak."
                ) from None
            warn(f"{found}, on which the student is selected. {why}.")
            leaks.append(
                f"its teacher {Path(name).name} was trained on split {options.val!r}, on which the student was selected"
            )
    return " and ".join(leaks)


def describe(options: Options, spec: "ModelSpec", teachers: "Mapping[str, OpenedTeacher]", leak: str) -> "ModelSpec":
    """The spec of the student, with its teachers, their data and a leak of them."""
    from ribcage.bundle.io import Classifier
    from ribcage.bundle.training_record import TeacherRecord
    from ribcage.training.teachers.opening import teacher_findings

    bundles = {name: one.spec for name, one in teachers.items() if isinstance(one, Classifier)}
    listed = tuple(
        TeacherRecord(
            name=bundles[name].name if name in bundles else Path(name).name,
            table=name not in bundles,
            findings=tuple(teacher_findings(one)),
        )
        for name, one in teachers.items()
    )
    known = {one.source for one in spec.data}
    more = [replace(each, before=True) for one in bundles.values() for each in one.data if each.source not in known]
    training = replace(spec.training, teachers=listed, options=as_json(options), leak=leak or None)
    return replace(spec, data=(*spec.data, *dict.fromkeys(more)), training=training)


def build(
    options: Options,
    data: "Datasets",
    train_rows: "np.ndarray",
    val_rows: "np.ndarray",
    spec: "ModelSpec",
    policy: "Policy",
    teachers: "Mapping[str, OpenedTeacher]",
    device: "torch.device",
) -> "Trainer[Distil]":
    """The trainer of the student, with its teachers."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.data import selection
    from ribcage.evaluation import classifier_validation
    from ribcage.imaging import augment
    from ribcage.methods.base import method_options
    from ribcage.methods.distil import Distil
    from ribcage.runtime.devices import compute_dtype
    from ribcage.training import setup
    from ribcage.training.run_folder import say
    from ribcage.training.teachers.building import Distillation, build_teachers

    torch.manual_seed(options.seed)
    sizes = view_sizes(spec.size, teachers, changing=len(options.size_stages) > 1) if live(options) else [spec.size]
    labelled = selection.share_of_patients(data, train_rows, options.labels, options.seed)
    if len(labelled) < len(train_rows):
        say(f"Labels of {len(labelled):,} of these images are used ({options.labels:.0%} of the patients).")
    there = [name for name in spec.findings if name in data.findings]
    student = initial_backbone(spec, options.init, options.drop_path)
    task = Distillation(
        data=data, train_rows=train_rows, val_rows=val_rows, student=spec, policy=policy, sizes=sizes,
        live=live(options), weigh=options.teacher_weights, batch=options.batch, threads=options.threads or None,
        dtype=compute_dtype(options.precision, device), device=device,
    )  # fmt: skip
    method = Distil(
        student,
        spec.findings,
        teachers=build_teachers(teachers, task),
        columns=[spec.findings.index(name) for name in there],
        **method_options(Distil, options),
    )

    def views(size: tuple[int, int]) -> "Sequence[View]":
        (view,) = augment.preset_views(options.augment, options.augment_options)(size)
        return [augment.resized_view(view, one) for one in (size, *sizes[1:])]

    loader = setup.build_loader(
        options, data, views, train_rows, spec, device, policy=policy, findings=there, together=True, labelled=labelled
    )
    if options.loss == "cross-entropy" and len(there) == len(spec.findings):
        classifier_validation.check_exclusive(loader.labels(0, train_rows))
    if options.relation_weight:
        check_maps(method, spec)
    setup.count_labels(method, loader)
    if options.sampling == "classes":
        setup.sample_by_class(loader)
    return setup.build_trainer(options, method, loader, device)


def view_sizes(
    size: tuple[int, int], teachers: "Mapping[str, OpenedTeacher]", *, changing: bool = False
) -> list[tuple[int, int]]:
    """The student's input size, then those of live teachers that differ, or all of these if the size of the student
    changes during training; ValueError for another aspect ratio."""
    from ribcage.bundle.io import Classifier

    sizes = {name: one.spec.size for name, one in teachers.items() if isinstance(one, Classifier)}
    other = [f"{name} {one[0]} × {one[1]}" for name, one in sizes.items() if one[0] * size[1] != one[1] * size[0]]
    if other:
        raise ValueError(
            f"--size {size[0]} {size[1]} has a different aspect ratio from the input of {', '.join(other)}. Use a "
            f"--size with the same aspect ratio, or --teacher-mode stored."
        )
    return [size, *dict.fromkeys(one for one in sizes.values() if changing or one != size)]


def check_maps(method: "Distil", spec: "ModelSpec") -> None:
    """Raise where a feature map has a single location, so that there are no relations between locations."""
    from ribcage.methods.distil import map_places
    from ribcage.methods.supervised import Supervised
    from ribcage.training.teachers.live import LiveTeacher

    networks = [(one.method, one.model) for one in method.teachers if isinstance(one, LiveTeacher)]
    models = [(own.backbone, model) for own, model in networks if isinstance(own, Supervised)]
    single = [
        f"{one.name} at {one.size[0]} × {one.size[1]}"
        for backbone, one in [(method.backbone, spec), *models]
        if map_places(backbone, one.size) == 1
    ]
    if single:
        raise ValueError(
            f"--relation-weight needs feature maps with several locations, but the feature map has a single location "
            f"for {' and for '.join(single)} pixels. Use a larger --size."
        )


def validator(
    options: Options,
    trainer: "Trainer[Distil]",
    data: "Datasets",
    val_rows: "np.ndarray",
    spec: "ModelSpec",
    policy: "Policy",
    device: "torch.device",
) -> "ClassifierValidation | None":
    """The validation of the student; None where no finding has both classes in the validation split."""
    from ribcage.training.run_folder import say

    labels = data.known_labels(val_rows, spec.findings, policy)
    if ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        return finetune.validator(options, trainer, data, val_rows, spec, policy, device)
    say(f"Split {options.val!r} has no labels for validation: the last epoch is saved, without thresholds.")
    return None


def fit(options: Options, run: "Run", validation: "ClassifierValidation | None") -> None:
    """Train, with a progress bar or log lines."""
    from ribcage.training.run import show_progress
    from ribcage.training.teachers.live import LiveTeacher

    try:
        if validation:
            finetune.fit(options, run, validation)
        else:
            show_progress(run, options.batch, lambda log: f"loss {log.loss:.4f}")
    except ValueError:  # of a loss, or of a validation, that is not finite
        teachers = getattr(run.trainer.method, "teachers", ())
        broken = [one.name for one in teachers if isinstance(one, LiveTeacher) and bool(one.nonfinite)]
        if broken:
            raise ValueError(
                f"The predictions of {' and '.join(broken)} contain NaN or infinity: the weights are damaged, or the "
                f"training diverged."
            ) from None
        raise


def report(options: Options, run: "Run", validation: "ClassifierValidation | None") -> None:
    """Print the result, and how to compare it with the teacher."""
    if validation:
        finetune.report(options, run)
    else:
        print(f"The model is {options.out / 'bundle'}.")
    bundles = [name for name in options.teacher if Path(name).is_dir()]
    if bundles:
        print(
            f"To compare the model with its teacher, evaluate {bundles[0]} and run ribcage compare on both evaluations."
        )
