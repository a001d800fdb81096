"""Evaluate a model: metrics with 95 % intervals, a table of predictions, and a report with plots.

The evaluation is refused if the model was trained on any of the tested patients or images. The temperature and the
thresholds were fitted on the validation split. The results are written to predictions.parquet (detections.parquet for a
detector), metrics.json and index.html.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from ribcage.runtime.engines import EngineName
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    import torch

    from ribcage.bundle.io import Classifier, Detector
    from ribcage.evaluation.planned_test import PlannedTest, Rules
    from ribcage.inference.detections import Detections
    from ribcage.inference.predictions import Predictions
    from ribcage.metrics.classification_evaluation import ClassificationEvaluation
    from ribcage.metrics.detection_evaluation import DetectionEvaluation
    from ribcage.metrics.evaluation_context import LeakageCheck, RecordedTest
    from ribcage.reports.html import ResultWithPage
    from ribcage.runtime.engines import Engine

    Kind = TypeVar("Kind", ClassificationEvaluation, DetectionEvaluation)

Opened = TypeVar("Opened")
Outputs = TypeVar("Outputs")
POSITIONAL = ("run",)
PLACES = {"run": Place.MODEL, "data": Place.DATASET, "out": Place.EVALUATION}
EXAMPLES = (
    "evaluate runs/chexnet --data data/nih",
    "evaluate runs/chexnet --data data/rsna --split all --resamples 2000",
    "evaluate runs/chexnet --data data/mimic --engine ray",
)
GROUPS = {"batch": "Run"}


@dataclass(frozen=True)
class Options:
    """Which model is tested on which data, and how."""

    run: Path
    """Run folder or bundle."""
    data: tuple[str, ...]
    """Dataset folders."""
    split: str = "test"
    """Split to evaluate on: train, val, test, the name of another split, or all."""
    frontal: bool = False
    """Use only frontal images (PA and AP views)."""
    out: Path | None = None
    """Output folder (default: RUN/evaluation/DATASETS-SPLIT, followed by the options that differ from their
    defaults)."""
    ten_crop: bool = False
    """Average the probabilities of ten crops of each image; classifiers only."""
    protocol: Literal["honest", "peers"] = "honest"
    """honest: thresholds are chosen on validation images, and images used to select the model are refused; peers: as in
    much published work, thresholds are chosen on the test images, and images used to select the model are allowed."""
    table: Literal["full", "chexnet"] = "full"
    """Format of the printed table: full, or chexnet (one line per finding, such as 'The AUROC of Mass is 0.86')."""
    policy: str = ""
    """Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the policy for
    single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
    chexpert:Edema=ones) and disagreement between readers (readers=any)
    (default: the policy used when the model was validated, otherwise ignore)."""
    rule: str = "youden"
    """Threshold rule: youden, midpoint, f1, sensitivity_95, specificity_95, or half (0.5)."""
    drop_shared: tuple[str, ...] = ()
    """Split from which to drop images of patients that the model was trained on, and copies of its training images. It
    must be the split given by --split (default: the value of --drop-shared in training)."""
    allow_leak: bool = False
    """Evaluate even if the model was trained on these patients or images; the leakage is stated in the report."""
    resamples: int = 1000
    """Number of bootstrap resamples of patients."""
    seed: int = 0
    """Random seed for the bootstrap."""
    batch: int = 64
    """Batch size: images per forward pass."""
    engine: EngineName = "local"
    """Where predictions are computed: local (in this process, or in the processes of torchrun or srun) or ray (on all
    machines of a Ray cluster)."""
    worst: int = 24
    """Number of worst errors shown in the report."""


def run(options: Options) -> "ResultWithPage":
    """Evaluate a classifier or a detector; return the numbers (none but in the first of several processes)."""
    from functools import partial

    from ribcage.bundle.io import find_bundle
    from ribcage.bundle.spec import ModelSpec
    from ribcage.reports.html import ResultWithPage
    from ribcage.runtime import distributed, engines, launcher, limits

    limits.check_options(options, unsuitable(options))
    engine = engines.engine(options.engine, gpus=True)
    with launcher.started() as device:
        if ModelSpec.load(find_bundle(options.run) / "model.json").detector:
            judge = partial(evaluate_boxes, options, detected(options, engine, device))
        else:
            judge = partial(evaluate_findings, options, predicted(options, engine, device))
        if distributed.rank():
            return ResultWithPage({}, str)
    return judge()


@dataclass(frozen=True)
class Tested(Generic[Opened, Outputs]):
    """The outputs of a model for the images of a test."""

    model: Opened
    test: "PlannedTest"
    outputs: Outputs
    out: Path
    """Folder of the results."""
    leak: "LeakageCheck"


def predicted(options: Options, engine: "Engine", device: "torch.device") -> "Tested[Classifier, Predictions]":
    """Check for leakage, and predict."""
    from ribcage.bundle.io import load_classifier
    from ribcage.evaluation.labelled import tested_findings
    from ribcage.evaluation.planned_test import PlannedTest
    from ribcage.inference import blocks, predictions

    model = load_classifier(options.run)
    test = PlannedTest.of(rules(options), model.spec, options.data)
    tested_findings(model.spec, test.datasets, test.policy, options.rule)
    test = test.unseen(model)
    out, leak = test.folder(), test.leakage(model)
    if options.engine == "local":
        outputs = predictions.predict(
            model.method.to(device), test.datasets, test.rows, model=model.spec, device=device,
            batch=options.batch, ten_crop=options.ten_crop, label="predict",
        )  # fmt: skip
    else:
        outputs = blocks.predicted_rows(
            engine, model, test.datasets, test.rows, batch=options.batch, ten_crop=options.ten_crop
        )
    return Tested(model, test, outputs, out, leak)


def detected(options: Options, engine: "Engine", device: "torch.device") -> "Tested[Detector, Detections]":
    """The same for a detector."""
    from ribcage.bundle.io import load_detector
    from ribcage.evaluation.planned_test import PlannedTest
    from ribcage.inference import blocks, cam_detector, detections
    from ribcage.runtime import limits

    limits.check_options(options, for_classifiers_only(options))
    model = load_detector(options.run)
    test = PlannedTest.of(rules(options), model.spec, options.data).unseen(model)
    out, leak = test.folder(), test.leakage(model)
    if options.engine == "local":
        model.method.to(device)
        outputs = detections.detect(
            cam_detector.as_detector(model), test.datasets, test.rows, model=model.spec, device=device,
            batch=options.batch, label="detect",
        )  # fmt: skip
    else:
        outputs = blocks.detected_rows(engine, model, test.datasets, test.rows, batch=options.batch)
    return Tested(model, test, outputs, out, leak)


def evaluate_findings(options: Options, tested: "Tested[Classifier, Predictions]") -> "ResultWithPage":
    """Measure, print, write."""
    from ribcage.data import selection
    from ribcage.evaluation import leakage, notes
    from ribcage.evaluation.baselines import BaselineData
    from ribcage.evaluation.classification import evaluate_classifier
    from ribcage.evaluation.labelled import labelled_predictions
    from ribcage.evaluation.recorded import recorded_test
    from ribcage.inference import gradcam
    from ribcage.inference.prediction_table import PREDICTIONS_FILE
    from ribcage.reports.classification import chexnet_lines, classification_page, metric_table, metrics_note
    from ribcage.reports.evaluation_files import EvaluationFiles, print_evaluation
    from ribcage.reports.worst_errors import worst_errors

    model, test = tested.model, tested.test
    data = labelled_predictions(tested.outputs, test.datasets, model.spec, test.policy)
    named, rows = test.baseline_rows()
    fitting = BaselineData.of(named, test.datasets, rows, data.findings, test.policy) if named else None
    result = evaluate_classifier(
        data, rule=options.rule, protocol=options.protocol, fitting=fitting, resamples=options.resamples,
        seed=options.seed,
    )  # fmt: skip
    context = test.context(data.findings, command_line(options))
    maps = gradcam.map_grid_note(model.method, model.spec.size)
    result = replace(result, context=replace(context, leak=tested.leak, maps=maps))
    own = (
        *notes.shift_notes(result, model.spec.reliability, model.spec, str(options.run)),
        *leakage.left_out_note(test.left),
        *selection.shared_codes(test.datasets),
        *notes.policy_notes(context.policy, context.model_policy),
    )
    result = replace(result, warnings=tuple(notes.classification_warnings(result)), notes=(*result.notes, *own))
    result = with_test(result, recorded_test(test, result, "auroc"))
    if options.table == "chexnet":
        print(chexnet_lines(result))
    else:
        print_evaluation(result, metric_table(result), metrics_note(result))
    page = classification_page(result, data, worst_errors(data, test.datasets, options.worst, result.rule))
    return EvaluationFiles(options.run, tested.out).write(result, page, PREDICTIONS_FILE, data.table().save)


def evaluate_boxes(options: Options, tested: "Tested[Detector, Detections]") -> "ResultWithPage":
    """The same for a detector."""
    from ribcage.bundle.spec import DETECTION_RULE
    from ribcage.data import selection
    from ribcage.evaluation import leakage, notes
    from ribcage.evaluation.detection import evaluate_detector
    from ribcage.evaluation.detection_baselines import BoxBaselineData
    from ribcage.evaluation.labelled_detections import labelled_detections
    from ribcage.evaluation.recorded import recorded_test
    from ribcage.inference.detections import DETECTIONS_FILE
    from ribcage.reports.detection import box_metric_table, box_metrics_note, detection_page
    from ribcage.reports.detection_errors import detection_figures
    from ribcage.reports.evaluation_files import EvaluationFiles, print_evaluation

    model, test = tested.model, tested.test
    thresholds = model.spec.thresholds.get(DETECTION_RULE)
    data = labelled_detections(tested.outputs, test.datasets, test.rows, test.policy, thresholds)
    named, rows = test.baseline_rows()
    fitting = BoxBaselineData.of(named, test.datasets, rows, data.findings, test.policy) if named else None
    result = evaluate_detector(
        data, protocol=options.protocol, fitting=fitting, resamples=options.resamples, seed=options.seed
    )
    result = replace(result, context=replace(test.context(data.findings, command_line(options)), leak=tested.leak))
    own = (*leakage.left_out_note(test.left), *selection.shared_codes(test.datasets))
    result = replace(result, warnings=tuple(notes.detection_warnings(result)), notes=(*result.notes, *own))
    result = with_test(result, recorded_test(test, result, "map"))
    print_evaluation(result, box_metric_table(result), box_metrics_note(result))
    page = detection_page(result, data, detection_figures(data, test.datasets, options.worst))
    return EvaluationFiles(options.run, tested.out).write(result, page, DETECTIONS_FILE, tested.outputs.save)


def with_test(result: "Kind", test: "RecordedTest") -> "Kind":
    """With its place in the history of the model's tests."""
    return replace(
        result, context=replace(result.context, test=test), notes=(*result.notes, *[test.text] * (test.use > 1))
    )


def unsuitable(options: Options) -> list[str]:
    """What is wrong with --engine."""
    from ribcage.runtime import launch_variables

    if options.engine == "local" or not launch_variables.launched():
        return []
    return [f"--engine {options.engine} starts its own processes: start the command without torchrun or srun"]


def for_classifiers_only(options: Options) -> list[str]:
    """The options that do not apply to a detector."""
    wrong = {
        "--ten-crop": options.ten_crop,
        "--table chexnet": options.table == "chexnet",
        f"--rule {options.rule}": options.rule != Options.rule,
    }
    return [
        f"{name} applies to classifiers only, but {options.run} is a detector" for name, given in wrong.items() if given
    ]


def rules(options: Options) -> "Rules":
    """How the test is made."""
    from dataclasses import fields

    from ribcage.evaluation.planned_test import Rules

    return Rules(**{field.name: getattr(options, field.name) for field in fields(Rules)})


def command_line(options: Options) -> str:
    """The command that repeats this evaluation."""
    import shlex
    import sys

    from ribcage.runtime import flags

    return shlex.join(["ribcage", "evaluate", *flags.option_line(sys.modules[__name__], options)])
