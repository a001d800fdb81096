"""Train a classifier of findings; the validation split selects the best epoch, the test split is not used.

The run folder holds the options, a log line per step, a checkpoint, and `bundle/`: the best model so far with its
temperature and thresholds. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before the program ends; --resume continues
from it, also in the middle of an epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ribcage.models.hyperparameters import Hyperparameters, told
from ribcage.training.options import Course

if TYPE_CHECKING:
    from ribcage.data.collection import Datasets

POSITIONAL = ()
EXAMPLES = (
    "finetune --data data/nih --model densenet121 --init imagenet --out runs/nih",
    "finetune --data data/ours --init runs/moco --labels 0.1 --out runs/ours",
)


@dataclass(frozen=True, kw_only=True)
class Options(Course):
    """Options of fine-tuning."""

    usual: ClassVar[Hyperparameters] = Hyperparameters(
        optimizer="adamw", lr=3e-4, weight_decay=0.05, warmup=1.0, most=0.5, scaled=False, epochs=10
    )
    model: str = "densenet121"
    """Architecture: a timm model or one of Ribcage's own."""
    epochs: int | None = None  # type: ignore[assignment]  # until it is settled
    """Training epochs."""
    batch: int = 64
    """Batch size: images per optimizer step, over all processes."""
    train: str = "train"
    """Split to train on."""
    val: str = "val"
    """Split that selects the best epoch, the temperature and the thresholds."""
    augment: Literal["gentle", "strong", "plain"] = "gentle"
    """Augmentation preset."""
    dropout: float = 0.0
    """Dropout probability of the features before the head."""
    loss: Literal["bce", "focal", "asymmetric", "cross-entropy"] = "bce"
    """Loss, per finding; cross-entropy for mutually exclusive findings."""
    prior: bool = False
    """Initialise the bias of the head to the prevalence of each finding; without it, heat-maps after a short training
    may be empty."""
    balanced: bool = False
    """Weight the positives and negatives of each finding by the effective number of samples (Cui et al. 2019)."""
    smoothing: float = 0.0
    """Label smoothing, towards 0.5."""
    mixup: float = 0.0
    """Mixup: alpha of the Beta distribution; 0: no mixup."""
    freeze: Literal["", "backbone"] = ""
    """Part of the model that is not trained."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights, which is then the result; 0: no average."""
    keep: Literal["best", "last"] = "best"
    """Epoch to keep: the best on validation, or the last."""
    patience: int = 0
    """Early stopping: validations without improvement after which the run ends; 0: no early stopping."""
    validate_every: int = 1
    """Epochs between two validations on the --val split."""
    log_format: Literal["bar", "paddle"] = "bar"
    """Format of the log: a progress bar, or paddle: a line every ten steps with the training AUROC of each finding."""


def defaults(_: str = "") -> dict[str, str]:
    """What options become that are left open, for the help page."""
    return told(Options.usual)


def run(options: Options) -> Any:
    """Build, train, say what came of it; return the run folder."""
    import sys

    from ribcage.runtime import limits
    from ribcage.training import options as course

    options = course.settled(options)
    endless = options.patience and options.keep == "last"
    limits.check_options(options, ["--patience waits for a best epoch, --keep last knows none"] if endless else [])
    return course.run("finetune", sys.modules[__name__], options, train)


def train(options: Options, device: Any) -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import options as course
    from ribcage.training import run_folder
    from ribcage.training.run import Plan, Training

    data = Datasets.open(options.data)
    selection.distinct(data)
    if options.resume:
        run_folder.check_same("finetune", options, data)
    learning, choosing = cohorts(options, data)
    policy = policy_of(options, data)
    model = describe(options, data, learning, choosing, policy)
    run = build(options, data, learning, model, policy, device)
    course.check_layout(options, run.method, model)
    validation = validator(options, run, data, choosing, model, policy, device)
    keep = keeper(options, validation, data, learning, choosing)
    plan = Plan(
        "auroc" if options.keep == "best" else "", options.save_minutes, options.validate_every, options.patience
    )
    training = Training(run, options.out, plan, validation, keep)
    with run_folder.going("finetune", options, training, data, facts=model.training):
        watch(options, training, validation)
        if distributed.rank() == 0:
            report(options, training)
            export(options)
    return options.out


def cohorts(options: Options, data: "Datasets") -> tuple[Any, Any]:
    """The rows to learn from and those to choose by."""
    from ribcage.bundle.init import initial_provenance
    from ribcage.data import selection
    from ribcage.evaluation import leakage
    from ribcage.training import options as course
    from ribcage.training import run_folder

    learning, said = course.rows(options, data, options.train)
    choosing = course.own_rows(options, data, data.rows_of(options.val, frontal=options.frontal))
    run_folder.say(f"{said}, validating on {len(choosing):,}.")
    if warning := selection.apart(data, learning, choosing, (options.train, options.val)):
        run_folder.say(warning)
    for warning in selection.sharing(data, learning, choosing, (options.train, options.val), options.drop_shared):
        run_folder.say(warning)
    if warning := leakage.first_weights(initial_provenance(options.init), data, choosing, options.val):
        run_folder.say(warning)
    return learning, choosing


def policy_of(options: Options, data: "Datasets") -> Any:
    """What uncertain and blank labels become, in training and, without smoothing, in validation."""
    from ribcage.data.findings import Policy

    return Policy.parse(options.policy, [name for one in data for name in one.index.findings])


def describe(options: Options, data: "Datasets", learning: Any, choosing: Any, policy: Any) -> Any:
    """The facts of the model to be: what it will need to be used."""
    import numpy as np

    from ribcage.bundle.init import data_sources, initial_normalisation, initial_pool
    from ribcage.bundle.spec import ModelSpec
    from ribcage.data import dataset_folder, selection
    from ribcage.models.backbone import GRAY
    from ribcage.training import options as course

    findings = course.findings(options, data)
    if not findings:
        raise ValueError(f"{', '.join(options.data)} has no findings to train on.")
    size = (options.size[0], options.size[-1])
    own = np.mean([(one.mean, one.std) for one in data], axis=0).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else own)
    counts = {
        "images": len(learning),
        "patients": selection.known_patients(data, learning),
        "selection": len(choosing),
        "shared_patients": selection.overlap(data, learning, choosing).patients,
        "policy": str(policy.settled),
    }
    return ModelSpec(
        name=options.model,
        findings=tuple(findings),
        size=size,
        stored=data[0].size,
        fit=data[0].facts.fit,
        mean=mean,
        std=std,
        channels=options.channels,
        pool=options.pool or initial_pool(options.init),
        loss=options.loss,
        data=data_sources(data, options.init),
        training={**counts, "options": course.written(options)},
        versions=dataset_folder.versions(),
    )


def build(options: Options, data: "Datasets", learning: Any, model: Any, policy: Any, device: Any) -> Any:
    """The run: model, batches, optimizer, learning rates."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.evaluation import classifier_validation
    from ribcage.imaging import augment
    from ribcage.methods.supervised import Supervised
    from ribcage.training import options as course
    from ribcage.training import run_folder

    torch.manual_seed(options.seed)
    backbone = initial_backbone(model, options.init, options.drop_path)
    method = Supervised(
        backbone,
        model.findings,
        loss=options.loss,
        smoothing=options.smoothing,
        balanced=options.balanced,
        prior=options.prior,
        mixup=options.mixup,
        dropout=options.dropout,
        freeze=options.freeze == "backbone",
    )
    shown = [augment.changed_view(augment.PRESETS[options.augment](model.size), options.view)]
    loader = course.loader(options, data, shown, learning, model, device, policy=policy)
    labels = loader.labels(0, learning)
    if options.loss == "cross-entropy":
        classifier_validation.check_exclusive(labels)
    if options.freeze and not options.init:
        run_folder.say("WARNING: --freeze backbone without --init: the head learns from random features.")
    method.count(torch.from_numpy(labels))
    return course.begin(options, method, loader, device, ema=options.ema)


def validator(options: Options, run: Any, data: "Datasets", choosing: Any, model: Any, policy: Any, device: Any) -> Any:
    """What scores the model after an epoch: with nothing to judge it by, no training begins."""
    from ribcage.evaluation.classifier_validation import ClassifierValidation, check_exclusive
    from ribcage.training import run_folder

    validation = ClassifierValidation(
        lambda: run.result, data, choosing, model, device=device, batch=options.batch, policy=policy,
        threads=options.threads or None,
    )  # fmt: skip
    if model.loss == "cross-entropy":
        check_exclusive(validation.labels)
    blind = [name for name in model.findings if name not in validation.judged]
    if not validation.judged:
        raise ValueError(
            f"No finding of {', '.join(model.findings)} is both present and absent in split {options.val!r}: nothing "
            f"can be chosen by it. Take another --val or --findings, or a --policy (now {policy}) that settles more."
        )
    if blind:
        run_folder.say(f"Split {options.val!r} has only one class of {', '.join(blind)}: no AUROC and no thresholds.")
    return validation


def keeper(options: Options, validation: Any, data: "Datasets", learning: Any, choosing: Any) -> Callable[[], None]:
    """What stores the best model so far."""
    from ribcage.bundle import ood
    from ribcage.bundle.init import initial_provenance
    from ribcage.bundle.io import save_bundle
    from ribcage.data.provenance import Provenance

    provenance = Provenance.of(data, learning, choosing) | initial_provenance(options.init)
    check = ood.later(data, learning, choosing)

    def keep() -> None:
        save_bundle(options.out / "bundle", validation.method(), validation.chosen_spec(), provenance, check())

    return keep


def watch(options: Options, training: Any, validation: Any) -> None:
    """Train, and show how it goes."""
    from ribcage.training import run_folder
    from ribcage.training.log_formats import PaddleLines

    if options.log_format == "paddle":
        lines = PaddleLines(training.run)
        for log in training.steps():
            lines.show(log)
        return

    def note(log: Any) -> str:
        auroc = f", val AUROC {validation.scores['auroc']:.4f}" if validation.scores else ""
        return f"loss {log.loss:.4f}{auroc}"

    run_folder.watch(training, options.batch, note)


def report(options: Options, training: Any) -> None:
    """The last lines: the validation of what was kept, and what to do next."""
    import shlex

    from ribcage.bundle.spec import ModelSpec

    model = ModelSpec.load(options.out / "bundle" / "model.json")
    found = dict(model.metrics["validation"])
    mean, _ = found.pop("auroc"), found.pop("loss", None)
    which = "Best validation, after" if options.keep == "best" else "Last validation, after"
    print(f"{which} step {training.standing.best_step:,}: {of_findings(mean, len(found))}")
    print("  " + "  ".join(f"{name.removeprefix('auroc_')} {score:.3f}" for name, score in found.items()))
    test = shlex.join(["ribcage", "evaluate", str(options.out), "--data", *options.data])
    print(f"The model is {options.out / 'bundle'}. Test it once: {test}")


def of_findings(value: float, count: int) -> str:
    """The main number of a validation."""
    return f"AUROC {value:.4f}" if count == 1 else f"mean AUROC {value:.4f} of {count} findings"


def export(options: Options) -> None:
    """The model that was kept, in the published layout if one was asked for."""
    from ribcage.bundle.io import load_classifier
    from ribcage.training import options as course

    if options.export_as:
        kept = load_classifier(options.out)
        course.export(options, kept.method, kept.spec)
