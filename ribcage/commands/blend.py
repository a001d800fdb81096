"""Blend several classifiers into one by averaging their weights or their predictions.

--mean weights requires models with the same architecture, findings and preprocessing, which should have been fine-tuned
from the same initial weights. --mean predictions requires the same findings and input size; the blend contains all
models and is as slow as all of them together. With --data, temperature and thresholds are fitted on the validation
split. The test split is not used. 'ribcage evaluate' refuses test images that any of the models was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.remote.places import Place
from ribcage.runtime.spelling import count_phrase

if TYPE_CHECKING:
    from ribcage.bundle.io import Classifier
    from ribcage.bundle.ood import OODCheck
    from ribcage.bundle.spec import ModelSpec
    from ribcage.bundle.training_record import MemberRecord
    from ribcage.training.blending import BlendImages, Blends

POSITIONAL = ("models",)
PLACES = {"models": Place.MODEL, "data": Place.DATASET, "out": Place.FOLDER_OUT}
EXAMPLES = (
    "blend runs/a runs/b runs/c --data data/nih --out models/soup",
    "blend runs/a runs/b runs/c --data data/nih --greedy --out models/greedy",
    "blend runs/chexnet runs/vit --mean predictions --data data/nih --out models/ensemble",
)
GROUPS = {"batch": "Run"}


@dataclass(frozen=True)
class Options:
    """Options of a blend."""

    models: tuple[Path, ...]
    """Run folders or bundles of classifiers."""
    out: Path = field(kw_only=True)
    """Bundle to write."""
    mean: Literal["weights", "predictions"] = "weights"
    """What to average: weights (model soup), or predictions (ensemble; the mean of the calibrated logits)."""
    data: tuple[str, ...] = ()
    """Dataset folders (default: none; the blend then has no temperature and no thresholds)."""
    greedy: bool = False
    """Add models one by one, from the best to the worst, and keep a model only if the mean AUROC of the blend on the
    validation split does not fall."""
    train: str = "train"
    """Split on which the batch norm statistics are recomputed and the OOD check is fitted."""
    val: str = "val"
    """Split on which the temperature and the thresholds are fitted and --greedy selects models; the blend cannot be
    tested on images of this split afterwards."""
    frontal: bool = False
    """Use only frontal images (PA and AP views)."""
    drop_shared: tuple[str, ...] = ()
    """Splits from which an image is dropped if its patient, or a copy of the image, is also in another split."""
    policy: str = ""
    """Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the policy for
    single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
    chexpert:Edema=ones) and disagreement between readers (readers=any)
    (default: the policy used when the models were validated, if it is the same for all models, otherwise ignore)."""
    allow_leak: bool = False
    """Continue even if a model was trained on images of the --val split; the leakage is stated in the model card."""
    batch: int = 64
    """Batch size: images per forward pass."""
    threads: int = 0
    """Number of threads that load images; 0 means one per core."""


def run(options: Options) -> "ModelSpec":
    """Open the members, blend them, save; return the spec of the blend."""
    from ribcage.bundle import blend
    from ribcage.runtime import limits

    limits.check_options(options, wrong(options))
    members = blend.open_members(options.models, options.mean)
    return blended_on_data(options, members) if options.data else averaged(options, members)


def wrong(options: Options) -> list[str]:
    """What is wrong with the options."""
    from ribcage.bundle.io import output_errors

    own = {
        "--greedy": options.greedy,
        "--frontal": options.frontal,
        "--policy": options.policy,
        "--drop-shared": options.drop_shared,
        "--allow-leak": options.allow_leak,
        f"--train {options.train}": options.train != Options.train,
        f"--val {options.val}": options.val != Options.val,
    }
    found = [f"{name} needs --data" for name, given in own.items() if given and not options.data]
    return found + output_errors(options.out)


def averaged(options: Options, members: "Sequence[Classifier]") -> "ModelSpec":
    """The mean of all members, without data."""
    from ribcage.bundle import blend
    from ribcage.bundle.io import save_bundle
    from ribcage.bundle.training_record import BlendRecord

    if options.mean == "weights" and blend.batch_norms(blend.network_to_blend(members[0])):
        raise ValueError(
            f"{members[0].spec.name} has batch normalisation, whose statistics cannot be averaged. Pass --data with "
            "training images on which to recompute them."
        )
    seen = blend.joint_provenance(members)
    lines = tuple(blend.member_record(one, True) for one in members)
    record = BlendRecord(options.mean, False, lines)
    spec = blend.blend_spec(members, record, seen, as_json(options), same_policy(members))
    averages = options.mean == "weights"
    method = (
        blend.mean_weights([blend.network_to_blend(one) for one in members])
        if averages
        else blend.mean_predictions(members)
    )
    save_bundle(options.out, method, spec, seen)
    print(
        f"Wrote {options.out}: the mean of the {options.mean} of {len(members)} models, without temperature and "
        "thresholds. To fit them: "
        f"ribcage convert {options.out} --data DATA --out FOLDER"
    )
    return spec


def blended_on_data(options: Options, members: "Sequence[Classifier]") -> "ModelSpec":
    """The blend, selected and calibrated on the images of --data."""
    from dataclasses import replace

    from ribcage.bundle import blend
    from ribcage.bundle.io import save_bundle
    from ribcage.bundle.training_record import BlendRecord
    from ribcage.data.provenance import Provenance
    from ribcage.training.blending import Blends

    images = opened_images(options, members)
    leak = check_members(options, members, images)
    blends = Blends(members, options.mean, images)
    check_labels(options, blends)
    if options.mean == "weights" and blend.batch_norms(blend.network_to_blend(members[0])) and blends.augmentation_note:
        print(
            f"{blends.augmentation_note} The batch norm statistics are recomputed with the augmentation preset "
            f"{blends.augmentation}."
        )
    tried = blends.candidates(options.greedy)
    chosen = [one.member for one in tried if one.used]
    used, rows = [members[one] for one in chosen], blends.statistics_rows(chosen)
    lines = tuple(blend.member_record(members[one.member], one.used, one.auroc, one.blended) for one in tried)
    augmentation = (blends.augmentation.preset, blends.augmentation.changes) if len(rows) else ("", ())
    record = BlendRecord(options.mean, options.greedy, lines, len(rows), *augmentation)
    seen = blend.joint_provenance(used) | Provenance.of(images.data, images.train_rows, images.val_rows)
    spec = blend.blend_spec(used, record, seen, as_json(options), str(images.policy.settled))
    training = replace(
        spec.training,
        leak="; ".join(filter(None, (spec.training.leak, leak))) or None,
        fitted=len(images.val_rows),
        fitted_to=tuple(one.index.name for one in images.data),
    )
    method, spec = blends.calibrated(chosen, replace(spec, training=training))
    report(options, lines, spec, len(blends.validation.judged))
    save_bundle(options.out, method, spec, seen, ood_check(images))
    print(f"Wrote {options.out}.")
    return spec


def as_json(options: Options) -> dict[str, object]:
    """The options for model.json."""
    import dataclasses
    import json

    found: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return found


def same_policy(members: "Sequence[Classifier]") -> str:
    """The label policy of the validation of all members; "" if they differ."""
    policies = {one.spec.training.policy or "" for one in members}
    return policies.pop() if len(policies) == 1 else ""


def opened_images(options: Options, members: "Sequence[Classifier]") -> "BlendImages":
    """The training and validation images of --data."""
    import torch

    from ribcage.bundle import blend
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.data.label_policy import Policy
    from ribcage.training import run_folder
    from ribcage.training.blending import BlendImages

    data = Datasets.open(options.data)
    selection.distinct(data)
    norms = options.mean == "weights" and blend.batch_norms(blend.network_to_blend(members[0]))
    needed = options.train in data.splits or bool(norms)
    rows = [data.rows_of(split, frontal=options.frontal) for split in (options.val, *[options.train] * needed)]
    if options.drop_shared:
        gone = selection.rows_that_give_way(data, options.drop_shared)
        rows = [one[~gone[one]] for one in rows]
    if any(not len(one) for one in rows):
        raise ValueError(
            "--drop-shared leaves one of the splits empty. Use other values for --train, --val or --drop-shared."
        )
    val_rows, train_rows = rows[0], rows[-1] if needed else rows[0][:0]
    if needed:
        for message in selection.apart(data, train_rows, val_rows, (options.train, options.val)):
            run_folder.say(message)
    text = options.policy or same_policy(members) or "ignore"
    policy = Policy.parse(text, [*members[0].spec.findings, *data.findings], data.names if options.policy else None)
    return BlendImages(
        data, train_rows, val_rows, policy,
        torch.device("cuda" if torch.cuda.is_available() else "cpu"), options.batch, options.threads or None,
    )  # fmt: skip


def check_members(options: Options, members: "Sequence[Classifier]", images: "BlendImages") -> str:
    """Raise if a member was trained on validation images, which would bias selection and calibration. With
    --allow-leak, a sentence about it instead; "" without a leak."""
    from ribcage.evaluation import leakage
    from ribcage.training import run_folder

    leaks = []
    for one in members:
        try:
            leakage.check_leakage(one.provenance, images.data, images.val_rows, selected=True)
        except leakage.LeakError as error:
            text = (
                f"{one.folder} was trained on images or patients of split {options.val!r}: "
                f"{error.leak.sentence('validation')}"
            )
            if not options.allow_leak:
                raise ValueError(
                    f"{text}. Use another --val, or pass --allow-leak; the model card then states the leakage."
                ) from None
            run_folder.warn(f"{text}.")
            leaks.append(
                f"one of the blended models was trained on images or patients of split {options.val!r}, on which the "
                "blend was calibrated"
            )
    return "; ".join(dict.fromkeys(leaks))


def check_labels(options: Options, blends: "Blends") -> None:
    """Raise if no finding can be validated."""
    from ribcage.bundle.spec import EXCLUSIVE
    from ribcage.evaluation.classifier_validation import check_exclusive

    validation = blends.validation
    if not validation.judged:
        names = ", ".join(validation.model.findings)
        raise ValueError(f"--val {options.val}: none of {names} has both positive and negative labels in this split.")
    if validation.model.loss == EXCLUSIVE:
        check_exclusive(validation.labels)


def report(options: Options, lines: "Sequence[MemberRecord]", spec: "ModelSpec", findings: int) -> None:
    """Print the AUROC of each member and of the blend, which is the mean over this number of findings."""
    from ribcage.reports.console import print_table
    from ribcage.reports.html import Table
    from ribcage.runtime import terminal
    from ribcage.training.run_folder import warn

    head = ["model", "AUROC", *(["AUROC of the blend", "used"] if options.greedy else [])]
    rows = [
        [
            one.folder,
            f"{one.auroc:.4f}",
            *([f"{one.blended:.4f}", "yes" if one.used else "no"] if options.greedy else []),
        ]
        for one in lines
    ]
    auroc, best = spec.metrics["validation"]["auroc"], max(one.auroc or 0.0 for one in lines)
    print_table(terminal.console(), Table(head, rows, ["blend", f"{auroc:.4f}", *[""] * (len(head) - 2)]))
    print(f"Mean AUROC over {count_phrase(findings, 'finding')} on split {options.val!r}.")
    if auroc < best:
        why = " Averaging weights is only useful if the models were fine-tuned from the same initial weights."
        warn(
            f"the blend has a lower validation AUROC ({auroc:.4f}) than the best of its models ({best:.4f})."
            + why * (options.mean == "weights")
        )


def ood_check(images: "BlendImages") -> "OODCheck | None":
    """The OOD check, fitted on training images if there are any."""
    from ribcage.bundle import ood

    if not len(images.train_rows):
        return ood.halved(images.data, images.val_rows)
    return ood.lazy_check(images.data, images.train_rows, images.val_rows)()
