"""Classification: labelled predictions → all numbers of a report.

Scores are calibrated probabilities. Their temperature and the thresholds were chosen on validation images. A metric
that is undefined because a class is missing is None, and a mean states over how many findings it is taken.
"""

from dataclasses import replace

import numpy as np

from ribcage import metrics
from ribcage.bundle.spec import DEFAULT_RULE, HALF
from ribcage.evaluation.baselines import BaselineData, classification_baselines
from ribcage.evaluation.calibration import class_numbers, thresholds_by_rule
from ribcage.evaluation.labelled import LabelledPredictions, known_patients
from ribcage.evaluation.notes import classification_notes
from ribcage.evaluation.subgroups import classification_subgroups
from ribcage.metrics import MetricSummary, multiclass
from ribcage.metrics.classification_evaluation import (
    ClassificationEvaluation,
    ClassifiedFinding,
    ThresholdRow,
    Top1Accuracy,
)
from ribcage.metrics.definitions import metrics_of
from ribcage.metrics.estimates import mean_estimate, optional_float, scalar_estimate
from ribcage.metrics.evaluation import Protocol

BINS = 15
LEVEL = 0.95


def evaluate_classifier(
    data: LabelledPredictions,
    *,
    rule: str = DEFAULT_RULE,
    protocol: Protocol = "honest",
    fitting: BaselineData | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassificationEvaluation:
    """Evaluate the predictions of a classifier.

    rule: of the thresholds at which accuracy, F1, sensitivity and specificity of each finding are given.
    protocol: "peers" chooses the thresholds on the test images themselves, as published tables often do.
    fitting: images that the baselines are fitted to.
    """
    if protocol == "peers":
        data = replace(data, thresholds=thresholds_by_rule(data.probabilities, data.labels))
    known_rules = [*(data.thresholds or {}), HALF]
    rule = rule if data.thresholds else HALF
    if rule not in known_rules:
        raise ValueError(f"Unknown threshold rule {rule!r}. Rules available for this model: {', '.join(known_rules)}.")
    chosen = data.threshold(rule)
    whole = metrics.summarise(
        data.probabilities, data.labels, data.patients, thresholds=chosen, probabilities=data.probabilities,
        resamples=resamples, seed=seed,
    )  # fmt: skip
    found = ClassificationEvaluation(
        images=len(data),
        patients=known_patients(data),
        protocol=protocol,
        rule=rule,
        level=LEVEL,
        resamples=resamples,
        seed=seed,
        findings=classified_findings(data, whole, rule),
        macro={name: mean_estimate(each.macro, each.averaged) for name, each in whole.metrics.items()},
        rules={each: threshold_rows(data, each) for each in known_rules},
        baselines=classification_baselines(data, fitting, resamples=resamples, seed=seed),
        subgroups=classification_subgroups(data, chosen, resamples=resamples, seed=seed, level=LEVEL),
        top1=top1_accuracy(data, resamples=resamples, seed=seed) if data.predictions.exclusive else None,
    )
    return replace(found, notes=classification_notes(data, found))


def classified_findings(data: LabelledPredictions, whole: MetricSummary, rule: str) -> tuple[ClassifiedFinding, ...]:
    """One row per finding."""
    before = metrics.bootstrap(
        data.uncalibrated, data.labels, data.patients, probabilities=data.uncalibrated, resamples=1
    )["brier"].interval(LEVEL)  # the interval of the Brier score needs no resamples
    change = metrics.brier_change(data.probabilities, data.uncalibrated, data.labels, data.patients, LEVEL)
    ece = metrics.ece(data.uncalibrated, data.labels, bins=BINS)
    calibrated = metrics.ece(data.probabilities, data.labels, bins=BINS)
    rows = []
    for place, name in enumerate(data.findings):
        source, n = data.source[:, place], int(whole.n[place])
        rows.append(
            ClassifiedFinding(
                finding=name,
                n=n,
                positives=int(whole.positives[place]),
                prevalence=optional_float(whole.positives[place] / n) if n else None,
                uncertain=int((source == -1).sum()),
                unknown=int(np.isnan(source).sum()),
                left_out=len(data) - n,
                threshold=optional_float(data.threshold(rule)[place]),
                temperature=data.temperature[place] if data.temperature else None,
                metrics={key: scalar_estimate(found.findings, place) for key, found in whole.metrics.items()},
                brier_before=scalar_estimate(before, place),
                brier_change=scalar_estimate(change, place),
                ece=optional_float(calibrated[place]),
                ece_before=optional_float(ece[place]),
            )
        )
    return tuple(rows)


def threshold_rows(data: LabelledPredictions, rule: str) -> tuple[ThresholdRow, ...]:
    """Rates at the thresholds of one rule. Their intervals need no resamples."""
    chosen = data.threshold(rule)
    found = metrics.bootstrap(data.probabilities, data.labels, data.patients, thresholds=chosen, resamples=1)
    rates = {name: found[name].interval(LEVEL) for name in metrics_of("threshold")}
    return tuple(
        ThresholdRow(
            finding=name,
            threshold=optional_float(chosen[place]),
            metrics={rate: scalar_estimate(interval, place) for rate, interval in rates.items()},
        )
        for place, name in enumerate(data.findings)
    )


def top1_accuracy(data: LabelledPredictions, *, resamples: int, seed: int) -> Top1Accuracy:
    """Share of the images whose most probable finding is the labelled one."""
    correct = multiclass.correct(data.probabilities, class_numbers(data.labels))[:, None]
    known = np.where(np.isnan(correct), np.nan, 1.0)
    found = metrics.bootstrap(
        np.nan_to_num(correct), known, data.patients, thresholds=0.5, resamples=resamples, seed=seed
    )["sensitivity"]
    one = scalar_estimate(found.interval(LEVEL))
    return Top1Accuracy(one.value, one.low, one.high, n=int((known == 1).sum()))
