"""Notes and warnings of an evaluation: what was left out, what is unknown, and what biases the results."""

import shlex
from collections.abc import Sequence

import numpy as np

from ribcage import metrics
from ribcage.bundle.card import FITS
from ribcage.bundle.spec import ModelSpec
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.metrics.classification_evaluation import ClassificationEvaluation, ClassifiedFinding
from ribcage.metrics.evaluation import Evaluation
from ribcage.metrics.evaluation_context import EvaluationContext
from ribcage.metrics.reliability import FindingReliability
from ribcage.runtime.spelling import count_phrase

ORDER_LOST = 0.0005
"""Smallest difference between the AUROC by logits and by probabilities for a note: one in the third decimal."""
WORSE = 0.01
"""Minimum relative increase of the Brier score for a note that temperature scaling harms."""


def classification_notes(data: LabelledPredictions, found: ClassificationEvaluation) -> tuple[str, ...]:
    """Notes on what was left out, and on missing intervals and thresholds."""
    rows, texts = found.findings, []
    if empty := [row.finding for row in rows if row.metrics["auroc"].value is None]:
        texts.append(
            f"The AUROC of {', '.join(empty)} is undefined, because only one class occurs among these images."
            + (
                f" The mean AUROC is over the other {len(rows) - len(empty)} findings."
                if len(rows) - len(empty) > 1
                else ""
            )
        )
    left = int(np.isnan(data.labels).sum())
    uncertain = int((np.isnan(data.labels) & (data.source == -1)).sum())
    if left:
        texts.append(
            f"{count_phrase(left, 'label is', 'labels are')} not used: {count_phrase(uncertain, 'is', 'are')} "
            f"uncertain, and {count_phrase(left - uncertain, 'is', 'are')} missing in the source data."
        )
    if alone := [row.finding for row in rows if _without_interval(row)]:
        texts.append(
            f"The AUROC of {', '.join(alone)} has no interval: all positive or all negative images belong to one "
            "patient, so no variance can be estimated. The interval of the mean assumes the largest possible "
            "standard error for such findings."
        )
    texts += unknown_patients_note(int((data.about["patient"] == "").sum()))
    texts += _ties_notes(data)
    if not data.thresholds:
        texts.append(
            "The model has no thresholds chosen on a validation split, so sensitivity, specificity and the other "
            "threshold metrics are computed at a threshold of 0.5."
        )
    return tuple(texts)


def _ties_notes(data: LabelledPredictions) -> list[str]:
    """A note on each finding whose AUROC is another one by logits, because probabilities that are rounded to 1 tie."""
    certain = (data.probabilities == 1).sum(axis=0)
    if data.predictions.exclusive or not certain.any():
        return []
    by_logits, by_probabilities = (
        metrics.auroc(one, data.labels) for one in (data.predictions.log_odds(), data.probabilities)
    )
    return [
        f"{count_phrase(int(certain[place]), 'image has', 'images have')} a probability of {name} that rounds to "
        f"exactly 1, so the order of such images is lost: the AUROC is {by_probabilities[place]:.3f} if it is "
        f"computed from the probabilities, and {by_logits[place]:.3f} from the logits."
        for place, name in enumerate(data.findings)
        if abs(by_logits[place] - by_probabilities[place]) >= ORDER_LOST
    ]


def _without_interval(row: ClassifiedFinding) -> bool:
    return row.metrics["auroc"].value is not None and row.metrics["auroc"].low is None


def unknown_patients_note(count: int) -> list[str]:
    """Note on how images without a patient are counted, and on what cannot be checked without them."""
    if not count:
        return []
    return [
        f"The patient is unknown for {count_phrase(count, 'image')}. Such images are counted as separate patients, and "
        "patients shared between splits cannot be detected among them."
    ]


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
    lower = any(_differ(row, then) and (row.metrics["auroc"].value or 0.0) < then[0] for row, then in known)
    harmed = [
        f"{row.finding}: {row.brier_before.value:.3f} before and {row.metrics['brier'].value:.3f} after scaling with a "
        f"temperature of {row.temperature:.3g}"
        for row in found.findings
        if _harmed(row)
    ]
    run = shlex.quote(run)
    again = (
        f"To refit the temperatures and the thresholds to local images, run 'ribcage convert {run} --data LOCAL --val "
        f"val --out NEW'"
    )
    texts = []
    if apart:
        where = f"For {len(apart)} of {len(known)} findings, " if len(known) > 1 else f"For {known[0][0].finding}, "
        texts.append(
            f"{where}the intervals of the validation and the test AUROC do not overlap ({_few(apart)}): the test "
            f"images differ from the model's validation images{_shared_patients(model) if lower else ''}. {again}. If "
            f"the AUROC is too low, fine-tune the model on local images with 'ribcage finetune --init {run}'."
        )
    if harmed:
        texts.append(
            f"On the test images, temperature scaling increases the Brier score ({_few(harmed)}): the fitted "
            f"temperature does not suit images like these. {again}."
        )
    return texts


def _shared_patients(model: ModelSpec) -> str:
    """Another possible cause: training and validation images of the same patients, if no patient is known."""
    if model.training.patients != 0:
        return ""
    return (
        ". Another possible cause is that validation patients are also in the training split, which cannot be checked, "
        "because the training data have no patient identifiers"
    )


def _has_interval(row: ClassifiedFinding) -> bool:
    here = row.metrics["auroc"]
    return here.low is not None and here.high is not None


def _differ(row: ClassifiedFinding, then: Sequence[float]) -> bool:
    here = row.metrics["auroc"]
    return (here.high or 0.0) < then[1] or (here.low or 0.0) > then[2]


def _both(row: ClassifiedFinding, then: Sequence[float]) -> str:
    here = row.metrics["auroc"]
    return (
        f"{row.finding}: {then[0]:.3f} ({then[1]:.3f}–{then[2]:.3f}) on validation images and {here.value:.3f} "
        f"({here.low:.3f}–{here.high:.3f}) on test images"
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
        return [
            f"The label policy of this test is '{policy}', but the policy was '{of_validation}' when the model was "
            f"validated."
        ]
    return [f"The label policy is '{policy}', as in the validation of the model."] if policy != "ignore" else []


# ---- warnings


def classification_warnings(found: Evaluation) -> tuple[str, ...]:
    """What biases the metrics of a classifier, most severe first."""
    peers = (
        "The thresholds were chosen on the test images (--protocol peers, as in some published work), so accuracy, F1, "
        "sensitivity and specificity are higher than they would be on new patients."
    )
    return _warnings(found, peers, "no dataset has labels")


def detection_warnings(found: Evaluation) -> tuple[str, ...]:
    """What biases the metrics of a detector, most severe first."""
    peers = (
        "The score threshold was chosen on the test images (--protocol peers, as in some published work), so the "
        "per-image precision is higher than it would be on new patients."
    )
    return _warnings(found, peers, "no dataset has boxes")


def _warnings(found: Evaluation, peers: str, lacking: str) -> tuple[str, ...]:
    context = found.context
    texts = _leakage_warnings(context)
    if found.protocol == "peers":
        texts.insert(1 if context.leak.found else 0, peers)
    if context.others:
        texts.append(
            f"The model was trained on frontal images only, but {context.others:,} of the test images are not known "
            "to be frontal. Exclude them with --frontal."
        )
    texts += [
        f"The images in {one.folder} were {FITS.get(one.fit, one.fit)}, but the training images were "
        f"{FITS.get(context.model.fit, context.model.fit)}, so the anatomy is scaled differently."
        for one in context.data
        if one.fit != context.model.fit
    ]
    texts += [
        f"The images in {one.folder} were stored at {one.size} px, but the training images were stored at "
        f"{context.model.stored} px, so the images differ in sharpness."
        for one in context.data
        if one.size != context.model.stored
    ]
    if context.not_tested:
        one = len(context.not_tested) == 1
        verb, them = ("was", "this finding") if one else ("were", "these findings")
        texts.append(f"{', '.join(context.not_tested)} {verb} not tested, because {lacking} for {them}.")
    return tuple(texts)


def _leakage_warnings(context: EvaluationContext) -> list[str]:
    """Warnings about test images that the model was trained or selected on, or may have been."""
    leak, model, texts = context.leak, context.model, []
    if leak.found:
        texts.append(
            "This is not a held-out test: leakage was found and allowed by --allow-leak or --protocol peers. "
            f"{leak.text}."
        )
    if leak.unseen:
        texts.append(
            f"{count_phrase(leak.unseen, 'training image')} could not be compared with the test images, except by "
            "patient, because the training data were imported with --link and have no fingerprints."
        )
    if leak.unknown:
        texts.append(
            f"The model was initialised from {' and '.join(leak.unknown)}, whose training data are unknown. If they "
            f"contain test images, the results are too optimistic."
        )
    if model.leak:
        texts.append(f"Model selection and thresholds are biased by leakage: {model.leak}.")
    if context.split in model.splits:
        texts.append(
            f"The test images are from split {context.split!r}, so the model may have been trained or selected on them."
        )
    return texts
