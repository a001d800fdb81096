"""Notes and warnings of an evaluation: what was left out, what is unknown, and what biases the results."""

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
"""Minimum relative increase of the Brier score for a note that temperature scaling harms."""


def classification_notes(data: LabelledPredictions, found: ClassificationEvaluation) -> tuple[str, ...]:
    """Notes on what was left out, and on missing intervals and thresholds."""
    rows, texts = found.findings, []
    if empty := [row.finding for row in rows if row.metrics["auroc"].value is None]:
        texts.append(
            f"{', '.join(empty)}: only one class occurs among these images, so the AUROC is undefined"
            + (f"; the mean is over the other {len(rows) - len(empty)}." if len(rows) - len(empty) > 1 else ".")
        )
    left = int(np.isnan(data.labels).sum())
    uncertain = int((np.isnan(data.labels) & (data.source == -1)).sum())
    if left:
        texts.append(
            f"{left:,} labels are left out: {uncertain:,} are uncertain, {left - uncertain:,} are missing in the "
            "source."
        )
    if alone := [row.finding for row in rows if _without_interval(row)]:
        texts.append(
            f"{', '.join(alone)}: all positive or all negative images are of one patient, so no variance and no "
            "interval can be estimated. The interval of the mean assumes the largest possible error for such a "
            "finding."
        )
    texts += unknown_patients_note(int((data.about["patient"] == "").sum()))
    if not data.thresholds:
        texts.append("The model has no thresholds from validation: rates are at a threshold of 0.5.")
    return tuple(texts)


def _without_interval(row: ClassifiedFinding) -> bool:
    return row.metrics["auroc"].value is not None and row.metrics["auroc"].low is None


def unknown_patients_note(count: int) -> list[str]:
    """Note on how images without a patient are counted."""
    return [f"{count:,} images have no known patient: each counts as a separate patient."] if count else []


def shift_notes(
    found: ClassificationEvaluation, reliability: Sequence[FindingReliability], model: ModelSpec, run: str
) -> list[str]:
    """A note if the AUROC on validation and test differs beyond the intervals, and one if temperature scaling worsens
    the Brier score; each with a remedy.

    reliability: of each finding of the model, on validation images.
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
    again = f"'ribcage convert {run} --data LOCAL --val val --out NEW' fits temperatures and thresholds to local images"
    texts = []
    if apart:
        texts.append(
            f"The AUROC on validation and test images differs beyond the intervals ({_few(apart)}; {len(apart)} of "
            f"{len(known)} findings): these images differ from the model's validation images. {again}; if the ranking "
            f"is worse, 'ribcage finetune --init {run}' on local images is needed."
        )
    if harmed:
        texts.append(
            f"Temperature scaling increases the Brier score here ({_few(harmed)}): probabilities are not calibrated "
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
    """Note on the label policy, if it is not the default or differs from that of validation."""
    if of_validation and policy != of_validation:
        return [f"Label policy: '{policy}' here, '{of_validation}' in the validation of the model."]
    return [f"Label policy: '{policy}', as in the validation of the model."] if policy != "ignore" else []


# ---- warnings


def classification_warnings(found: Evaluation) -> tuple[str, ...]:
    """What biases the metrics of a classifier, most severe first."""
    peers = (
        "Protocol of peers: the thresholds were chosen on the test images themselves, so accuracy, F1, sensitivity and "
        "specificity are better than on new patients."
    )
    lacking = "no dataset has labels for it"
    return _warnings(found, peers, lacking)


def detection_warnings(found: Evaluation) -> tuple[str, ...]:
    """What biases the metrics of a detector, most severe first."""
    peers = (
        "Protocol of peers: the score threshold was chosen on the test images themselves, so the precision per image "
        "is better than on new patients."
    )
    return _warnings(found, peers, "the data has no box of it")


def _warnings(found: Evaluation, peers: str, lacking: str) -> tuple[str, ...]:
    context = found.context
    texts = _leakage_warnings(context)
    if found.protocol == "peers":
        texts.insert(1 if context.leak.found else 0, peers)
    if context.others:
        texts.append(
            f"The model was trained on frontal images only, but {context.others:,} of these are not known to be "
            "frontal. Leave them out with --frontal."
        )
    texts += [
        f"The images of {one.folder} were made square by '{one.fit}', the training images by '{context.model.fit}', so "
        "the anatomy is scaled differently."
        for one in context.data
        if one.fit != context.model.fit
    ]
    texts += [
        f"The images of {one.folder} were stored at {one.size} px, the training images at {context.model.stored} px, "
        "so the sharpness differs."
        for one in context.data
        if one.size != context.model.stored
    ]
    if context.not_tested:
        texts.append(f"Not tested, because {lacking}: {', '.join(context.not_tested)}.")
    return tuple(texts)


def _leakage_warnings(context: EvaluationContext) -> list[str]:
    """Warnings about test images that the model was trained or selected on, or may have been."""
    leak, model, texts = context.leak, context.model, []
    if leak.found:
        texts.append(
            f"The results are biased by leakage, which was allowed by --allow-leak or --protocol peers. {leak.text}."
        )
    if leak.unseen:
        texts.append(
            f"{leak.unseen:,} training images have no fingerprint (they were linked, not imported), so test images "
            "could be compared with them by patient only."
        )
    if leak.unknown:
        texts.append(
            f"The training data of {' and '.join(leak.unknown)}, the initial weights of this model, is unknown. If it "
            "contains these images, the results are too good."
        )
    if model.leak:
        texts.append(f"Model selection and thresholds are biased by leakage: {model.leak}.")
    if context.split in model.splits:
        texts.append(
            f"These are images of split {context.split!r}: the model may have been trained or selected on them."
        )
    return texts
