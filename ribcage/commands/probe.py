"""Evaluate frozen features with logistic regression and k nearest neighbours, at several fractions of the labels.

MODEL is a run folder or bundle, or an architecture with --init. Features are computed once, without augmentation; the
regularisation and k are selected on the validation split. The patients of a smaller fraction are a subset of those of a
larger one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    import numpy as np

    from ribcage.bundle.spec import ModelSpec
    from ribcage.data.collection import Datasets
    from ribcage.data.loader import Loader
    from ribcage.data.provenance import Provenance
    from ribcage.metrics.evaluation_context import LeakageCheck
    from ribcage.models.backbone import Backbone
    from ribcage.training.probe import FeatureTable, ProbeResult, ScoreSummary

POSITIONAL = ("model",)
PLACES = {"model": Place.MODEL, "data": Place.DATASET, "init": Place.WEIGHTS, "out": Place.FOLDER_OUT}
EXAMPLES = ("probe runs/moco --data data/nih --out probe",)
GROUPS = {"batch": "Run"}


@dataclass(frozen=True)
class Options:
    """Options of a probe."""

    model: str
    """Run folder, bundle, or name of an architecture."""
    data: tuple[str, ...]
    """Dataset folders."""
    init: str = ""
    """Initial weights, if MODEL is an architecture: imagenet, a run folder or bundle, or a checkpoint file (default:
    random)."""
    labels: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Fractions of the training patients on which the classifiers are fitted."""
    seeds: int = 3
    """Number of random subsets of patients per fraction."""
    findings: tuple[str, ...] = ()
    """Findings to classify (default: all findings in the data)."""
    train: str = "train"
    """Split on which the classifiers are fitted."""
    val: str = "val"
    """Split used to select the regularisation strength and the number of nearest neighbours."""
    split: str = "test"
    """Split to evaluate on."""
    frontal: bool = False
    """Use only frontal images (PA and AP views)."""
    drop_copies: bool = True
    """Drop training images that are identical to an image in another split."""
    drop_shared: tuple[str, ...] = ()
    """Splits from which an image is dropped if its patient, or a copy of the image, is also in another split. From the
    evaluated split, images are also dropped if the patient or a copy is in the training data of the model."""
    policy: str = "ignore"
    """Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the policy for
    single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
    chexpert:Edema=ones) and disagreement between readers (readers=any); see
    docs/datasets.md."""
    size: tuple[int, ...] = ()
    """Input height and width in pixels, or one number for both (default: the input size of the bundle, else 224)."""
    channels: Literal[1, 3] = 1
    """Number of input channels, if MODEL is an architecture; 3 repeats the greyscale image."""
    pool: str = ""
    """Pooling: a timm pool type, such as avg or token, or query, which adds a classifier with attention over patches or
    cells (default: that of the model)."""
    layers: int = 1
    """Number of last blocks whose features are concatenated; DINOv2's linear evaluation uses 4."""
    batch: int = 64
    """Batch size: images per forward pass."""
    threads: int = 0
    """Number of threads that load images; 0 means one per core."""
    allow_leak: bool = False
    """Evaluate even if the model was trained on these patients or images; the leakage is stated in the result."""
    out: Path | None = None
    """Output folder for probe.json, which holds the results for every subset."""


def run(options: Options) -> "ProbeResult":
    """Open, guard, extract, learn, show, write; return the numbers."""
    from ribcage.data import dataset_folder
    from ribcage.runtime import typed_json
    from ribcage.training import probe

    check(options)
    data, model, parts, leaks = features(options)
    found = list(probe.scores(data, parts[0], parts[1], parts[2], options.labels, options.seeds))
    result: ProbeResult = {
        **probe.probe_scores(found, model.findings),
        "leaks": [typed_json.to_json(leak) for leak in leaks if leak.found],
        "images": [len(part.rows) for part in parts],
        "model": options.model,
        "weights": options.model if named(options) else options.init or "random",
        "data": list(options.data),
        "split": options.split,
        "command": command_line(options),
        "versions": dataset_folder.versions(),
    }
    show(options, probe.summarise_scores(found), result)
    write(options, result)
    return result


def features(options: Options) -> tuple["Datasets", "ModelSpec", list["FeatureTable"], list["LeakageCheck"]]:
    """The data, the model, the features of the three splits, and the leakage checks."""
    import torch

    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.data.provenance import Provenance
    from ribcage.evaluation import leakage
    from ribcage.training import probe

    data = Datasets.open(options.data)
    selection.distinct(data)
    train_rows, val_rows, tested = split_rows(options, data)
    model, backbone, seen = subject(options, data)
    seen = [Provenance.of(data, train_rows, val_rows), *seen]
    if options.split in options.drop_shared:
        for each in seen:
            tested, left = leakage.unseen(each, data, tested)
            for note in leakage.left_out_note(left):
                print(note)
    leaks = [leakage.check_leakage(each, data, tested, allow=options.allow_leak) for each in seen]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = [
        probe.extract(backbone, loader(options, data, rows, model), device, name, blocks=options.layers)
        for name, rows in zip((options.train, options.val, options.split), (train_rows, val_rows, tested), strict=True)
    ]
    return data, model, parts, leaks


def check(options: Options) -> None:
    """All that is wrong with the numbers asked for, at once."""
    check_numbers(options, ["--labels needs at least one fraction"] if not options.labels else [])


def check_numbers(options: Options, wrong: list[str]) -> None:
    """The same with the errors of a command that has these options, too."""
    from ribcage.runtime import limits

    own = {"--init": options.init, "--channels": options.channels > 1}
    said = [name for name, given in own.items() if given and named(options)]
    wrong += [f"{name} applies only if MODEL is the name of an architecture, not a folder" for name in said]
    limits.check_options(options, wrong)


def named(options: Options) -> bool:
    """Whether a folder is to be probed, and not the name of a model."""
    return Path(options.model).is_dir() or "/" in options.model


def split_rows(options: Options, data: "Datasets") -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """The rows to learn from, to choose by and to test on."""
    from ribcage.data import selection

    train_rows, val_rows, tested = (
        data.rows_of(split, frontal=options.frontal) for split in (options.train, options.val, options.split)
    )
    if options.drop_shared:
        gone = selection.rows_that_give_way(data, options.drop_shared)
        train_rows, val_rows, tested = (rows[~gone[rows]] for rows in (train_rows, val_rows, tested))
        lacking = [
            split
            for split, rows in zip(
                (options.train, options.val, options.split), (train_rows, val_rows, tested), strict=True
            )
            if not len(rows)
        ]
        if lacking:
            raise ValueError(
                f"--drop-shared leaves no image in split {lacking[0]!r}. Drop the shared images from another split."
            )
    if options.drop_copies:
        train_rows = selection.without_copies(data, train_rows, options.train)
    for message in selection.apart(data, train_rows, val_rows, (options.train, options.val)):
        print(message, flush=True)
    return train_rows, val_rows, tested


def subject(options: Options, data: "Datasets") -> tuple["ModelSpec", "Backbone", list["Provenance"]]:
    """The model's facts, its backbone, and what it has seen."""
    from dataclasses import replace

    import numpy as np
    import torch

    from ribcage.bundle.init import initial_backbone, initial_normalisation, initial_pool, initial_provenance
    from ribcage.bundle.io import load_bundle
    from ribcage.bundle.spec import ModelSpec
    from ribcage.models.catalogue import known_model
    from ribcage.models.stem import GRAY

    findings = options.findings or tuple(dict.fromkeys(name for one in data for name in one.index.findings))
    size = (options.size[0], options.size[-1]) if options.size else None
    if named(options):
        opened = load_bundle(options.model)
        pool = options.pool or opened.spec.pool
        model = replace(opened.spec, findings=findings, size=size or opened.spec.size, pool=pool)
        return model, initial_backbone(model, options.model, 0.0), [opened.provenance]
    torch.manual_seed(0)
    own = np.mean([(one.mean, one.std) for one in data], axis=0).round(6).tolist()
    mean, std = initial_normalisation(options.init) or (GRAY if options.init else own)
    model = ModelSpec(
        known_model(options.model), findings, size or (224, 224), data[0].size, data[0].facts.fit, mean, std,
        channels=options.channels, pool=options.pool or initial_pool(options.init),
    )  # fmt: skip
    return model, initial_backbone(model, options.init, 0.0), [initial_provenance(options.init)]


def loader(options: Options, data: "Datasets", rows: "np.ndarray", model: "ModelSpec") -> "Loader":
    """What shows the images of some rows."""
    from ribcage.data.label_policy import Policy
    from ribcage.training import probe

    policy = Policy.parse(options.policy, [name for each in data for name in each.index.findings], data.names)
    if policy.draws:
        raise ValueError(
            f"The label policy {str(policy)!r} gives uncertain labels a value between 0 and 1, but a probe needs "
            f"labels of 1, 0 or blank. Use --policy ones or zeros."
        )
    return probe.plain_loader(
        data, rows, model.size, model.findings, policy=policy.settled, batch=options.batch,
        threads=options.threads or None, channels=model.channels, normalise=(model.mean, model.std),
    )  # fmt: skip


def command_line(options: Options) -> str:
    """The command that repeats this probe."""
    import shlex
    import sys

    from ribcage.runtime import flags

    return shlex.join(["ribcage", "probe", *flags.option_line(sys.modules[__name__], options)])


def show(options: Options, summaries: Sequence["ScoreSummary"], result: "ProbeResult") -> None:
    """One line per share and reader."""
    from ribcage.reports.console import print_table
    from ribcage.reports.html import Table
    from ribcage.runtime import terminal

    console, count = terminal.console(), len(result["findings"])
    weights = "" if named(options) else f" with {'weights from ' + options.init if options.init else 'RANDOM weights'}"
    title = f"{options.model}{weights}: mean AUROC of frozen features on {result['images'][2]:,} {options.split} images"
    console.print(f"\n{title}", style="bold")
    head = ["patients", "training images", "classifier", "AUROC", "±", "range", "findings"]
    print_table(console, Table(head, [line(one, count) for one in summaries]))
    console.print(
        "± is the standard deviation over the random subsets; the mean of a subset excludes findings with only one "
        "class."
    )
    for leak in result["leaks"]:
        console.print(f"! LEAK: {leak['text']}.")


def line(one: "ScoreSummary", findings: int) -> list[object]:
    """One share and reader."""
    variation = [f"{one.sd:.4f}", f"{one.minimum:.3f}–{one.maximum:.3f}"] if one.draws > 1 else ["–", "–"]
    learnt = [f"{100 * one.share:g} %", f"{one.draws} × {one.images:,.0f}", one.classifier]
    return [*learnt, f"{one.mean:.4f}", *variation, f"{one.findings} of {findings}"]


def write(options: Options, result: "ProbeResult") -> None:
    """probe.json."""
    import json

    from ribcage.runtime import files

    if options.out is None:
        return
    with files.explained(options.out, "Free some."):
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        files.write_text(options.out / "probe.json", text)
    print(f"Wrote {options.out / 'probe.json'}.")
