"""Notes and warnings of an evaluation: what was left out, what cannot be known, and what is not honest."""

import shlex
from collections.abc import Sequence

import numpy as np

from ribcage.bundle.spec import ModelSpec
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.metrics.classification_evaluation import ClassificationEvaluation, ClassifiedFinding
from ribcage.metrics.evaluation import Evaluation
from ribcage.metrics.evaluation_context import EvaluationContext
from ribcage.metrics.reliability import FindingReliability

WORSE = 0.01
"""By what share a temperature must worsen the Brier score to be mentioned, beyond what its interval allows."""


def classification_notes(data: LabelledPredictions, found: ClassificationEvaluation) -> tuple[str, ...]:
    """What was left out, and where an interval or a threshold is missing."""
    rows, texts = found.findings, []
    if empty := [row.finding for row in rows if row.metrics["auroc"].value is None]:
        texts.append(
            f"{', '.join(empty)}: only one class is known in these images, so no AUROC exists"
            + (f"; the mean is of the other {len(rows) - len(empty)}." if len(rows) - len(empty) > 1 else ".")
        )
    left = int(np.isnan(data.labels).sum())
    uncertain = int((np.isnan(data.labels) & (data.source == -1)).sum())
    if left:
        texts.append(
            f"{left:,} labels are left out: {uncertain:,} are uncertain, {left - uncertain:,} missing in the source."
        )
    if alone := [row.finding for row in rows if _without_interval(row)]:
        texts.append(
            f"{', '.join(alone)}: all positive or all negative images are of one patient, so there is no variance and "
            "no interval. The interval of the mean counts such a finding with the largest possible error."
        )
    texts += unknown_patients_note(int((data.about["patient"] == "").sum()))
    if not data.thresholds:
        texts.append("The model has no thresholds from validation: rates are at 0.5.")
    return tuple(texts)


def _without_interval(row: ClassifiedFinding) -> bool:
    return row.metrics["auroc"].value is not None and row.metrics["auroc"].low is None


def unknown_patients_note(count: int) -> list[str]:
    """How images without a patient are counted."""
    return [f"The patient of {count:,} images is not known: each counts as a patient of its own."] if count else []


def shift_notes(
    found: ClassificationEvaluation, reliability: Sequence[FindingReliability], model: ModelSpec, run: str
) -> list[str]:
    """A note where validation and test differ beyond their intervals, and one where temperature scaling harms; each
    with what usually helps.

    reliability: of each finding of the model, on validation.
    """
    validated = dict(zip(model.findings, (one.auroc_interval for one in reliability), strict=False))
    both = [(row, validated.get(row.finding)) for row in found.findings if _has_interval(row)]
    known = [(row, then) for row, then in both if then is not None]
    apart = [_both(row, then) for row, then in known if _differ(row, then)]
    harmed = [
        f"{row.finding} {row.brier_before.value:.3f} without, {row.metrics['brier'].value:.3f} with "
        f"{row.temperature:.2f}"
        for row in found.findings
        if _harmed(row)
    ]
    run = shlex.quote(run)
    again = f"'ribcage convert {run} --data LOCAL --val val --out NEW' fits temperature and thresholds to local images"
    texts = []
    if apart:
        texts.append(
            f"Validation and test differ beyond their intervals (AUROC of {_few(apart)}; {len(apart)} of {len(known)} "
            f"findings): these images differ from the validation images of the model. {again}; a worse ranking needs "
            f"'ribcage finetune --init {run}' on local images."
        )
    if harmed:
        texts.append(
            f"Temperature scaling makes the Brier score worse here ({_few(harmed)}): probabilities are not calibrated "
            f"for these images. {again}."
        )
    return texts


def _has_interval(row: ClassifiedFinding) -> bool:
    here = row.metrics["auroc"]
    return here.low is not None and here.high is not None


def _differ(row: ClassifiedFinding, then: Sequence[float]) -> bool:
    here = row.metrics["auroc"]
    return (here.high or 0.0) < then[1] or (here.low or 0.0) > then[2]


def _both(row: ClassifiedFinding, then: Sequence[float]) -> str:
    here = row.metrics["auroc"]
    return (
        f"{row.finding} {then[0]:.3f} ({then[1]:.3f}–{then[2]:.3f}) on validation, {here.value:.3f} "
        f"({here.low:.3f}–{here.high:.3f}) here"
    )


def _harmed(row: ClassifiedFinding) -> bool:
    after, before = row.metrics["brier"].value, row.brier_before.value
    sure = (row.brier_change.low or 0.0) > 0
    return bool(row.temperature) and after is not None and before is not None and sure and after > before * (1 + WORSE)


def _few(texts: Sequence[str], most: int = 3) -> str:
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most:,} more" if len(texts) > most else "")


def policy_notes(policy: str, of_validation: str) -> list[str]:
    """The label policy, where it matters."""
    if of_validation and policy != of_validation:
        return [f"Label policy: '{policy}' here, '{of_validation}' in the model's own validation."]
    return [f"Label policy: '{policy}', as in the model's own validation."] if policy != "ignore" else []


# ---- warnings


def classification_warnings(found: Evaluation) -> tuple[str, ...]:
    """What makes the numbers of a classifier less than honest, the worst first."""
    peers = (
        "Protocol of peers: the thresholds were chosen on the tested images themselves, so accuracy, F1, sensitivity "
        "and specificity are better than they would be on new patients."
    )
    lacking = "no dataset has labels for it"
    return _warnings(found, peers, lacking)


def detection_warnings(found: Evaluation) -> tuple[str, ...]:
    """The same for a detector."""
    peers = (
        "Protocol of peers: the score threshold was chosen on the tested images themselves, so the per-image precision "
        "is better than it would be on new patients."
    )
    return _warnings(found, peers, "the data has no box of it")


def _warnings(found: Evaluation, peers: str, lacking: str) -> tuple[str, ...]:
    context = found.context
    texts = _leakage_warnings(context)
    if found.protocol == "peers":
        texts.insert(1 if context.leak.found else 0, peers)
    if context.others:
        texts.append(
            f"The model was trained on frontal images only, and {context.others:,} of these are not known to be "
            "frontal: --frontal leaves them out."
        )
    texts += [
        f"The images of {one.folder} were made square by '{one.fit}', the training images by '{context.model.fit}': "
        "shapes differ from training."
        for one in context.data
        if one.fit != context.model.fit
    ]
    texts += [
        f"The images of {one.folder} were stored at {one.size} px, the training images at {context.model.stored} px: "
        "sharpness differs from training."
        for one in context.data
        if one.size != context.model.stored
    ]
    if context.not_tested:
        texts.append(f"Not tested, since {lacking}: {', '.join(context.not_tested)}.")
    return tuple(texts)


def _leakage_warnings(context: EvaluationContext) -> list[str]:
    """What the model has seen of the tested images, or may have seen."""
    leak, model, texts = context.leak, context.model, []
    if leak.found:
        texts.append(f"Not an honest test. {leak.text}. It was made with --allow-leak or --protocol peers.")
    if leak.unseen:
        texts.append(
            f"{leak.unseen:,} training images have no fingerprint (they were linked, not imported): whether tested "
            "images are among them, or copies of them, is known only as far as patients are."
        )
    if leak.unknown:
        texts.append(
            f"The training data of {' and '.join(leak.unknown)}, which this model comes from, is unknown: if it "
            "contains these images, the numbers are too good."
        )
    if model.leak:
        texts.append(f"Model selection and thresholds are not honest: {model.leak}.")
    if context.split in model.splits:
        texts.append(f"These are {context.split} images, not test images: the model may have been selected on them.")
    return texts
