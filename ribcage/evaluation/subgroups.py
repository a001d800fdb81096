"""Subgroups: the numbers of a classifier for each sex, age band, view, hospital and dataset."""

import numpy as np
import pandas as pd

from ribcage import metrics
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.metrics.classification_evaluation import Subgroup, SubgroupFinding
from ribcage.metrics.definitions import metrics_in
from ribcage.metrics.estimates import SubgroupGap, mean_estimate, scalar_estimate
from ribcage.metrics.summaries import UNKNOWN_GROUP

AGES = (18, 40, 60, 80)


def classification_subgroups(
    data: LabelledPredictions, thresholds: np.ndarray, *, resamples: int, seed: int, level: float
) -> tuple[Subgroup, ...]:
    """Results for each value of sex, age band, view, hospital and dataset, where images have several values."""
    rows = []
    for by, groups in groupings(data.about).items():
        if len(np.unique(groups)) < 2:
            continue
        found = metrics.summarise_groups(
            groups, data.probabilities, data.labels, data.patients,
            thresholds=thresholds, resamples=resamples, seed=seed,
        )  # fmt: skip
        for name, summary in found.items():
            chosen = {key: summary.metrics[key] for key in metrics_in("subgroups")}
            inside = groups == ("" if name == UNKNOWN_GROUP else name)
            rows.append(
                Subgroup(
                    by=by,
                    group=name,
                    images=int(inside.sum()),
                    patients=len(set(data.patients[inside].tolist()) - {""}),
                    positives=int(summary.positives.sum()),
                    macro={key: mean_estimate(each.macro, each.averaged) for key, each in chosen.items()},
                    gap=subgroup_gap(data, inside, level),
                    findings=tuple(
                        SubgroupFinding(
                            finding=finding,
                            n=int(summary.n[place]),
                            positives=int(summary.positives[place]),
                            metrics={key: scalar_estimate(each.findings, place) for key, each in chosen.items()},
                        )
                        for place, finding in enumerate(data.findings)
                    ),
                )
            )
    return tuple(rows)


def subgroup_gap(data: LabelledPredictions, inside: np.ndarray, level: float) -> SubgroupGap:
    """Mean AUROC of these images minus that of all others, over the findings that are defined in both."""
    found = metrics.auroc_gap(data.probabilities, data.labels, inside, data.patients)
    one = scalar_estimate(found.macro().interval(level))
    return SubgroupGap(
        one.value,
        one.low,
        one.high,
        findings=int((~np.isnan(found.value)).sum()),
        images=int((~inside).sum()),
        positives=int((data.labels[~inside] == 1).sum()),
    )


def groupings(about: pd.DataFrame) -> dict[str, np.ndarray]:
    """Attribute → (N,) its value for each image, "" if unknown."""
    found = {"sex": about["sex"].to_numpy(str), "age": age_bands(about["age"].to_numpy(np.float64))}
    found["view"] = about["view"].to_numpy(str)
    for name in ("hospital", "set"):
        if name in about:
            found[name] = about[name].fillna("").to_numpy(str)
    return {by: np.where(groups == UNKNOWN_GROUP, "", groups) for by, groups in found.items()}


def age_bands(ages: np.ndarray) -> np.ndarray:
    """(N,) '0–17', '18–39', … '80+', "" if unknown; they sort as text."""
    edges = (0, *AGES)
    names = [f"{low}–{high - 1}" for low, high in zip(edges, AGES, strict=False)] + [f"{AGES[-1]}+"]
    bands = np.array([*names, ""])
    return bands[np.where(np.isnan(ages), len(names), np.searchsorted(AGES, np.nan_to_num(ages), side="right"))]
