"""Train a classifier of findings, from random or pretrained weights.

The best epoch, the temperature and the thresholds are selected on the validation split; the test split is not used. The
run folder holds the options, a log line per step, a checkpoint, and `bundle/`, the best model so far. Ctrl-C, SIGTERM
and SIGUSR1 save a checkpoint before the program ends; --resume continues from it, also in the middle of an epoch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ribcage.models.hyperparameters import Hyperparameters, default_texts
from ribcage.runtime.remote.places import Place
from ribcage.training.options import TrainingOptions, as_json, with_defaults

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ribcage.bundle.spec import ModelSpec
    from ribcage.data.collection import Datasets
    from ribcage.data.label_policy import Policy
    from ribcage.evaluation.classifier_validation import ClassifierValidation
    from ribcage.methods.supervised import Supervised
    from ribcage.training.run import Run
    from ribcage.training.step_log import StepLog
    from ribcage.training.trainer import Trainer

POSITIONAL = ()
PLACES = {"data": Place.DATASET, "init": Place.WEIGHTS, "out": Place.FOLDER_OUT}
EXAMPLES = (
    "finetune --data data/nih --model densenet121 --init imagenet --out runs/nih",
    "finetune --data data/ours --init runs/moco --labels 0.1 --out runs/ours",
)


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Options of fine-tuning."""

    usual: ClassVar[Hyperparameters] = Hyperparameters(
        optimizer="adamw", lr=3e-4, weight_decay=0.05, warmup=1.0, most=0.5, scaled=False, epochs=10
    )
    model: str = "densenet121"
    epochs: int | None = None  # type: ignore[assignment]  # until it is settled
    """Training epochs."""
    batch: int = 64
    """Batch size: images per optimizer step, summed over all processes."""
    train: str = "train"
    """Split to train on."""
    val: str = "val"
    """Split used to select the best epoch, the temperature and the thresholds."""
    sampling: Literal["images", "classes"] = "images"
    """Sampling of training images: images (each image is used once per epoch), or classes (for each draw, a class is
    selected with equal probability, and then an image of this class; images without findings form a class)."""
    augment: Literal["gentle", "strong", "plain"] = "gentle"
    """Augmentation preset: gentle, strong (with flips), or plain (no augmentation)."""
    dropout: float = 0.0
    """Dropout probability before the classification head."""
    loss: Literal["bce", "focal", "asymmetric", "cross-entropy"] = "bce"
    """Loss function: cross-entropy for mutually exclusive findings, otherwise one of the others."""
    prior: bool = False
    """Initialise the bias of the head from the prevalence of each finding. Without this option, saliency maps may be
    empty if the model was trained for only a few epochs."""
    balanced: bool = False
    """Weight the positives and negatives of each finding by the effective number of samples (Cui et al. 2019)."""
    smoothing: float = 0.0
    """Label smoothing factor (towards 0.5); 0 means no smoothing."""
    mixup: float = 0.0
    """Mixup: alpha of the beta distribution; 0 means no mixup."""
    cutmix: float = 0.0
    """CutMix: alpha of the beta distribution; 0 means no CutMix. With --mixup, one of the two is chosen for each
    batch."""
    adapt: Literal["full", "head", "bitfit", "lora"] = "full"
    """Weights of the backbone that are trained besides the head: all (full), none (head), the biases (bitfit), or
    low-rank adapters (lora), which are merged into the weights of the saved model (docs/training.md)."""
    lora_rank: int = 8
    """Rank of the adapters of --adapt lora."""
    lora_alpha: float = 16.0
    """Alpha of the adapters, which are multiplied by alpha / rank."""
    lora_layers: Literal["attention", "mlp", "all"] = "attention"
    """Layers with adapters: attention, mlp, or all linear layers and convolutions, which CNNs need."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose model is saved: the one with the best validation result, or the last."""
    patience: int = 0
    """Early stopping after this many validations without improvement; 0 means no early stopping."""
    validate_every: int = 1
    """Validate every N epochs."""
    log_format: Literal["bar", "paddle"] = "bar"
    """Progress format on the terminal: bar, or paddle (a line every ten steps with the training AUROC of each
    finding)."""


def defaults(_: str = "") -> dict[str, str]:
    """The defaults of options that are left open, for the help."""
    return default_texts(Options.usual)


def run(options: Options) -> Path | int:
    """Train a classifier; the run folder, or an exit code of several processes."""
    import sys

    from ribcage.training import run_folder, setup

    options = with_defaults(run_folder.with_resume(options))
    endless = options.patience and options.keep == "last"
    wrong = ["--patience needs --keep best, not --keep last"] if endless else []
    wrong += setup.loader_faults(options)
    return setup.run_processes("finetune", sys.modules[__name__], options, train, wrong)


def train(options: Options, device: "torch.device") -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import run_folder, setup
    from ribcage.training.run import Plan, Run, opened_run

    data = Datasets.open(options.data)
    selection.distinct(data)
    if options.resume:
        run_folder.check_resumable("finetune", options, data)
    train_rows, val_rows = split_rows(options, data)
    policy = policy_of(options, data)
    model = describe(options, data, train_rows, val_rows, policy)
    trainer = build(options, data, train_rows, model, policy, device)
    setup.check_layout(options, trainer.result, model)
    validation = validator(options, trainer, data, val_rows, model, policy, device)
    keep = setup.bundle_saver(options, data, train_rows, val_rows, lambda: (trainer.result, validation.chosen_spec()))
    plan = Plan(
        "auroc" if options.keep == "best" else "", options.save_minutes, options.validate_every, options.patience
    )
    run = Run(trainer, options.out, plan, validation, keep)
    with opened_run("finetune", options, run, data):
        fit(options, run, validation)
        if distributed.rank() == 0:
            report(options, run)
            show_errors(run, validation)
            export(options)
    return options.out


def split_rows(options: Options, data: "Datasets") -> tuple["np.ndarray", "np.ndarray"]:
    """The rows to train on and those to validate on."""
    from ribcage.training import chosen_rows, run_folder

    train_rows, said = chosen_rows.training_rows(options, data, options.train)
    val_rows = chosen_rows.usable_rows(options, data, data.rows_of(options.val, frontal=options.frontal))
    run_folder.say(f"{said}, validating on {len(val_rows):,}.")
    chosen_rows.warn_of_overlap(options, data, (options.train, options.val), train_rows, val_rows)
    return train_rows, val_rows


def policy_of(options: Options, data: "Datasets") -> "Policy":
    """The policy for uncertain and blank labels, in training and, without smoothing, in validation."""
    from ribcage.data.label_policy import Policy

    return Policy.parse(options.policy, [name for one in data for name in one.index.findings], data.names)


def describe(
    options: Options, data: "Datasets", train_rows: "np.ndarray", val_rows: "np.ndarray", policy: "Policy"
) -> "ModelSpec":
    """The spec of the model."""
    import numpy as np

    from ribcage.bundle.init import data_sources, initial_normalisation, initial_pool
    from ribcage.bundle.spec import ModelSpec
    from ribcage.bundle.training_record import TrainingRecord
    from ribcage.data import dataset_folder, selection
    from ribcage.models.stem import GRAY
    from ribcage.training import setup

    findings = setup.findings_of(options, data)
    if not findings:
        raise ValueError(
            f"{', '.join(options.data)} has no findings to train on. Import labels, or use a method of 'ribcage "
            f"pretrain' that needs none."
        )
    own = np.mean([(one.mean, one.std) for one in data], axis=0).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else own)
    training = TrainingRecord(
        images=len(train_rows),
        patients=selection.count_known_patients(data, train_rows),
        selection=len(val_rows),
        shared_patients=selection.split_overlap(data, train_rows, val_rows).patients,
        policy=str(policy.settled),
        options=as_json(options),
    )
    return ModelSpec(
        name=options.model,
        findings=tuple(findings),
        size=options.final_size,
        stored=data[0].size,
        fit=data[0].facts.fit,
        mean=mean,
        std=std,
        channels=options.channels,
        pool=options.pool or initial_pool(options.init),
        loss=options.loss,
        data=data_sources(data, options.init),
        training=training,
        versions=dataset_folder.versions(),
    )


def build(
    options: Options,
    data: "Datasets",
    train_rows: "np.ndarray",
    model: "ModelSpec",
    policy: "Policy",
    device: "torch.device",
) -> "Trainer[Supervised]":
    """The trainer: model, batches, optimizer, learning rate schedule."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.evaluation import classifier_validation
    from ribcage.imaging import augment
    from ribcage.methods.base import method_options
    from ribcage.methods.supervised import Supervised
    from ribcage.training import run_folder, setup

    torch.manual_seed(options.seed)
    backbone = initial_backbone(model, options.init, options.drop_path)
    method = Supervised(
        backbone,
        model.findings,
        **method_options(Supervised, options),
    )
    views = augment.preset_views(options.augment, options.augment_options)
    loader = setup.build_loader(options, data, views, train_rows, model, device, policy=policy)
    if options.loss == "cross-entropy":
        classifier_validation.check_exclusive(loader.labels(0, train_rows))
    if options.adapt != "full" and not options.init:
        run_folder.warn(f"--adapt {options.adapt} without --init: the weights of the backbone that stay are random.")
    setup.count_labels(method, loader)
    if options.sampling == "classes":
        setup.sample_by_class(loader)
    return setup.build_trainer(options, method, loader, device)


def validator(
    options: Options,
    trainer: "Trainer[Supervised]",
    data: "Datasets",
    val_rows: "np.ndarray",
    model: "ModelSpec",
    policy: "Policy",
    device: "torch.device",
) -> "ClassifierValidation":
    """The validation after an epoch; ValueError where no finding has both classes in the validation split."""
    from ribcage.evaluation.classifier_validation import ClassifierValidation, check_exclusive
    from ribcage.training import run_folder

    validation = ClassifierValidation(
        lambda: trainer.result, data, val_rows, model, device=device, batch=options.batch, policy=policy,
        threads=options.threads or None,
    )  # fmt: skip
    if model.loss == "cross-entropy":
        check_exclusive(validation.labels)
    one_class = [name for name in model.findings if name not in validation.judged]
    if not validation.judged:
        raise ValueError(
            f"None of the findings {', '.join(model.findings)} has both positive and negative labels in split "
            f"{options.val!r}, so no epoch can be selected. Use another --val or --findings, or a --policy (currently "
            f"{policy}) that leaves fewer labels unknown."
        )
    if one_class:
        run_folder.say(
            f"Split {options.val!r} has labels of only one class for {', '.join(one_class)}, so AUROC and "
            f"thresholds are not available there."
        )
    return validation


def fit(options: Options, run: "Run", validation: "ClassifierValidation") -> None:
    """Train, with a progress bar or log lines."""
    from ribcage.training.log_formats import PaddleLines
    from ribcage.training.run import show_progress

    if options.log_format == "paddle":
        lines = PaddleLines(run.trainer)
        for log in run.steps():
            lines.show(log)
        return

    def note(log: "StepLog") -> str:
        auroc = f", val AUROC {validation.scores['auroc']:.4f}" if validation.scores else ""
        return f"loss {log.loss:.4f}{auroc}"

    show_progress(run, options.batch, note)


def show_errors(run: "Run", validation: "ClassifierValidation") -> None:
    """Pass the worst errors of the last validation to the trackers."""
    if run.tracking.wants_images:
        from ribcage.reports.tracked_images import tracked_errors

        run.tracking.show("worst_errors", tracked_errors(validation), run.trainer.step)


def report(options: Options, run: "Run") -> None:
    """Print the validation of the saved model, and what to do next."""
    import shlex

    from ribcage.bundle.spec import ModelSpec

    model = ModelSpec.load(options.out / "bundle" / "model.json")
    found = dict(model.metrics["validation"])
    mean, _ = found.pop("auroc"), found.pop("loss", None)
    which = "Best validation, after" if options.keep == "best" else "Last validation, after"
    print(f"{which} step {run.standing.best_step:,}: {of_findings(mean, len(found))}")
    print("  " + "  ".join(f"{name.removeprefix('auroc_')} {score:.3f}" for name, score in found.items()))
    test = shlex.join(["ribcage", "evaluate", str(options.out), "--data", *options.data])
    print(f"The model was saved to {options.out / 'bundle'}. To test it (once): {test}")


def of_findings(value: float, count: int) -> str:
    """The main result of a validation."""
    return f"AUROC {value:.4f}" if count == 1 else f"mean AUROC {value:.4f} over {count} findings"


def export(options: Options) -> None:
    """Export the saved model in the layout of --export-as, if any."""
    from ribcage.bundle.io import load_classifier
    from ribcage.training import setup

    if options.export_as:
        kept = load_classifier(options.out)
        setup.export_layout(options, kept.network("be exported"), kept.spec)
