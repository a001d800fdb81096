"""Predictions of a classifier with their labels."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ribcage.bundle.spec import DEFAULT_RULE, EXCLUSIVE, HALF, ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation.calibration import RULES
from ribcage.inference.prediction_table import PredictionTable
from ribcage.inference.predictions import Predictions, row_context


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions for some images, and their labels."""

    predictions: Predictions
    """Restricted to the evaluated findings."""
    labels: np.ndarray
    """(N, F) 1, 0 and NaN (unknown), after the label policy."""
    source: np.ndarray
    """(N, F) 1, 0, -1 (uncertain) and NaN, as in the source or of its readers together."""
    about: pd.DataFrame
    """(N rows): set, row, path, patient, split, view, sex, age …"""
    temperature: tuple[float, ...] = ()
    thresholds: dict[str, tuple[float | None, ...]] | None = None
    """Rule → one threshold per finding."""

    def __len__(self) -> int:
        return len(self.about)

    @property
    def findings(self) -> tuple[str, ...]:
        """The evaluated findings."""
        return self.predictions.findings

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, F), after temperature scaling."""
        return self.predictions.probabilities(self.temperature)

    @cached_property
    def uncalibrated(self) -> np.ndarray:
        """(N, F), before temperature scaling."""
        return self.predictions.probabilities()

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) a name per patient, distinct between datasets; "" where unknown."""
        return patient_names(self.about)

    @cached_property
    def ranks(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Per finding: mid-ranks of the images with known labels, (N,) whether the label is known, and (N,) the
        labels."""
        columns = zip(self.probabilities.T, self.labels.T, strict=True)
        return [(pd.Series(p[~np.isnan(y)]).rank().to_numpy(), ~np.isnan(y), y) for p, y in columns]

    def threshold(self, rule: str) -> np.ndarray:
        """(F,) thresholds of a rule; NaN for a finding without one."""
        if rule == HALF:
            return np.full(len(self.findings), 0.5)
        chosen = (self.thresholds or {}).get(rule, ())
        return np.array([np.nan if each is None else each for each in chosen or [None] * len(self.findings)])

    def table(self) -> PredictionTable:
        """The table of predictions, with labels."""
        odds = self.predictions.log_odds()
        return PredictionTable(self.about, self.findings, self.probabilities, self.labels, odds)


def tested_findings(model: ModelSpec, data: Datasets, policy: Policy, rule: str = DEFAULT_RULE) -> tuple[str, ...]:
    """The findings of the model with labels in some dataset. One ValueError names all options that do not fit."""
    if policy.draws:
        raise ValueError(
            f"The label policy {str(policy)!r} gives uncertain labels a value between 0 and 1, but an evaluation needs "
            f"labels of 1, 0 or blank. Use --policy ones or zeros."
        )
    if rule not in (*RULES, HALF):
        raise ValueError(f"Unknown threshold rule {rule!r}. Rules: {', '.join((*RULES, HALF))}.")
    common = tuple(name for name in model.findings if name in data.findings)
    if not common:
        raise ValueError(
            f"The model and the data have no finding in common: the model predicts {', '.join(model.findings)}; "
            f"the data have labels for {', '.join(data.findings) or 'none'}."
        )
    if model.loss == EXCLUSIVE and len(common) < len(model.findings):
        lacking = ", ".join(name for name in model.findings if name not in common)
        raise ValueError(
            f"The model predicts one of {len(model.findings)} mutually exclusive findings, but no dataset has "
            f"labels for {lacking}."
        )
    return common


def labelled_predictions(
    predictions: Predictions, data: Datasets, model: ModelSpec, policy: Policy | None = None
) -> LabelledPredictions:
    """Predictions with their labels; findings without labels in any dataset are left out."""
    policy = policy or Policy()
    common = tested_findings(model, data, policy)
    places = [model.findings.index(name) for name in common]
    source = data.source_labels(common, policy.settled.readers)[predictions.rows]
    labels = data.known_labels(predictions.rows, common, policy)
    return LabelledPredictions(
        replace(predictions, findings=common, logits=predictions.logits[:, places]),
        labels,
        source,
        row_context(data, predictions.rows),
        tuple(model.temperature[place] for place in places) if model.temperature else (),
        {rule: tuple(chosen[place] for place in places) for rule, chosen in model.thresholds.items()},
    )


def patient_names(about: pd.DataFrame) -> np.ndarray:
    """(N,) one name per patient, distinct between datasets; "" if unknown."""
    known = about["patient"] != ""
    return (about["set"] + "\0" + about["patient"]).where(known, "").to_numpy(str)


def known_patients(data: LabelledPredictions) -> int:
    """Number of patients that are known."""
    return len(set(data.patients.tolist()) - {""})
