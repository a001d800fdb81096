"""Model card: what users should know about a model, as Markdown from its spec and its tests."""

from collections.abc import Sequence

from markupsafe import Markup

from ribcage.bundle import history
from ribcage.bundle.history import PastTest
from ribcage.bundle.markdown import markdown_text, render_markdown
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TeacherRecord
from ribcage.bundle.usage import usage_lines
from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.definitions import load_metric, metrics_in
from ribcage.metrics.evaluation import Evaluation
from ribcage.metrics.reliability import FindingReliability

FITS = {"pad": "padded to a square", "crop": "cropped to a square", "squash": "stretched to a square"}
HEADS = {
    "cam": "Classifier whose boxes are derived from its Grad-CAM maps; no boxes were used for training",
    "fcos": "FCOS detector on a feature pyramid",
    "yolo": "Detector with YOLOv3 heads at three scales",
}
PRECISIONS = {"map": "mean", "ap50": "mean at IoU .50", "ap75": "mean at IoU .75"}
MOST_TESTS = 50
"""Maximum number of tests in the list, newest first."""
LIMITATIONS = "## Limitations\n"


def model_card(spec: ModelSpec, *, plain: bool = True, unknown: Sequence[str] = ()) -> str:
    """The model card.

    plain: the weights fit timm's model of this name.
    unknown: models and tables used in training whose own training data is unknown.
    """
    validation = spec.metrics.get("validation", {})
    return render_markdown(
        "card.md",
        model=spec,
        data=spec.data,
        trained=spec.training,
        converted=spec.converted,
        warning=spec.warning,
        detector=detector_summary(spec),
        fit=FITS.get(spec.fit, spec.fit),
        unknown=list(unknown),
        teachers=[teacher_summary(one) for one in spec.training.teachers or ()],
        precisions=[(PRECISIONS.get(name, name.removeprefix("map_")), score) for name, score in validation.items()]
        if "map" in validation
        else [],
        aurocs=auroc_rows(spec, validation),
        features=spec.metrics.get("features", {}),
        frontal=bool(spec.training.option("frontal")),
        licences=list(
            dict.fromkeys(Markup(f"{markdown_text(one.licence)} ({markdown_text(one.name)})") for one in spec.data)
        ),
        usage=Markup("\n".join(usage_lines(spec, plain=plain))),
    )


def teacher_summary(teacher: TeacherRecord) -> Markup:
    """densenet121 (14 findings); the table x.csv (Edema)"""
    name = markdown_text(teacher.name)
    if teacher.table:
        return Markup(f"the table {name} ({', '.join(map(markdown_text, teacher.findings))})")
    count = len(teacher.findings)
    return Markup(f"{name} ({count} finding{'s' * (count != 1)})")


def detector_summary(spec: ModelSpec) -> str:
    """Kind of a detector, its options and score thresholds; "" for other models."""
    if spec.detector is None:
        return ""
    thresholds = [f"{one:.3f}" if one is not None else "–" for one in spec.thresholds.get("f1", [])]
    title = "Score threshold" if len(thresholds) == 1 else "Score thresholds"
    shown = f" {title} with the highest F1 at IoU .40 on the validation images: {', '.join(thresholds)}."
    options = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in spec.detector.options.items())
    return f"{HEADS[spec.detector.head]} ({options}). Scores are not probabilities.{shown if thresholds else ''}"


def auroc_rows(spec: ModelSpec, scores: dict[str, float]) -> list[tuple[str, str, str]]:
    """(finding, positives, AUROC with its interval) on validation, and the mean over several findings."""
    reliability = dict(zip(spec.findings, spec.reliability, strict=False))  # absent in older models
    named = {name.removeprefix("auroc_"): score for name, score in scores.items() if name.startswith("auroc")}
    return [
        ("mean" if name == "auroc" else name, *_auroc(score, reliability.get(name)))
        for name, score in named.items()
        if name != "auroc" or len(spec.findings) > 1
    ]


def _auroc(score: float, one: FindingReliability | None) -> tuple[str, str]:
    if one is None:
        return "–", f"{score:.3f}"
    value, low, high = one.auroc
    limits = "" if low is None or high is None else f" ({low:.3f}–{high:.3f})"
    return f"{one.positives:,} of {one.images:,}", f"{value:.3f}{limits}"


# ---- tests


def card_with_tests(card: str, result: Evaluation, tests: Sequence[PastTest]) -> str:
    """The card with a list of all tests and, for each dataset and split, the best-documented unbiased test in full."""
    newest = tests[-1] if tests else None
    card = _with_section(card, "tests", _test_list(tests)) if tests else card
    if newest is None or not newest.honest or not isinstance(result, ClassificationEvaluation):
        return card
    name = markdown_text(f"{newest.name}, split {newest.split}")
    best = history.best_test(tests, newest)
    if best.number != newest.number and f"<!-- tested: {name} -->" in card:
        return card
    columns = {each: load_metric(each).label for each in metrics_in("card")}
    section = render_markdown("card_test.md", name=name, test=newest, result=result, columns=columns)
    return _with_section(card, f"tested: {name}", section)


def _test_list(tests: Sequence[PastTest]) -> str:
    rows = [(one, history.new(one, tests[:place])) for place, one in enumerate(tests)]
    most = max(len(history.use(tests, one.contents, one.split)) for one in tests)
    return render_markdown("card_tests.md", count=len(tests), most=most, rows=rows[-MOST_TESTS:])


def _with_section(card: str, mark: str, section: str) -> str:
    """The card with a section in place of the one with the same marker, else before the section on limitations."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    section = f"{start}\n{section}\n{end}\n\n"
    if start in card and end in card.split(start, 1)[1]:
        before, rest = card.split(start, 1)
        return before + section + rest.split(end, 1)[1].lstrip("\n")
    return card.replace(LIMITATIONS, section + LIMITATIONS, 1) if LIMITATIONS in card else f"{card}\n{section}"
