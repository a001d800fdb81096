"""Train a detector: a detection head on a backbone, frozen or not; the validation split selects the best epoch by mAP.

Training uses images with boxes, and images labelled negative, which need none. As in 'ribcage finetune', the test split
is not used, and --resume continues a run, also in the middle of an epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ribcage.models.hyperparameters import Hyperparameters, told
from ribcage.training.options import Course

if TYPE_CHECKING:
    from ribcage.data.collection import Datasets

POSITIONAL = ()
EXAMPLES = ("localise --data data/rsna --model resnet50 --init runs/moco --freeze backbone --out runs/boxes",)
MODEL = "resnet50"
"""Of the protocol, where neither --model nor --init names one."""
KIND: Literal["float16"] = "float16"
"""Of the numbers in kept maps."""
MAPS = "features"
"""The folder of kept maps in that of the run, while it lasts."""
COUNTS = {"width": 1024, "depth": 16, "boxes": 4096}
"""What there can be most of."""
UNTAUGHT = ("findings", "labels", "size", "model", "channels", "freeze", "epochs", "lr", "augment", "view", "keep")
"""Options that mean nothing where nothing is learnt: --head cam takes its classifier as it is."""


@dataclass(frozen=True, kw_only=True)
class Options(Course):
    """Options of training a detector."""

    usual: ClassVar[Hyperparameters] = Hyperparameters(
        optimizer="adamw", lr=1e-3, weight_decay=1e-4, warmup=1.0, most=0.5, scaled=False, epochs=30
    )
    model: str = ""
    """Architecture: a timm model or one of Ribcage's own (default: that of the bundle of --init, else resnet50)."""
    findings: tuple[str, ...] = ()
    """Findings to detect (default: all with boxes in the training split)."""
    head: Literal["fcos", "yolo", "cam"] = "fcos"
    """Detection head: fcos, anchor-free; yolo, YOLOv3's as in LoVT's protocol for frozen backbones; cam, boxes from the
    class activation maps of a trained classifier, without training."""
    width: int = 256
    """Channels of the fcos head, at least 4."""
    depth: int = 4
    """Convolutions of each fcos branch."""
    quality: Literal["centreness", "iou"] = "centreness"
    """Quality by which fcos weights the score of a box: centreness of its location, or predicted IoU."""
    anchors: Literal["published", "fitted"] = "published"
    """Anchors of yolo: the published ones, or clustered from the training boxes."""
    overlap: float = 0.4
    """Non-maximum suppression: IoU above which the box with the lower score is dropped."""
    share: float = 0.5
    """Threshold of cam boxes, as a fraction of the maximum of the activation map."""
    boxes: int = 100
    """Largest number of detections per image."""
    freeze: Literal["", "backbone"] = ""
    """Part of the model that is not trained."""
    cache: bool = True
    """Cache the feature maps of a frozen backbone during the run, if the augmentation only flips."""
    cache_gb: float = 16.0
    """Largest size in GB of the cache, for training and validation each."""
    epochs: int | None = None  # type: ignore[assignment]  # until it is settled
    """Training epochs."""
    batch: int = 64
    """Batch size: images per optimizer step, over all processes."""
    train: str = "train"
    """Split to train on."""
    val: str = "val"
    """Split that selects the best epoch and the score threshold."""
    augment: Literal["gentle", "strong", "plain"] = "gentle"
    """Augmentation preset."""
    keep: Literal["best", "last"] = "best"
    """Epoch to keep: the best on validation, or the last."""
    patience: int = 0
    """Early stopping: validations without improvement after which the run ends; 0: no early stopping."""
    validate_every: int = 1
    """Epochs between two validations on the --val split."""


def defaults(_: str = "") -> dict[str, str]:
    """What options become that are left open, for the help page."""
    return told(Options.usual)


def run(options: Options) -> Any:
    """Build, train, say what came of it; return the run folder."""
    import sys

    from ribcage.runtime import limits
    from ribcage.training import options as course

    unsound = wrong(options)
    options = options if options.head == "cam" else course.settled(options)  # which trains nothing
    limits.check_options(options, unsound)
    return course.run("localise", sys.modules[__name__], options, train)


def wrong(options: Options) -> list[str]:
    """What does not go together."""
    said = []
    if options.patience and options.keep == "last":
        said.append("--patience waits for a best epoch, --keep last knows none")
    if options.head == "cam" and not (options.init and Path(options.init).exists()):
        said.append("--head cam looks at what a classifier looks at: give its bundle by --init")
    if options.head == "cam":
        idle = [name for name in UNTAUGHT if getattr(options, name) != getattr(Options, name)]
        said += [f"--{name} is of what learns, and --head cam takes the classifier as it is" for name in idle]
    if not 0 < options.share <= 1:
        said.append(f"--share {options.share:g} is not more than 0 and at most 1")
    if options.freeze and not options.init:
        said.append("--freeze backbone goes with --init")
    if not 0 < options.overlap <= 1:
        said.append(f"--overlap {options.overlap:g} is not more than 0 and at most 1")
    said += [
        f"--{name} {getattr(options, name)} is not from 1 to {most}"
        for name, most in COUNTS.items()
        if not 1 <= getattr(options, name) <= most
    ]
    if options.cache_gb < 0:
        said.append(f"--cache-gb {options.cache_gb:g} is not 0 or more")
    if options.export_as:
        said.append(f"--export-as {options.export_as} is a layout of classifiers and backbones, not of detectors")
    return said


def train(options: Options, device: Any) -> Path:
    """One process of the run."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import distributed
    from ribcage.training import run_folder
    from ribcage.training.run import Plan, Training

    data = Datasets.open(options.data)
    selection.distinct(data)
    if options.head == "cam":
        with run_folder.alone(options):
            return look(options, data, device)
    options = settled(options, data)
    if options.resume:
        run_folder.check_same("localise", options, data)
    learning, choosing, policy = cohorts(options, data)
    model = describe(options, data, learning, choosing, policy)
    run = build(options, data, learning, model, policy, device)
    validation = validator(options, run, data, choosing, model, policy, device)
    keep = keeper(options, validation, data, learning, choosing)
    plan = Plan("map" if options.keep == "best" else "", options.save_minutes, options.validate_every, options.patience)
    training = Training(run, options.out, plan, validation, keep)
    with run_folder.going("localise", options, training, data, facts=model.training):
        keep_maps(options, run, validation)
        watch(options, training, validation)
        if distributed.rank() == 0:
            keep_no_maps(options)
            which = "Best" if options.keep == "best" else "Last"
            report(options, f"{which} validation, after step {training.standing.best_step:,}")
    return options.out


def settled(options: Options, data: "Datasets") -> Options:
    """What was left open: the model is that of the bundle it begins with, the findings are those with boxes."""
    from ribcage.bundle.init import initial_spec
    from ribcage.inference import detections
    from ribcage.runtime.spelling import did_you_mean

    known = initial_spec(options.init)
    model = options.model or (known.name if known else MODEL)
    channels: Literal[1, 3] = (3 if known.channels == 3 else 1) if known else options.channels
    findings = options.findings
    if not findings:
        rows = data.rows_of(options.train, frontal=options.frontal)
        findings = tuple(
            name
            for name in dict.fromkeys(name for one in data for name in one.index.findings)
            if len(detections.truth(data, rows, name))
        )
    there = list(dict.fromkeys(name for one in data for name in one.index.findings))
    if strange := [name for name in findings if name not in there]:
        hint = did_you_mean(strange[0], there)
        raise ValueError(f"{', '.join(options.data)} has no finding {strange[0]!r}.{hint} It has {', '.join(there)}.")
    if not findings:
        raise ValueError(f"{', '.join(options.data)} has no box in split {options.train!r}: nothing to learn from.")
    return replace(options, model=model, channels=channels, findings=findings)


def cohorts(options: Options, data: "Datasets") -> tuple[Any, Any, Any]:
    """The rows to learn from, those to choose by, and what uncertain labels are: without boxes, known to be nowhere or
    not known at all."""
    from ribcage.bundle.init import initial_provenance
    from ribcage.data import selection
    from ribcage.evaluation import leakage
    from ribcage.inference import detections
    from ribcage.training import options as course
    from ribcage.training import run_folder

    policy = policy_of(options, data)
    learning, said = course.rows(options, data, options.train)
    choosing = course.own_rows(options, data, data.rows_of(options.val, frontal=options.frontal))
    run_folder.say(f"{said}, validating on {len(choosing):,}.")
    if warning := selection.apart(data, learning, choosing, (options.train, options.val)):
        run_folder.say(warning)
    for warning in selection.sharing(data, learning, choosing, (options.train, options.val), options.drop_shared):
        run_folder.say(warning)
    if warning := leakage.first_weights(initial_provenance(options.init), data, choosing, options.val):
        run_folder.say(warning)
    kept = [rows[detections.drawn(data, rows, options.findings, policy).any(axis=1)] for rows in (learning, choosing)]
    if lost := len(learning) + len(choosing) - sum(map(len, kept)):
        run_folder.say(f"{lost:,} of them are left out: their {' or '.join(options.findings)} has no box.")
    for rows, split in zip(kept, (options.train, options.val), strict=True):
        blind = [name for name in options.findings if not len(detections.truth(data, rows, name))]
        if len(blind) == len(options.findings):
            raise ValueError(f"No image of split {split!r} with usable labels has a box of {' or '.join(blind)}.")
        if blind:
            run_folder.say(f"WARNING: split {split!r} has no box of {', '.join(blind)}.")
    return kept[0], kept[1], policy


def policy_of(options: Options, data: "Datasets") -> Any:
    """What uncertain and blank labels are."""
    from ribcage.data.findings import Policy

    return Policy.parse(options.policy, [name for one in data for name in one.index.findings])


def describe(options: Options, data: "Datasets", learning: Any, choosing: Any, policy: Any) -> Any:
    """The facts of the model to be: what it will need to be used."""
    import numpy as np

    from ribcage.bundle.init import data_sources, initial_normalisation, initial_pool
    from ribcage.bundle.spec import ModelSpec
    from ribcage.data import dataset_folder, selection
    from ribcage.inference import detections
    from ribcage.models.backbone import GRAY
    from ribcage.training import options as course

    own = np.mean([(one.mean, one.std) for one in data], axis=0).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else own)
    counts = {
        "images": len(learning),
        "patients": selection.known_patients(data, learning),
        "boxes": sum(len(detections.truth(data, learning, name)) for name in options.findings),
        "selection": len(choosing),
        "shared_patients": selection.overlap(data, learning, choosing).patients,
        "policy": str(policy.settled),
    }
    return ModelSpec(
        name=options.model,
        findings=options.findings,
        size=(options.size[0], options.size[-1]),
        stored=data[0].size,
        fit=data[0].facts.fit,
        mean=mean,
        std=std,
        channels=options.channels,
        pool=options.pool or initial_pool(options.init),
        detector=detector(options),
        data=data_sources(data, options.init),
        training={**counts, "options": course.written(options)},
        versions=dataset_folder.versions(),
    )


def detector(options: Options) -> dict[str, Any]:
    """The head and its options, with which the bundle builds it again."""
    own = {"fcos": ("width", "depth", "quality", "overlap"), "yolo": ("anchors", "overlap"), "cam": ("share",)}[
        options.head
    ]
    return {"head": options.head, **{name: getattr(options, name) for name in own}, "keep": options.boxes}


def build(options: Options, data: "Datasets", learning: Any, model: Any, policy: Any, device: Any) -> Any:
    """The run: model, batches, optimizer, learning rates."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.bundle.io import build_detector
    from ribcage.imaging import augment
    from ribcage.inference import detections
    from ribcage.training import options as course

    torch.manual_seed(options.seed)
    backbone = initial_backbone(model, options.init, options.drop_path)
    method = build_detector(model, backbone, "What was asked for", freeze=options.freeze == "backbone")
    method.measure(detections.shown(data, learning, model.findings, model.size), model.size)
    shown = [augment.changed_view(augment.PRESETS[options.augment](model.size), options.view)]
    loader = course.loader(options, data, shown, learning, model, device, policy=policy)
    return course.begin(options, method, loader, device)


def keep_maps(options: Options, run: Any, validation: Any) -> None:
    """Let a frozen backbone see each image once, where that gives what it would give every time."""
    from ribcage.training import feature_cache, run_folder

    if not options.cache or not options.freeze or run.step == run.epochs * len(run.loader):
        return
    for of, loader, user in (("training", run.loader, run.loader), ("validation", validation.loader(), validation)):
        if why := feature_cache.hindrance(run.method, loader, KIND, options.cache_gb):
            run_folder.say(f"Feature maps of {of} images are not cached: {why}.")
        else:
            user.cached = feature_cache.keep(run.method, loader, options.out / MAPS / of, kind=KIND, bf16=run.bf16)


def keep_no_maps(options: Options) -> None:
    """Of a run that is done."""
    from ribcage.training import feature_cache

    for of in ("training", "validation", "."):
        feature_cache.discard(options.out / MAPS / of)


def validator(options: Options, run: Any, data: "Datasets", choosing: Any, model: Any, policy: Any, device: Any) -> Any:
    """What scores the detector after an epoch."""
    from ribcage.evaluation.detector_validation import DetectorValidation

    return DetectorValidation(
        lambda: run.result, data, choosing, model, device=device, batch=options.batch, policy=policy,
        threads=options.threads or None, bf16=run.bf16,
    )  # fmt: skip


def keeper(options: Options, validation: Any, data: "Datasets", learning: Any, choosing: Any) -> Callable[[], None]:
    """What stores the best detector so far; it has seen what its first weights have seen."""
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

    def note(log: Any) -> str:
        score = f", val mAP {validation.scores['map']:.4f}" if validation.scores else ""
        return f"loss {log.loss:.4f}{score}"

    run_folder.watch(training, options.batch, note)


def look(options: Options, data: "Datasets", device: Any) -> Path:
    """A classifier as a detector: nothing is learnt, validation chooses the score from which boxes are shown."""
    import numpy as np

    from ribcage.bundle.io import Detector, load_classifier, save_bundle
    from ribcage.data.provenance import Provenance
    from ribcage.evaluation import leakage
    from ribcage.evaluation.detector_validation import DetectorValidation
    from ribcage.inference import gradcam
    from ribcage.runtime import distributed
    from ribcage.training import options as course
    from ribcage.training import run_folder

    known = load_classifier(options.init)
    model = replace(known.spec, detector=detector(options), thresholds={}, metrics={})  # those were of probabilities
    seen = known.provenance
    looking = Detector(known.folder, model, known.method.to(device), seen)
    choosing = course.own_rows(options, data, data.rows_of(options.val, frontal=options.frontal))
    validation = DetectorValidation(
        lambda: gradcam.finder(looking), data, choosing, model, device=device, batch=options.batch,
        policy=policy_of(options, data), threads=options.threads or None,
    )  # fmt: skip
    if warning := leakage.first_weights(seen, data, choosing, options.val):
        run_folder.say(warning)
    if validation.judged:
        validation()
        seen |= Provenance.of(data, np.empty(0, np.int64), choosing)
    if distributed.rank() == 0:
        run_folder.begin("localise", options, data)
        found = validation.chosen_spec() if validation.judged else model
        save_bundle(options.out / "bundle", looking.method, found, seen, known.ood)
        report(options, "Validation" if validation.judged else "")
    return options.out


def report(options: Options, which: str) -> None:
    """The last lines: the validation of what was kept, if there is one, and what to do next."""
    import shlex

    from ribcage.bundle.spec import ModelSpec

    if which:
        found = ModelSpec.load(options.out / "bundle" / "model.json").metrics["validation"]
        print(f"{which}: mAP {found['map']:.4f}, AP50 {found['ap50']:.4f}, AP75 {found['ap75']:.4f}")
        each = [f"{name.removeprefix('map_')} {score:.3f}" for name, score in found.items() if name.startswith("map_")]
        print("  " + "  ".join(each))
    else:
        print(f"Split {options.val!r} has no boxes, so no score threshold was chosen: boxes of any score are shown.")
    test = shlex.join(["ribcage", "evaluate", str(options.out), "--data", *options.data])
    print(f"The detector is {options.out / 'bundle'}. Test it once: {test}")
