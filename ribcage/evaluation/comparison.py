"""Comparison: predictions of several models for the same images → paired differences with intervals and p-values.

Every model is compared with the first one. Both tests are paired: the same resamples of patients for all models, or
DeLong's covariance. An interval excludes 0 exactly if p < .05. Accuracy and F1 are at the thresholds each model was
evaluated at; their means are over the findings for which every model with thresholds has one, so that the means are
comparable. p-values are adjusted by Holm's method over all findings and models; those of the means over findings are
adjusted over the models only. The cost of each model is added if its bundle is known.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ribcage import metrics
from ribcage.bundle import cost
from ribcage.bundle.io import find_bundle
from ribcage.bundle.spec import WEIGHTS_FILE, ModelSpec
from ribcage.evaluation.alignment import Aligned, align
from ribcage.evaluation.classification import LEVEL
from ribcage.evaluation.comparison_entries import ComparisonEntry
from ribcage.evaluation.notes import unknown_patients_note
from ribcage.metrics import Comparison
from ribcage.metrics.classification_evaluation import ThresholdRow
from ribcage.metrics.definitions import load_metric, metrics_in, metrics_of
from ribcage.metrics.estimates import MeanEstimate, ScalarEstimate, mean_estimate, optional_float, scalar_estimate
from ribcage.runtime.spelling import count_phrase
from ribcage.runtime.typed_json import INLINE

METRICS = (*metrics_in("comparison"), "auroc_delong")
AT_THRESHOLD = ", ".join(load_metric(name).label for name in METRICS if name in metrics_of("threshold"))
FEW_PATIENTS = 20
"""Positive or negative patients of a finding below which the paired tests reject too often (docs/benchmarks.md)."""


@dataclass(frozen=True, kw_only=True)
class Difference(ScalarEstimate):
    """A metric of a model minus that of the first model."""

    p: float | None
    adjusted: float | None
    """p-value after Holm's adjustment."""


@dataclass(frozen=True, kw_only=True)
class ComparedCosts:
    """Parameters and operations per image, bytes on disk, and latency if it was measured."""

    parameters: int
    thop: int
    multiply_adds: int
    outside: int
    bytes: int
    latency: cost.Latency | None


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """Results of one model."""

    name: str
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    rule: str
    costs: ComparedCosts | None
    macro: dict[str, MeanEstimate]
    findings: tuple[ThresholdRow, ...]


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """Differences of one finding."""

    finding: str
    metrics: dict[str, Difference] = field(default_factory=dict, metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class ModelDifference:
    """A model minus the first one."""

    model: str
    minus: str
    findings: tuple[DifferenceRow, ...]
    macro: dict[str, Difference]


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """All numbers of a comparison."""

    images: int
    patients: int
    without_patient: int
    otherwise_grouped: tuple[str, ...] = ()
    """Models whose tables group the images by other patients."""
    left_out: dict[str, int]
    """Per model, images that not all models have."""
    findings_left_out: dict[str, tuple[str, ...]]
    rated: tuple[str, ...]
    """Findings in the means of metrics at a threshold."""
    positive_patients: dict[str, int] = field(default_factory=dict)
    """Of each finding; an image whose patient is unknown counts as one."""
    negative_patients: dict[str, int] = field(default_factory=dict)
    level: float
    resamples: int
    seed: int
    models: tuple[ComparedModel, ...]
    differences: tuple[ModelDifference, ...]


def compare(
    entries: Sequence[ComparisonEntry], *, resamples: int = 1000, seed: int = 0, timing: cost.Timing | None = None
) -> ComparisonResult:
    """Compare the models with the first one.

    timing: how to measure the latency of each model for the first batch size; None: not at all.
    """
    if len(entries) < 2:
        raise ValueError("A comparison needs two or more models.")
    if len({one.name for one in entries}) < len(entries):
        raise ValueError("A model is listed twice. List each model only once.")
    data = align(entries)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    models = list(zip(data.scores, [at(one, data.findings) for one in entries], strict=True))
    options["rated"] = rated([thresholds for _, thresholds in models])
    wholes = [
        metrics.summarise(scores, data.labels, data.patients, thresholds=thresholds, **options).metrics
        for scores, thresholds in models
    ]
    pairs = [
        metrics.compare_scores(
            scores, models[0][0], data.labels, data.patients, at=(thresholds, models[0][1]), **options
        )
        for scores, thresholds in models[1:]
    ]
    return ComparisonResult(
        images=len(data.labels),
        patients=len(set(data.patients.tolist()) - {""}),
        without_patient=int((data.patients == "").sum()),
        otherwise_grouped=data.otherwise_grouped,
        left_out=data.left_out,
        findings_left_out=data.findings_left_out,
        rated=tuple(name for name, counts in zip(data.findings, options["rated"], strict=True) if counts),
        positive_patients=patients_with(data, 1),
        negative_patients=patients_with(data, 0),
        level=LEVEL,
        resamples=resamples,
        seed=seed,
        models=tuple(
            ComparedModel(
                name=one.name,
                warnings=one.warnings,
                assumptions=one.assumptions,
                rule=one.rule,
                costs=cost,
                macro={name: mean_estimate(whole[name].macro, whole[name].averaged) for name in METRICS},
                findings=tuple(
                    ThresholdRow(
                        finding=finding,
                        threshold=optional_float(chosen[place]),
                        metrics={name: scalar_estimate(whole[name].findings, place) for name in METRICS},
                    )
                    for place, finding in enumerate(data.findings)
                ),
            )
            for one, whole, (_, chosen), cost in zip(entries, wholes, models, costs(entries, timing), strict=True)
        ),
        differences=differences(entries, data, pairs),
    )


def at(one: ComparisonEntry, findings: Sequence[str]) -> np.ndarray:
    """(F,) thresholds of a model; NaN for a finding without one."""
    found = [one.thresholds.get(name) for name in findings]
    return np.array([np.nan if each is None else each for each in found])


def rated(thresholds: Sequence[np.ndarray]) -> np.ndarray:
    """(F,) bool: findings for which every model that has any thresholds has one."""
    known = ~np.isnan(np.stack(thresholds))  # (models, F)
    return known.any(axis=0) & known[known.any(axis=1)].all(axis=0)


def subject_of(bundle: Path) -> cost.Subject | None:
    """The model to measure; None for an opaque network, whose operations cannot be counted."""
    opaque = ModelSpec.load(find_bundle(bundle) / "model.json").opaque
    return None if opaque else cost.Subject.of(bundle)


def costs(entries: Sequence[ComparisonEntry], timing: cost.Timing | None = None) -> list[ComparedCosts | None]:
    """Cost of each model; None if its bundle is not known, or if it is opaque."""
    subjects = [None if one.bundle is None else subject_of(one.bundle) for one in entries]
    known = [one for one in subjects if one is not None]
    times = iter(cost.measured_by_turns(known, timing) if timing else [None] * len(known))
    return [
        None
        if one is None or one.folder is None
        else ComparedCosts(
            **asdict(cost.count_operations(one)),
            bytes=(find_bundle(one.folder) / WEIGHTS_FILE).stat().st_size,
            latency=next(times),
        )
        for one in subjects
    ]


def patients_with(data: Aligned, label: int) -> dict[str, int]:
    """How many patients of each finding have an image with this label."""
    own = np.where(data.patients == "", [f"\0{row}" for row in range(len(data.patients))], data.patients)
    return {name: len(set(own[column == label])) for name, column in zip(data.findings, data.labels.T, strict=True)}


def differences(
    entries: Sequence[ComparisonEntry], data: Aligned, pairs: Sequence[dict[str, Comparison]]
) -> tuple[ModelDifference, ...]:
    """Differences of each model to the first one."""
    adjusted = {name: holm_over_models([pair[name].p for pair in pairs]) for name in METRICS}
    found = []
    for n, (one, pair) in enumerate(zip(entries[1:], pairs, strict=True)):
        cells = [
            {name: _difference(pair[name], place, adjusted[name][n, place]) for name in METRICS}
            for place in range(len(data.findings) + 1)
        ]
        rows = [DifferenceRow(finding=name, metrics=cell) for name, cell in zip(data.findings, cells, strict=False)]
        found.append(ModelDifference(model=one.name, minus=entries[0].name, findings=tuple(rows), macro=cells[-1]))
    return tuple(found)


def _difference(pair: Comparison, place: int, adjusted: float) -> Difference:
    one = scalar_estimate(pair.interval, place)
    return Difference(
        value=one.value, low=one.low, high=one.high, p=optional_float(pair.p[place]), adjusted=optional_float(adjusted)
    )


def holm_over_models(p: Sequence[np.ndarray]) -> np.ndarray:
    """(models, F + 1) adjusted p-values: findings of all models together, means separately."""
    asked = np.stack(p)
    findings = metrics.holm(asked[:, :-1].ravel()).reshape(asked[:, :-1].shape)
    return np.concatenate([findings, metrics.holm(asked[:, -1])[:, None]], axis=1)


def thresholded(model: ComparedModel) -> list[tuple[str, bool]]:
    """Each finding, and whether the model has a threshold for it."""
    return [(row.finding, row.threshold is not None) for row in model.findings]


def comparison_notes(result: ComparisonResult) -> list[str]:
    """Notes on what was left out, assumed or not measured, and the warnings of each evaluation."""
    texts = [f"{model.name}: {text}" for model in result.models for text in model.warnings]
    texts += [f"{model.name}: {text}." for model in result.models for text in model.assumptions]
    texts += [
        f"{model.name} has no {AT_THRESHOLD}, because its thresholds are not known. Pass --thresholds."
        for model in result.models
        if not any(has for _, has in thresholded(model))
    ]
    undefined = [row.finding for row in result.models[0].findings if row.metrics["auroc"].value is None]
    few = [
        f"{name} ({count} {label})"
        for label, counts in (("positive", result.positive_patients), ("negative", result.negative_patients))
        for name, count in counts.items()
        if count < FEW_PATIENTS and name not in undefined
    ]
    if few:
        texts.append(
            f"These findings have fewer than {FEW_PATIENTS} positive or negative patients: {', '.join(few)}. "
            "With so few, the paired tests report a difference between equally good models in up to 13 % of cases, "
            "not in 5 %."
        )
    if undefined:
        texts.append(
            f"{', '.join(undefined)}: only one class occurs among these images, so the means of AUROC and AP exclude "
            f"{'it' if len(undefined) == 1 else 'them'}."
        )
    lacking: dict[tuple[str, ...], list[str]] = {}
    for model in result.models:
        lacked = tuple(finding for finding, has in thresholded(model) if not has)
        if 0 < len(lacked) < len(model.findings):
            lacking.setdefault(lacked, []).append(model.name)
    texts += [
        f"{', '.join(lacked)}: excluded from the means of {AT_THRESHOLD}, because {' and '.join(names)} "
        f"{'has' if len(names) == 1 else 'have'} no threshold for {'it' if len(lacked) == 1 else 'them'}."
        for lacked, names in lacking.items()
    ]
    texts += [
        f"The inference time of {model.name} in ONNX Runtime was not measured: {model.costs.latency.why}"
        for model in result.models
        if model.costs and model.costs.latency and model.costs.latency.why
    ]
    if result.otherwise_grouped:
        texts.append(
            f"The tables disagree on which images belong to the same patient: {', '.join(result.otherwise_grouped)} "
            f"differs from the grouping used here ({count_phrase(result.patients, 'patient')}), which is that of the "
            "table with the most known and then the fewest patients. If it is wrong, the "
            "intervals and p-values are wrong, too."
        )
    if without := result.without_patient:
        texts += unknown_patients_note(without)
    for name, count in result.left_out.items():
        if count:
            images = count_phrase(count, f"image of {name} is", f"images of {name} are")
            texts.append(
                f"{images} excluded, because not all models have predictions for {'it' if count == 1 else 'them'}."
            )
    for name, findings in result.findings_left_out.items():
        if findings:
            them = "it" if len(findings) == 1 else "them"
            texts.append(f"{', '.join(findings)} in {name}: excluded, because not all models predict {them}.")
    return texts
