"""Evaluate a model: metrics with intervals, a table of predictions, and a report with plots.

Refuses to test on patients or images that the model was trained on. Temperature and thresholds are the model's own,
from validation. Writes predictions.parquet (detections.parquet for a detector), metrics.json and index.html.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from ribcage.data.collection import Datasets
    from ribcage.evaluation.baselines import BaselineData
    from ribcage.evaluation.detection import BoxBaselineData
    from ribcage.metrics.evaluation import (
        ClassificationEvaluation,
        DetectionEvaluation,
        Evaluation,
        EvaluationContext,
        RecordedTest,
    )
    from ribcage.reports.html import Table

    Kind = TypeVar("Kind", ClassificationEvaluation, DetectionEvaluation)

POSITIONAL = ("run",)
EXAMPLES = (
    "evaluate runs/chexnet --data data/nih",
    "evaluate runs/chexnet --data data/rsna --split all --resamples 2000",
)


@dataclass(frozen=True)
class Options:
    """What to test on what, and how."""

    run: Path
    """A run or model folder."""
    data: tuple[str, ...]
    """Dataset folders."""
    split: str = "test"
    """Split to evaluate on: train, val, test, another name, or all."""
    frontal: bool = False
    """Only PA and AP views."""
    out: Path | None = None
    """Output folder (default: RUN/evaluation/<datasets>-<split>, followed by options that differ from their defaults,
    and by six digits of the test's key where that folder holds a test of other data)."""
    ten_crop: bool = False
    """Average the probabilities of ten crops of each image, as reproductions of CheXNet do."""
    protocol: Literal["honest", "peers"] = "honest"
    """honest, or peers: thresholds are chosen on the tested images and images used for model selection are allowed, as
    in much published work."""
    table: Literal["full", "chexnet"] = "full"
    """Format of the printed table; chexnet prints one line per finding, 'The AUROC of Mass is 0.86'."""
    policy: str = ""
    """What uncertain and blank labels become: ignore, ones, zeros, blank=zeros … (default: as in the model's
    validation, or ignore)."""
    rule: str = "youden"
    """Rule of the thresholds: youden, midpoint, f1, sensitivity_95, specificity_95, or half."""
    drop_shared: tuple[str, ...] = ()
    """Leave out of the tested split what the model was trained on: its patients, images, and copies of them (default:
    as in training)."""
    allow_leak: bool = False
    """Evaluate although the model was trained on these patients or images; the report says so."""
    resamples: int = 1000
    """Bootstrap resamples of patients."""
    seed: int = 0
    """Seed of the bootstrap."""
    batch: int = 64
    """Images per batch."""
    worst: int = 24
    """Number of worst errors shown in the report."""


def run(options: Options) -> dict[str, Any]:
    """Guard, predict, measure, show, write; return the numbers."""
    from ribcage.bundle.io import find_bundle, load_classifier
    from ribcage.bundle.spec import ModelSpec
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.evaluation import leakage, notes
    from ribcage.evaluation.classification import evaluate_classifier
    from ribcage.evaluation.labelled import labelled_predictions, tested_findings
    from ribcage.inference import gradcam
    from ribcage.inference import predictions as inference
    from ribcage.runtime import distributed, limits

    limits.check_options(options)
    if ModelSpec.load(find_bundle(options.run) / "model.json").detector:
        return boxes(options)
    model = load_classifier(options.run)
    datasets = Datasets.open(options.data)
    selection.distinct(datasets)
    rows = chosen(datasets, options.split, options.frontal)
    policy = policy_of(options, model.spec, datasets)
    tested_findings(model.spec, datasets, policy, options.rule)
    rows, left = own_rows(options, model, datasets, rows)
    place = place_of(options, datasets, rows, policy)
    leak = leakage.check(
        model.provenance, datasets, rows, allow=options.allow_leak, selected=options.protocol == "peers"
    )
    with distributed.started() as device:
        predictions = inference.predict(
            model.method.to(device), datasets, rows, model=model.spec, device=device,
            batch=options.batch, ten_crop=options.ten_crop, label="predict",
        )  # fmt: skip
        if distributed.rank():
            return {}
    data = labelled_predictions(predictions, datasets, model.spec, policy)
    result = evaluate_classifier(
        data,
        rule=options.rule,
        protocol=options.protocol,
        fitting=fitting(datasets, options.split, data.findings, policy),
        resamples=options.resamples,
        seed=options.seed,
    )
    about = context(options, model.spec, datasets, policy, data.findings)
    maps = gradcam.usual(model.method.backbone, model.spec.size)
    result = replace(result, context=replace(about, leak=leak, left=left, maps=maps))
    own = [
        *notes.shift_notes(result, model.spec.reliability, model.spec, str(options.run)),
        *leakage.left_out_note(left),
    ]
    own += notes.policy_notes(about.policy, about.model_policy)
    result = completed(result, notes.classification_warnings(result), own)
    result = with_test(result, recorded(options, place, model, datasets, result, "auroc"))
    show(result, options.table)
    return write(options, place, result, data, datasets)


def boxes(options: Options) -> dict[str, Any]:
    """The same for a detector."""
    from ribcage.bundle.io import load_detector
    from ribcage.bundle.spec import DETECTION_RULE
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.evaluation import leakage, notes
    from ribcage.evaluation.detection import evaluate_detector, labelled_detections
    from ribcage.inference import detections, gradcam
    from ribcage.runtime import distributed, limits

    limits.check_options(options, no_boxes(options))
    model = load_detector(options.run)
    datasets = Datasets.open(options.data)
    selection.distinct(datasets)
    rows = chosen(datasets, options.split, options.frontal)
    policy = policy_of(options, model.spec, datasets)
    rows, left = own_rows(options, model, datasets, rows)
    place = place_of(options, datasets, rows, policy)
    leak = leakage.check(
        model.provenance, datasets, rows, allow=options.allow_leak, selected=options.protocol == "peers"
    )
    with distributed.started() as device:
        model.method.to(device)
        found = detections.detect(
            gradcam.finder(model), datasets, rows, model=model.spec, device=device, batch=options.batch, label="detect"
        )
        if distributed.rank():
            return {}
    data = labelled_detections(found, datasets, rows, policy, model.spec.thresholds.get(DETECTION_RULE))
    result = evaluate_detector(
        data,
        protocol=options.protocol,
        fitting=boxes_to_fit(datasets, options.split, data.findings),
        resamples=options.resamples,
        seed=options.seed,
    )
    about = context(options, model.spec, datasets, policy, data.findings)
    result = replace(result, context=replace(about, leak=leak, left=left))
    result = completed(result, notes.detection_warnings(result), leakage.left_out_note(left))
    result = with_test(result, recorded(options, place, model, datasets, result, "map"))
    show_boxes(result)
    return write_boxes(options, place, result, data, found, datasets)


def completed(result: "Kind", warnings: Sequence[str], notes: Sequence[str]) -> "Kind":
    """With its warnings, and with more notes."""
    return replace(result, warnings=tuple(warnings), notes=(*result.notes, *notes))


def with_test(result: "Kind", test: "RecordedTest") -> "Kind":
    """With its place in the history of the model's tests."""
    return replace(result, context=replace(result.context, test=test), notes=(*result.notes, test.text))


def no_boxes(options: Options) -> list[str]:
    """What a detector cannot be asked."""
    wrong = {
        "--ten-crop: a detector sees one view": options.ten_crop,
        "--table chexnet: it has AUROCs, a detector has none": options.table == "chexnet",
        f"--rule {options.rule}: a detector's cut is validation's": options.rule != Options.rule,
    }
    return [text for text, is_so in wrong.items() if is_so]


def chosen(datasets: "Datasets", split: str, frontal: bool) -> Any:
    """The rows of the split, or one line that says which splits there are."""

    import numpy as np

    rows = np.arange(datasets.total) if split == "all" else np.flatnonzero(datasets.column("split") == split)
    if not len(rows):
        there = ", ".join(f"{name or 'no split'} {count:,}" for name, count in datasets.splits.items())
        raise ValueError(f"The split {split!r} has no images. There are: {there}.")
    frontals = rows[datasets.frontal[rows]]
    if frontal and not len(frontals):
        raise ValueError(f"No image of split {split!r} is known to be frontal: leave out --frontal.")
    return frontals if frontal else rows


def own_rows(options: Options, model: Any, datasets: "Datasets", rows: Any) -> tuple[Any, Any]:
    """These rows, without what the model has seen where the split gives way; and what that leaves out."""
    from ribcage.evaluation import leakage
    from ribcage.metrics.evaluation import LeftOut

    if strange := [name for name in options.drop_shared if name != options.split]:
        raise ValueError(
            f"--drop-shared {strange[0]}: here images can be dropped only from the tested split, --drop-shared "
            f"{options.split}."
        )
    told = model.spec.training.get("options", {}).get("drop_shared", ())
    if not options.drop_shared and (options.allow_leak or options.split not in told):
        return rows, LeftOut()
    return leakage.unseen(model.provenance, datasets, rows)


def unlike(options: Options, model: Any, datasets: "Datasets") -> int:
    """How many of the images are no frontal ones, where the model has learnt from frontal ones alone."""

    if options.frontal or not model.training.get("options", {}).get("frontal"):
        return 0
    known = datasets.frontal
    return int((~known[chosen(datasets, options.split, False)]).sum())


def policy_of(options: Options, model: Any, datasets: "Datasets") -> Any:
    """What uncertain and blank labels count as: what was asked for, else what the model was chosen by."""
    from ribcage.data.findings import Policy

    own = [*model.findings, *(name for each in datasets for name in each.index.findings)]
    return Policy.parse(options.policy or chosen_by(model) or "ignore", own)


def chosen_by(model: Any) -> str:
    """The policy of the model's validation; "" where it is not known."""
    return str(model.training.get("policy", ""))


def fitting(datasets: "Datasets", tested: str, findings: Sequence[str], policy: Any) -> "BaselineData | None":
    """Images for the baselines to learn from: training ones of the same folders, else validation ones, else none."""
    from ribcage.evaluation.baselines import BaselineData

    named, rows = others(datasets, tested)
    return BaselineData.of(named, datasets, rows, findings, policy) if named else None


def boxes_to_fit(datasets: "Datasets", tested: str, findings: Sequence[str]) -> "BoxBaselineData | None":
    """The same for a detector's baseline."""
    from ribcage.evaluation.detection import BoxBaselineData

    named, rows = others(datasets, tested)
    return BoxBaselineData.of(named, datasets, rows, findings) if named else None


def others(datasets: "Datasets", tested: str) -> tuple[str, Any]:
    """What the images are called, and their rows; "" if there are none."""

    for split in ("train", "val"):
        if split != tested and tested != "all" and split in datasets.splits:
            rows = datasets.rows_of(split)
            return f"{len(rows):,} {split} images of the same folders", rows
    return "", None


def context(
    options: Options, model: Any, datasets: "Datasets", policy: Any, findings: Sequence[str]
) -> "EvaluationContext":
    """What was tested, on what, and how to repeat it."""
    import shlex
    import sys

    from ribcage.data import dataset_folder
    from ribcage.metrics.evaluation import EvaluatedData, EvaluatedModel, EvaluationContext
    from ribcage.runtime import flags

    named = ("name", "findings", "size", "stored", "fit", "channels", "loss", "data", "temperature")
    facts = ("name", "source", "licence", "contents", "size", "fit", "linked")
    return EvaluationContext(
        run=str(options.run),
        model=EvaluatedModel(
            **{name: getattr(model, name) for name in named},
            leak=str(model.training.get("leak", "")),
            splits=tuple(own_splits(model)),
        ),
        data=tuple(
            EvaluatedData(folder=str(one.folder), **{name: getattr(one.facts, name) for name in facts})
            for one in datasets
        ),
        split=options.split,
        ten_crop=options.ten_crop,
        policy=str(policy),
        model_policy=chosen_by(model),
        not_tested=tuple(name for name in model.findings if name not in findings),
        others=unlike(options, model, datasets),
        command=shlex.join(["ribcage", "evaluate", *flags.words(sys.modules[__name__], options)]),
        versions=dataset_folder.versions(),
    )


@dataclass(frozen=True)
class Place:
    """Where the results of a test go, and by what it is known."""

    folder: Path
    key: str
    name: str
    """Of the data sets."""
    options: str
    """What was asked for beyond the defaults."""


def place_of(options: Options, datasets: "Datasets", rows: Any, policy: Any) -> Place:
    """Tests of the same images by other rules have folders of their own, and so have tests of others under the same
    name: no test takes the place of an earlier one of other data."""
    import re

    from ribcage.bundle import history
    from ribcage.bundle.io import find_bundle
    from ribcage.evaluation import leakage

    history.load(find_bundle(options.run))  # a damaged one is better said now
    name = " + ".join(dict.fromkeys(dataset.index.name for dataset in datasets))
    asked: list[str] = [options.protocol] if options.protocol != "honest" else []
    asked += ["frontal"] * options.frontal + ["unseen"] * bool(options.drop_shared)
    asked += ["ten-crop"] * options.ten_crop + ["leak"] * options.allow_leak
    asked += [options.rule] if options.rule != Options.rule else []
    asked += [options.policy] if options.policy else []
    decide = {"protocol": options.protocol, "ten_crop": options.ten_crop, "rule": options.rule, "policy": str(policy)}
    key = leakage.key_of(datasets, rows, options.split, decide)
    if options.out is not None:
        if key_in(options.out) not in ("", key):
            raise ValueError(
                f"{options.out} holds an evaluation of other data or with other options: choose another --out."
            )
        return Place(options.out, key, name, " ".join(asked))
    words = [name.replace(" + ", "+"), options.split, *asked]
    called = re.sub(r"[^\w.+-]+", "-", "-".join(words)).strip(".-")
    folder = options.run / "evaluation" / called.encode()[:200].decode(errors="ignore")  # systems allow 255 bytes
    if key_in(folder) not in ("", key):
        folder = folder.with_name(f"{folder.name}-{key[:6]}")
    return Place(folder, key, name, " ".join(asked))


def key_in(folder: Path) -> str:
    """The key of the test whose results lie in a folder; "" where none do, "?" where it is not known."""
    from ribcage.runtime import files

    file = folder / "metrics.json"
    if not file.exists():
        return ""
    try:
        return str(files.read_json(file)["test"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def recorded(
    options: Options, place: Place, model: Any, datasets: "Datasets", result: "Evaluation", metric: str
) -> "RecordedTest":
    """The test, added to the history of the model: its number, and how often these images were used before."""
    from ribcage.bundle import history
    from ribcage.bundle.io import find_bundle
    from ribcage.evaluation import leakage
    from ribcage.metrics.evaluation import RecordedTest

    folder, mean = find_bundle(options.run), result.macro[metric]
    test = history.PastTest(
        number=0,
        name=place.name,
        split=options.split,
        key=place.key,
        contents=tuple(leakage.images_of(dataset) for dataset in datasets),
        weights=history.weights_of(folder),
        options=place.options,
        honest=is_honest(options, model.spec, result),
        images=result.images,
        patients=result.patients,
        judged=mean.findings,
        metric={"auroc": "mean AUROC" if len(result.findings) > 1 else "AUROC", "map": "mAP"}[metric],
        value=mean.value,
        low=mean.low,
        high=mean.high,
    )
    before = history.load(folder)
    try:
        test = history.add(folder, test)
    except OSError as error:
        print(f"The history of tests in {folder} was not updated: {error.strerror or error}.")
        test = replace(test, number=len(before) + 1)
    before = [one for one in before if one.number < test.number]
    used = history.use(before, test.contents, test.split)
    return RecordedTest(
        number=test.number,
        use=len(used) + 1,
        before=tuple(one.number for one in used),
        key=test.key,
        contents=test.contents,
        weights=test.weights,
        honest=test.honest,
        new=history.new(test, before),
        text=history.sentence(test.number, used),
    )


def is_honest(options: Options, model: Any, result: "Evaluation") -> bool:
    """Whether, as far as is known, the model has seen nothing of the tested images and nothing was chosen on them."""
    leaked = result.context.leak.found
    return not leaked and options.protocol == "honest" and options.split not in own_splits(model)


def own_splits(model: Any) -> list[str]:
    """The splits that the model learnt from and was chosen by."""
    told = model.training.get("options", {})
    return [str(told.get(name, name)) for name in ("train", "val")]


def write_boxes(
    options: Options, place: Place, result: "DetectionEvaluation", data: Any, found: Any, datasets: "Datasets"
) -> dict[str, Any]:
    """detections.parquet, metrics.json, index.html; the numbers."""
    from ribcage.reports.detection import detection_page
    from ribcage.reports.detection_errors import detection_figures

    page = detection_page(result, data, detection_figures(data, datasets, options.worst))
    return write_all(options, place, "detections.parquet", found.save, result, page)


def write(
    options: Options, place: Place, result: "ClassificationEvaluation", data: Any, datasets: "Datasets"
) -> dict[str, Any]:
    """predictions.parquet, metrics.json, index.html; the numbers."""
    from ribcage.inference import predictions as inference
    from ribcage.reports.classification import classification_page
    from ribcage.reports.worst_errors import worst_errors

    page = classification_page(result, data, worst_errors(data, datasets, options.worst, result.rule))
    save = partial(inference.save, data.table())
    return write_all(options, place, "predictions.parquet", save, result, page)


def note_on_card(options: Options, result: "Evaluation") -> None:
    """The tests stand on the model's card, too."""
    from ribcage.bundle import card, history
    from ribcage.bundle.io import find_bundle
    from ribcage.runtime import files

    folder = find_bundle(options.run)
    file, tests = folder / "README.md", history.load(folder)
    try:
        text = card.card_with_tests(files.regular(file).read_text(encoding="utf-8", errors="replace"), result, tests)
        with files.atomic(file) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        print(f"The card {file} was not updated: {error.strerror or error}.")


def write_all(
    options: Options,
    place: Place,
    table: str,
    save: Callable[[Path], None],
    result: "Evaluation",
    page: str,
) -> dict[str, Any]:
    """A table, the numbers and the page; the numbers, which show themselves as that page."""
    from ribcage.metrics.evaluation import METRICS_FILE, evaluation_json, write_evaluation
    from ribcage.reports.html import ResultWithPage
    from ribcage.runtime import files

    out = place.folder
    before = " in the place of an earlier test of the same data by the same options" * (out / "metrics.json").exists()
    with files.explained(out, "Free some."):
        files.refuse_links(options.run, out)
        out.mkdir(parents=True, exist_ok=True)
        save(out / table)
    write_evaluation(result, out / METRICS_FILE)
    files.write_text(out / "index.html", page)
    print(f"Wrote {out / 'index.html'}, metrics.json and {table}{before}.")
    note_on_card(options, result)
    return ResultWithPage(evaluation_json(result), lambda: page)


def show_boxes(result: "DetectionEvaluation") -> None:
    """A detector's table on the terminal."""
    from ribcage.reports.detection import box_metric_table, box_metrics_note

    printed(result, box_metric_table(result), box_metrics_note(result))


def show(result: "ClassificationEvaluation", form: str) -> None:
    """The table on the terminal."""
    from ribcage.reports.classification import chexnet_lines, metric_table, metrics_note

    if form == "chexnet":
        print(chexnet_lines(result))
        return
    printed(result, metric_table(result), metrics_note(result))


def printed(result: "Evaluation", table: "Table", note: str) -> None:
    """Title, table, note and warnings."""
    from ribcage.reports.classification import WIDE_ONLY
    from ribcage.reports.console import console_table
    from ribcage.reports.details import evaluation_title
    from ribcage.runtime import terminal

    console = terminal.console()
    console.print(f"\n{evaluation_title(result)}", style="bold")
    if console.width < 100:  # a narrow terminal shows fewer columns rather than half of each
        table = table.columns([place for place, name in enumerate(table.head) if name not in WIDE_ONLY][:8])
    console.print(console_table(table))
    console.print(note)
    test = result.context.test
    for text in [*result.warnings, *result.notes]:
        first = text == test.text and test.use == 1  # a first test is as it should be
        console.print(text if first else f"! {text}")
