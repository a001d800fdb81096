"""Train a detector: a detection head on a frozen or fine-tuned backbone.

Training uses images with boxes and images labelled negative. The best epoch (by mAP) and the score threshold are
selected on the validation split; the test split is not used. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before the
program ends; a run continues from it with --resume, also in the middle of an epoch.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ribcage.models.hyperparameters import Hyperparameters, default_texts
from ribcage.runtime.remote.addresses import is_remote
from ribcage.runtime.remote.places import Place
from ribcage.training.options import TrainingOptions, as_json, with_defaults

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ribcage.bundle.spec import DetectorSpec, ModelSpec
    from ribcage.data.collection import Datasets
    from ribcage.data.label_policy import Policy
    from ribcage.evaluation.detector_validation import DetectorValidation
    from ribcage.methods.detect import Detect
    from ribcage.training.run import Run
    from ribcage.training.step_log import StepLog
    from ribcage.training.trainer import Trainer

POSITIONAL = ()
PLACES = {"data": Place.DATASET, "init": Place.WEIGHTS, "out": Place.FOLDER_OUT}
UNAVAILABLE = ("export_as",)
"""Inherited options that detectors do not have; the help does not list them."""
EXAMPLES = ("localise --data data/rsna --model resnet50 --init runs/moco --adapt head --out runs/boxes",)
MODEL = "resnet50"
"""The architecture of LoVT's protocol, where neither --model nor --init names one."""
COUNTS = {"head_width": 1024, "head_depth": 16, "max_detections": 4096}
"""Maximum values of options."""
UNUSED_BY_CAM = (
    "findings", "labels", "size", "model", "channels", "adapt", "epochs", "lr", "augment", "augment_options", "keep",
    "track", "ema")  # fmt: skip
"""Options without effect on --head cam, which trains nothing."""


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Options of training a detector."""

    usual: ClassVar[Hyperparameters] = Hyperparameters(
        optimizer="adamw", lr=1e-3, weight_decay=1e-4, warmup=1.0, most=0.5, scaled=False, epochs=30
    )
    model: str = ""
    """Architecture: a timm model, such as resnet50, or one of Ribcage's own; 'ribcage profile --list' lists them all
    (default: that of --init, else resnet50)."""
    findings: tuple[str, ...] = ()
    """Findings to detect (default: all that have boxes in the training split)."""
    head: Literal["fcos", "yolo", "cam"] = "fcos"
    """Detection head: fcos (anchor-free), yolo (YOLOv3, as in LoVT's protocol for frozen backbones), or cam (boxes from
    the class activation maps of a classifier; nothing is trained)."""
    head_width: int = 256
    """Number of channels of the fcos head, from 4 to 1024."""
    head_depth: int = 4
    """Number of convolutional layers in each branch of the fcos head."""
    quality: Literal["centreness", "iou"] = "centreness"
    """Predicted box quality that weights the scores of the fcos head: centreness or IoU."""
    anchors: Literal["published", "fitted"] = "published"
    """Anchors of the YOLO head: published anchors, or k-means centres of the training boxes."""
    nms_iou: float = 0.4
    """IoU threshold of non-maximum suppression."""
    cam_threshold: float = 0.5
    """Threshold of the boxes of --head cam, as a fraction of the maximum of the activation map."""
    max_detections: int = 100
    """Maximum number of detections per image."""
    adapt: Literal["full", "head"] = "full"
    """Weights of the backbone that are trained besides the head: all (full), or none (head), which needs --init."""
    cache: bool = True
    """Cache the feature maps of a frozen backbone on disk during the run, if flips are the only augmentation."""
    cache_gb: float = 16.0
    """Maximum size of the cache in GB, separately for training and validation."""
    epochs: int | None = None  # type: ignore[assignment]  # until it is settled
    """Training epochs."""
    batch: int = 64
    """Batch size: images per optimizer step, summed over all processes."""
    train: str = "train"
    """Split to train on."""
    val: str = "val"
    """Split used to select the best epoch and the score threshold."""
    augment: Literal["gentle", "strong", "plain"] = "gentle"
    """Augmentation preset: gentle, strong (with flips), or plain (no augmentation)."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose model is saved: the one with the best validation result, or the last."""
    patience: int = 0
    """Early stopping after this many validations without improvement; 0 means no early stopping."""
    validate_every: int = 1
    """Validate every N epochs."""


def defaults(_: str = "") -> dict[str, str]:
    """The defaults of options that are left open, for the help."""
    return default_texts(Options.usual)


def run(options: Options) -> Path | int:
    """Train a detector; the run folder, or an exit code of several processes."""
    import sys

    from ribcage.training import run_folder, setup

    unsound, options = wrong(options), run_folder.with_resume(options)
    if options.head != "cam":  # which trains nothing
        options = with_defaults(options)
        unsound += setup.loader_faults(options)
    return setup.run_processes("localise", sys.modules[__name__], options, train, unsound)


def wrong(options: Options) -> list[str]:
    """Options that do not go together."""
    said = []
    if options.patience and options.keep == "last":
        said.append("--patience needs --keep best, not --keep last")
    if options.head == "cam" and not (is_remote(options.init) or (options.init and Path(options.init).exists())):
        said.append("--head cam needs the bundle of a classifier as --init")
    if options.head == "cam":
        idle = [name for name in UNUSED_BY_CAM if getattr(options, name) != getattr(Options, name)]
        said += [f"--{name.replace('_', '-')} has no effect with --head cam, which trains nothing" for name in idle]
    if not 0 < options.cam_threshold <= 1:
        said.append(f"--cam-threshold {options.cam_threshold:g} must be above 0 and at most 1")
    if options.adapt == "head" and not options.init:
        said.append("--adapt head needs --init")
    if not 0 < options.nms_iou <= 1:
        said.append(f"--nms-iou {options.nms_iou:g} must be above 0 and at most 1")
    said += [
        f"--{name.replace('_', '-')} {getattr(options, name)} must be from 1 to {most}"
        for name, most in COUNTS.items()
        if not 1 <= getattr(options, name) <= most
    ]
    if options.cache_gb < 0:
        said.append(f"--cache-gb {options.cache_gb:g} must be 0 or more")
    if options.export_as:
        said.append(f"--export-as {options.export_as} is a layout of classifiers and backbones, not of detectors")
    return said


def train(options: Options, device: "torch.device") -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import detector_maps, run_folder, setup
    from ribcage.training.run import Plan, Run, opened_run

    data = Datasets.open(options.data)
    selection.distinct(data)
    if options.head == "cam":
        with run_folder.locked_folder(options):
            return build_cam(options, data, device)
    options = settled(options, data)
    if options.resume:
        run_folder.check_resumable("localise", options, data)
    train_rows, val_rows, policy = split_rows(options, data)
    model = describe(options, data, train_rows, val_rows, policy)
    trainer = build(options, data, train_rows, model, policy, device)
    validation = validator(options, trainer, data, val_rows, model, policy, device)
    keep = setup.bundle_saver(options, data, train_rows, val_rows, lambda: (trainer.result, validation.chosen_spec()))
    plan = Plan("map" if options.keep == "best" else "", options.save_minutes, options.validate_every, options.patience)
    run = Run(trainer, options.out, plan, validation, keep)
    with opened_run("localise", options, run, data):
        if options.cache and options.adapt == "head":
            detector_maps.cache_maps(trainer, validation, options.out, options.cache_gb)
        fit(options, run, validation)
        if distributed.rank() == 0:
            detector_maps.remove_maps(options.out)
            which = "Best" if options.keep == "best" else "Last"
            report(options, f"{which} validation, after step {run.standing.best_step:,}")
            if run.tracking.wants_images:
                from ribcage.reports.tracked_images import tracked_box_errors

                run.tracking.show("worst_errors", tracked_box_errors(validation), run.trainer.step)
    return options.out


def settled(options: Options, data: "Datasets") -> Options:
    """The options with the model of the initial bundle, and the findings that have boxes, where they are left open."""
    from ribcage.bundle.init import initial_spec
    from ribcage.inference import detections
    from ribcage.runtime.spelling import did_you_mean

    known = initial_spec(options.init)
    model = options.model or (known.name if known else MODEL)
    channels: Literal[1, 3] = (3 if known.channels == 3 else 1) if known else options.channels
    findings = options.findings
    if not findings:
        rows, policy = data.rows_of(options.train, frontal=options.frontal), policy_of(options, data)
        findings = tuple(
            name
            for name in dict.fromkeys(name for one in data for name in one.index.findings)
            if len(detections.truth(data, rows, name, policy))
        )
    there = list(dict.fromkeys(name for one in data for name in one.index.findings))
    if strange := [name for name in findings if name not in there]:
        hint = did_you_mean(strange[0], there)
        raise ValueError(
            f"{', '.join(options.data)} has no finding {strange[0]!r}.{hint} Findings: {', '.join(there)}."
        )
    if not findings:
        raise ValueError(
            f"{', '.join(options.data)} has no boxes in split {options.train!r}. Use another --train, or import boxes."
        )
    return replace(options, model=model, channels=channels, findings=findings)


def split_rows(options: Options, data: "Datasets") -> tuple["np.ndarray", "np.ndarray", "Policy"]:
    """The rows to train on, those to validate on, and the policy: what an uncertain label without boxes is."""
    from ribcage.inference import detections
    from ribcage.training import chosen_rows, run_folder

    policy = policy_of(options, data)
    train_rows, said = chosen_rows.training_rows(options, data, options.train)
    val_rows = chosen_rows.usable_rows(options, data, data.rows_of(options.val, frontal=options.frontal))
    run_folder.say(f"{said}, validating on {len(val_rows):,}.")
    chosen_rows.warn_of_overlap(options, data, (options.train, options.val), train_rows, val_rows)
    kept = [rows[detections.drawn(data, rows, options.findings, policy).any(axis=1)] for rows in (train_rows, val_rows)]
    if lost := len(train_rows) + len(val_rows) - sum(map(len, kept)):
        names = " or ".join(options.findings)
        run_folder.say(f"Images excluded, because they have no box and no negative label for {names}: {lost:,}.")
    for rows, split in zip(kept, (options.train, options.val), strict=True):
        without_boxes = [name for name in options.findings if not len(detections.truth(data, rows, name, policy))]
        if len(without_boxes) == len(options.findings):
            raise ValueError(f"No usable image in split {split!r} has a box for {' or '.join(without_boxes)}.")
        if without_boxes:
            run_folder.warn(f"split {split!r} has no boxes for {', '.join(without_boxes)}.")
    return kept[0], kept[1], policy


def policy_of(options: Options, data: "Datasets") -> "Policy":
    """The policy for uncertain and blank labels."""
    from ribcage.data.label_policy import Policy

    return Policy.parse(options.policy, [name for one in data for name in one.index.findings], data.names)


def describe(
    options: Options, data: "Datasets", train_rows: "np.ndarray", val_rows: "np.ndarray", policy: "Policy"
) -> "ModelSpec":
    """The spec of the detector."""
    import numpy as np

    from ribcage.bundle.init import data_sources, initial_normalisation, initial_pool
    from ribcage.bundle.spec import ModelSpec
    from ribcage.bundle.training_record import TrainingRecord
    from ribcage.data import dataset_folder, selection
    from ribcage.inference import detections
    from ribcage.models.stem import GRAY

    own = np.mean([(one.mean, one.std) for one in data], axis=0).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else own)
    training = TrainingRecord(
        images=len(train_rows),
        patients=selection.count_known_patients(data, train_rows),
        boxes=sum(len(detections.truth(data, train_rows, name, policy)) for name in options.findings),
        selection=len(val_rows),
        shared_patients=selection.split_overlap(data, train_rows, val_rows).patients,
        policy=str(policy.settled),
        options=as_json(options),
    )
    return ModelSpec(
        name=options.model,
        findings=options.findings,
        size=options.final_size,
        stored=data[0].size,
        fit=data[0].facts.fit,
        mean=mean,
        std=std,
        channels=options.channels,
        pool=options.pool or initial_pool(options.init),
        detector=detector(options),
        data=data_sources(data, options.init),
        training=training,
        versions=dataset_folder.versions(),
    )


def detector(options: Options) -> "DetectorSpec":
    """The head and its hyperparameters, under the names of `model.json`."""
    from ribcage.bundle.spec import DetectorSpec

    own: dict[str, dict[str, Any]] = {
        "fcos": {
            "width": options.head_width, "depth": options.head_depth, "quality": options.quality,
            "overlap": options.nms_iou,
        },
        "yolo": {"anchors": options.anchors, "overlap": options.nms_iou},
        "cam": {"share": options.cam_threshold},
    }  # fmt: skip
    return DetectorSpec(options.head, {**own[options.head], "keep": options.max_detections})


def build(
    options: Options,
    data: "Datasets",
    train_rows: "np.ndarray",
    model: "ModelSpec",
    policy: "Policy",
    device: "torch.device",
) -> "Trainer[Detect]":
    """The trainer: model, batches, optimizer, learning rate schedule."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.bundle.io import build_detector
    from ribcage.imaging import augment
    from ribcage.inference import detections
    from ribcage.training import setup

    torch.manual_seed(options.seed)
    backbone = initial_backbone(model, options.init, options.drop_path)
    method = build_detector(model, backbone, "The detector", freeze=options.adapt == "head")
    method.measure(detections.boxes_in_view(data, train_rows, model.findings, model.size, policy), model.size)
    views = augment.preset_views(options.augment, options.augment_options)
    loader = setup.build_loader(options, data, views, train_rows, model, device, policy=policy)
    return setup.build_trainer(options, method, loader, device)


def validator(
    options: Options,
    trainer: "Trainer[Detect]",
    data: "Datasets",
    val_rows: "np.ndarray",
    model: "ModelSpec",
    policy: "Policy",
    device: "torch.device",
) -> "DetectorValidation":
    """The validation after an epoch."""
    from ribcage.evaluation.detector_validation import DetectorValidation

    return DetectorValidation(
        lambda: trainer.result, data, val_rows, model, device=device, batch=options.batch, policy=policy,
        threads=options.threads or None, dtype=trainer.dtype,
    )  # fmt: skip


def fit(options: Options, run: "Run", validation: "DetectorValidation") -> None:
    """Train, with a progress bar."""
    from ribcage.training.run import show_progress

    def note(log: "StepLog") -> str:
        score = f", val mAP {validation.scores['map']:.4f}" if validation.scores else ""
        return f"loss {log.loss:.4f}{score}"

    show_progress(run, options.batch, note)


def build_cam(options: Options, data: "Datasets", device: "torch.device") -> Path:
    """A classifier as a detector: nothing is trained, validation selects the score threshold."""
    import numpy as np

    from ribcage.bundle.io import Detector, load_classifier, save_bundle
    from ribcage.data.provenance import Provenance
    from ribcage.evaluation import leakage
    from ribcage.evaluation.detector_validation import DetectorValidation
    from ribcage.inference import cam_detector
    from ribcage.runtime import distributed
    from ribcage.training import chosen_rows, run_folder

    known = load_classifier(options.init)
    model = replace(known.spec, detector=detector(options), thresholds={}, metrics={})  # those were of probabilities
    seen = known.provenance
    looking = Detector(known.folder, model, known.network("be used as a detector").to(device), seen)
    val_rows = chosen_rows.usable_rows(options, data, data.rows_of(options.val, frontal=options.frontal))
    validation = DetectorValidation(
        lambda: cam_detector.as_detector(looking), data, val_rows, model, device=device, batch=options.batch,
        policy=policy_of(options, data), threads=options.threads or None,
    )  # fmt: skip
    if warning := leakage.initial_weights_warning(seen, data, val_rows, options.val):
        run_folder.warn(warning)
    if validation.judged:
        validation()
        seen |= Provenance.of(data, np.empty(0, np.int64), val_rows)
    if distributed.rank() == 0:
        run_folder.create("localise", options, data)
        found = validation.chosen_spec() if validation.judged else model
        save_bundle(options.out / "bundle", looking.method, found, seen, known.ood)
        report(options, "Validation" if validation.judged else "")
    return options.out


def report(options: Options, which: str) -> None:
    """Print the validation of the saved detector, if there is one, and what to do next."""
    import shlex

    from ribcage.bundle.spec import ModelSpec

    if which:
        found = ModelSpec.load(options.out / "bundle" / "model.json").metrics["validation"]
        print(f"{which}: mAP {found['map']:.4f}, AP50 {found['ap50']:.4f}, AP75 {found['ap75']:.4f}")
        print("".join(f"  {name[4:]} {score:.3f}" for name, score in found.items() if name.startswith("map_")))
    else:
        print(f"Split {options.val!r} has no boxes, so no score threshold was chosen.")
    test = shlex.join(["ribcage", "evaluate", str(options.out), "--data", *options.data])
    print(f"The detector was saved to {options.out / 'bundle'}. To test it (once): {test}")
