"""The page of a classifier: all numbers, no other files, small."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from dataset_folders import make_store
from refusals import has_facts
from test_evaluation import made

from ribcage.bundle import card, history
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.evaluation import comparison, comparison_entries
from ribcage.evaluation.classification import evaluate_classifier
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.evaluation.notes import classification_warnings, shift_notes
from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.estimates import MeanEstimate, ScalarEstimate
from ribcage.metrics.evaluation_context import (
    EvaluatedData,
    EvaluatedModel,
    EvaluationContext,
    LeakageCheck,
    RecordedTest,
    TrainingData,
)
from ribcage.metrics.reliability import FindingReliability
from ribcage.reports import classification as report
from ribcage.reports import comparison as comparison_report
from ribcage.reports import subgroups
from ribcage.reports.evaluation_files import print_evaluation
from ribcage.reports.numbers import with_limits
from ribcage.reports.worst_errors import error_caption, worst_errors, worst_predictions

CONTEXT = EvaluationContext(
    leak=LeakageCheck(text="nothing seen"),
    run="runs/肺",
    model=EvaluatedModel(
        name="tiny", size=(32, 32), findings=("Mass",), loss="bce", fit="pad", stored=32, splits=("train", "val"),
        data=(TrainingData("<nih>", "", "free"),),
    ),
    data=(EvaluatedData(folder="data/a b", name="made", source="nowhere", licence="free", fit="pad", size=32),),
    split="test",
    policy="ignore",
    command="ribcage evaluate 'runs/肺'",
    versions={"ribcage": "1"},
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> LabelledPredictions:
    return made(50)


@pytest.fixture(scope="module")
def result(data: LabelledPredictions) -> ClassificationEvaluation:
    found = replace(evaluate_classifier(data, resamples=50), context=CONTEXT)
    return replace(found, warnings=classification_warnings(found))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(result: ClassificationEvaluation, data: LabelledPredictions, dataset: DatasetFolder) -> str:
    return report.classification_page(result, data, worst_errors(data, Datasets.of([dataset]), 8))


def test_the_page_needs_nothing_from_outside(text: str) -> None:
    assert "<script" not in text
    addresses = re.findall(r"""(?:src|href)=["']?(.{5})""", text)
    assert set(addresses) == {"data:"} and "url(" not in text and "@import" not in text


def test_the_page_escapes_names(text: str) -> None:
    assert "&lt;nih&gt;" in text and "<nih>" not in text


def test_each_finding_with_both_classes_has_four_valid_drawings(text: str) -> None:
    drawings = re.findall(r'<svg class="plot".*?</svg>', text, re.S)
    assert len(drawings) == 4 * 2  # nobody has Hernia
    for drawing in drawings:
        ET.fromstring(drawing)
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_undefined_is_a_dash(result: ClassificationEvaluation) -> None:
    table = report.metric_table(result)
    hernia = next(row for row in table.rows if row[0] == "Hernia")
    assert hernia[table.head.index("AUROC")] == "–" and hernia[table.head.index("95 % CI")] == "–"
    assert table.total is not None and table.total[0] == "mean of 2"


def test_means_over_other_findings_have_their_count(result: ClassificationEvaluation) -> None:
    assert result.macro["auroc"].findings == 2 and result.macro["brier"].findings == 3
    assert report.other_means(result) == "Brier (3)" and "Brier (3)" in report.metrics_note(result)
    macro = {"specificity": MeanEstimate(0.5, 0.4, 0.6, 3)}
    groups = tuple(replace(row, macro=row.macro | macro) for row in result.subgroups)
    table = subgroups.subgroup_table(replace(result, subgroups=groups))
    assert table.rows[0][table.head.index("specificity")] == "0.500 (0.400–0.600), 3 findings"


def test_warnings_stand_on_top_of_the_page(result: ClassificationEvaluation, data: LabelledPredictions) -> None:
    leak = LeakageCheck(found=True, text="Of 50 test images, 9 were seen")
    context = replace(CONTEXT, leak=leak, split="val", not_tested=("Nodule",))
    found = replace(result, protocol="peers", context=context)
    warnings = classification_warnings(found)
    data_of_others = (replace(CONTEXT.data[0], fit="squash"),)
    squashed = classification_warnings(replace(found, context=replace(context, data=data_of_others)))
    assert "stretched" in squashed[3]
    assert len(warnings) == 4 and "9 were seen" in warnings[0] and "Nodule" in warnings[3]
    text = report.classification_page(replace(found, warnings=warnings), data)
    assert text.index("9 were seen") < text.index("<table>")


def test_worst_images_are_those_the_other_class_outscores_most(data: LabelledPredictions) -> None:
    missed = worst_predictions(data, present=True, most=4)
    assert len({place for place, _ in missed}) == len(missed) == 4
    assert all(data.labels[place, column] == 1 for place, column in missed)
    place, column = missed[0]
    own = data.probabilities[data.labels[:, column] == 1, column]
    assert data.probabilities[place, column] == own.min()
    alarms = worst_predictions(data, present=False, most=6)
    assert all(data.labels[place, column] == 0 for place, column in alarms)
    assert max(np.unique([column for _, column in missed], return_counts=True)[1]) == 2


def test_what_nobody_of_the_other_class_outscores_is_no_error(data: LabelledPredictions) -> None:
    logits = np.where(data.labels == 1, 3.0, -3.0).astype(np.float32)
    perfect = replace(data, predictions=replace(data.predictions, logits=logits))
    assert worst_predictions(perfect, present=True, most=6) == worst_predictions(perfect, present=False, most=6) == []


def test_a_caption_has_labels_and_predictions(data: LabelledPredictions, dataset: DatasetFolder) -> None:
    place = int(np.flatnonzero(data.labels[:, 0] == 1)[0])
    parts = error_caption(data, place, 0).split(" · ")
    assert parts[0].startswith("Mass: ") and parts[0].endswith(" %")
    assert "Mass" in parts[1] and parts[2].count("%") == 2


def test_a_large_evaluation_makes_a_small_page() -> None:
    large = made(20_000)
    found = replace(evaluate_classifier(large, resamples=20), context=CONTEXT)
    page = report.classification_page(found, large)
    assert len(page.encode()) < 200_000


def test_missed_are_below_the_threshold_and_false_alarms_reach_it(data: LabelledPredictions) -> None:
    cuts = data.threshold("youden")
    for present in (True, False):
        found = worst_predictions(data, present, most=50)
        assert found
        assert all((data.probabilities[place, column] < cuts[column]) == present for place, column in found)


def test_one_finding_has_no_mean_and_its_rates_are_shown(data: LabelledPredictions) -> None:
    one = replace(
        data,
        predictions=replace(data.predictions, findings=("Mass",), logits=data.predictions.logits[:, :1]),
        labels=data.labels[:, :1],
        source=data.source[:, :1],
        temperature=data.temperature[:1],
        thresholds={rule: chosen[:1] for rule, chosen in (data.thresholds or {}).items()},
    )
    found = replace(evaluate_classifier(one, resamples=20), context=CONTEXT)
    text = report.classification_page(found, one)
    assert "mean of 1" not in text and "mean AUROC (" not in text
    assert len(report.metric_table(found).all_rows) == 1
    accuracy = found.findings[0].metrics["accuracy"]
    assert f"accuracy {with_limits(accuracy)}" in report.metrics_note(found)
    both = comparison.compare(
        [
            comparison_entries.ComparisonEntry("a", one.table()),
            comparison_entries.ComparisonEntry("b", replace(one.table(), probabilities=np.full((len(one), 1), 0.5))),
        ],
        resamples=20,
    )
    assert "mean of" not in comparison_report.comparison_page(both)
    assert len(comparison_report.difference_table(both, 1).all_rows) == 1


def test_the_table_has_the_thresholds_of_the_chosen_rule(data: LabelledPredictions) -> None:
    result = evaluate_classifier(replace(data, thresholds={"youden": (0.4126, None, 0.25)}), resamples=20)
    table = report.metric_table(result)
    shown = [row[table.head.index("threshold")] for row in table.all_rows]
    assert shown == ["0.413", "–", "0.250", ""]
    one = replace(result, findings=result.findings[:1], rules={result.rule: result.rules[result.rule][:1]})
    assert "Threshold 0.413" in report.metrics_note(one)


def test_a_shift_between_validation_and_test_is_pointed_out(data: LabelledPredictions) -> None:
    found = evaluate_classifier(data, resamples=20)
    model = ModelSpec("tiny", data.findings, (32, 32), 32, "pad", 0.5, 0.2)
    same = []
    for row in found.findings:
        auroc = row.metrics["auroc"]
        same.append(FindingReliability(row.n, row.positives, (auroc.value, auroc.low, auroc.high), ()))
    calm = replace(found, findings=tuple(replace(row, brier_before=row.metrics["brier"]) for row in found.findings))
    assert shift_notes(calm, same, model, "RUN") == shift_notes(calm, [], model, "RUN") == []
    higher = [replace(same[0], auroc=(0.999, 0.998, 1.0)), *same[1:]]
    (note,) = shift_notes(calm, higher, model, "RUN")
    assert "1 of 2 findings" in note and "Mass: 0.999 (0.998–1.000)" in note and "ribcage convert RUN --data" in note
    blind = replace(model, training=TrainingRecord(images=9, patients=0))
    lower = [replace(same[0], auroc=(0.1, 0.05, 0.15)), *same[1:]]
    cause = "patient identifiers"
    assert cause in shift_notes(calm, higher, blind, "RUN")[0] and cause not in note
    assert cause not in shift_notes(calm, lower, blind, "RUN")[0], "shared patients raise the validation AUROC"
    first, *others = calm.findings
    before = ScalarEstimate(0.9 * (first.metrics["brier"].value or 0))
    worse = replace(first, temperature=0.000042, brier_before=before, brier_change=ScalarEstimate(low=0.01))
    chance = replace(worse, brier_change=ScalarEstimate(low=-0.01))  # as much, but of too few images to say so
    assert shift_notes(replace(calm, findings=(chance, *others)), same, model, "RUN") == []
    (note,) = shift_notes(replace(calm, findings=(worse, *others)), same, model, "RUN")
    assert has_facts(note, "Brier score", "Mass") and "4.2e-05" in note
    assert report.calibration_table(replace(calm, findings=(worse,))).all_rows[0][1] == "4.2e-05"


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}


def test_hostile_names_add_nothing_to_page_drawings_card_or_console(
    data: LabelledPredictions,
    result: ClassificationEvaluation,
    text: str,
    dataset: DatasetFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = ("<script>alert(1)</script>", '"><img src=x onerror="a" b=\u202e', "'`|](x)\x1b[2J" + "長" * 190)
    named = replace(data, predictions=replace(data.predictions, findings=hostile))
    rows = tuple(replace(row, finding=name) for row, name in zip(result.findings, hostile, strict=True))
    sets = (replace(CONTEXT.data[0], name=hostile[0], folder=hostile[1]),)
    test = RecordedTest(text=hostile[1], use=1, key="k")
    context = replace(CONTEXT, data=sets, run=hostile[2], test=test)
    found = replace(result, findings=rows, context=context, warnings=(hostile[1],))
    shown = report.classification_page(found, named, worst_errors(named, Datasets.of([dataset]), 8))
    tags, plain = Tags(), Tags()
    tags.feed(shown)
    plain.feed(text)
    assert tags.found <= plain.found | {"ul", "li"}  # the list of warnings
    assert not set(shown) & set("\x1b\u202e")
    for drawing in re.findall(r'<svg class="plot".*?</svg>', shown, re.S):
        ET.fromstring(drawing)
    one = history.PastTest(1, hostile[0], "test", "k", ("i",), "w", "", True, 5, 5, 2, "mean AUROC", 0.5, 0.4, 0.6)
    told = card.card_with_tests("# x\n\n## Limitations\n", found, [one])
    assert "<script" not in told and "<img" not in told and not set(told) & set("\x1b\u202e")
    (row,) = [line for line in told.splitlines() if line.startswith("| '")]
    assert row.startswith("| '\\`\\|\\](x)\\\\x1b\\[2J") and row.count(" | ") == 4
    print_evaluation(found, report.metric_table(found), report.metrics_note(found))
    assert not set(capsys.readouterr().out) & set("\x1b\u202e")
