"""Evaluation: predictions beside labels → every number of the report, as a plain dict that JSON can hold.

Scores are calibrated probabilities: logits divided by the temperature fitted on validation. Thresholds were chosen on
validation too. What a missing class leaves undefined is None, and a mean over findings says how many it used.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from ribcage import metrics
from ribcage.bundle.spec import DEFAULT_RULE, EXCLUSIVE, HALF, ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.findings import Policy
from ribcage.inference import predictions as inference
from ribcage.inference.predictions import Predictions
from ribcage.metrics import Estimate, MetricSummary, multiclass
from ribcage.metrics.intervals import Interval
from ribcage.metrics.thresholds import RATES
from ribcage.runtime import rng

RULES = {
    "youden": ("youden", 0.0),
    "midpoint": ("midpoint", 0.0),
    "f1": ("f1", 0.0),
    "sensitivity_95": ("sensitivity", 0.95),
    "specificity_95": ("specificity", 0.95),
}
"""How a threshold is chosen on validation: the rule of `metrics.choose`, and the least sensitivity or specificity."""
Protocol = Literal["honest", "peers"]
AGES = (18, 40, 60, 80)
SHUFFLES = 100
BINS = 15
LEVEL = 0.95
NAMES = ("auroc", "ap", "accuracy", "f1", "sensitivity", "specificity", "ppv", "npv", "brier")


@dataclass(frozen=True)
class Answers:
    """What a model said of some images, and what is known of them."""

    predictions: Predictions
    """Of the findings that are tested."""
    labels: np.ndarray
    """(N, F) 1, 0 and NaN: under the policy."""
    source: np.ndarray
    """(N, F) 1, 0, -1 and NaN: as the sources have them."""
    about: pd.DataFrame
    """(N rows): set, row, path, patient, split, view, sex, age …"""
    temperature: tuple[float, ...] = ()
    thresholds: dict[str, tuple[float | None, ...]] | None = None
    """By rule; one probability per finding."""

    def __len__(self) -> int:
        return len(self.about)

    @property
    def findings(self) -> tuple[str, ...]:
        """Those that are tested."""
        return self.predictions.findings

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, F) after temperature."""
        return self.predictions.probabilities(self.temperature)

    @cached_property
    def uncalibrated(self) -> np.ndarray:
        """(N, F) before temperature."""
        return self.predictions.probabilities()

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) a name per patient that no other set has; "" where unknown."""
        return patient_names(self.about)

    @cached_property
    def ranks(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each finding the ranks of its known images (ties share theirs), which those are, and all labels."""
        columns = zip(self.probabilities.T, self.labels.T, strict=True)
        return [(pd.Series(p[~np.isnan(y)]).rank().to_numpy(), ~np.isnan(y), y) for p, y in columns]

    def threshold(self, rule: str) -> np.ndarray:
        """(F,) NaN where none could be chosen."""
        if rule == HALF:
            return np.full(len(self.findings), 0.5)
        chosen = (self.thresholds or {}).get(rule, ())
        return np.array([np.nan if each is None else each for each in chosen or [None] * len(self.findings)])

    def table(self) -> pd.DataFrame:
        """The table of predictions."""
        odds = self.predictions.log_odds()
        return inference.table(self.about, self.findings, self.probabilities, odds, self.labels)


@dataclass(frozen=True)
class Fitting:
    """Other images, for the baselines to learn from."""

    name: str
    """What they are called."""
    labels: np.ndarray
    """(N, F) under the policy."""
    views: np.ndarray
    """(N,) PA, AP, LATERAL or ""."""

    @classmethod
    def of(cls, name: str, data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy) -> "Fitting":
        """These rows, counted through all sets."""
        labels = data.known_labels(rows, findings, policy)
        return cls(name, labels, inference.about(data, rows)["view"].to_numpy(str))


def check(model: ModelSpec, data: Datasets, policy: Policy, rule: str = DEFAULT_RULE) -> tuple[str, ...]:
    """The findings to test: those of the model that some set knows. One ValueError for what cannot be."""
    if policy.draws:
        raise ValueError(f"The policy {str(policy)!r} smooths labels; a test needs 1, 0 or nothing. Use ones or zeros.")
    if rule not in (*RULES, HALF):
        raise ValueError(f"Unknown rule {rule!r} for thresholds; rules: {', '.join((*RULES, HALF))}.")
    common = tuple(name for name in model.findings if name in data.findings)
    if not common:
        raise ValueError(
            f"The model and the data have no finding in common: the model knows {', '.join(model.findings)}; "
            f"the data has {', '.join(data.findings) or 'none'}."
        )
    if model.loss == EXCLUSIVE and len(common) < len(model.findings):
        lacking = ", ".join(name for name in model.findings if name not in common)
        raise ValueError(f"The model chooses one of {len(model.findings)} findings, but no set says {lacking}.")
    return common


def answers(predictions: Predictions, data: Datasets, model: ModelSpec, policy: Policy | None = None) -> Answers:
    """Put labels beside predictions; findings that no set knows are left out."""
    policy = policy or Policy()
    common = check(model, data, policy)
    places = [model.findings.index(name) for name in common]
    source = data.source_labels(common)[predictions.rows]
    labels = data.known_labels(predictions.rows, common, policy)
    return Answers(
        replace(predictions, findings=common, logits=predictions.logits[:, places]),
        labels,
        source,
        inference.about(data, predictions.rows),
        tuple(model.temperature[place] for place in places) if model.temperature else (),
        {rule: tuple(chosen[place] for place in places) for rule, chosen in model.thresholds.items()},
    )


# ---- fitted on validation


def fit_on_validation(
    logits: np.ndarray, labels: np.ndarray, *, exclusive: bool = False
) -> tuple[tuple[float, ...], dict[str, tuple[float | None, ...]]]:
    """Temperature and thresholds for model.json, from validation logits (N, F) and labels 1, 0, NaN."""
    findings = tuple(map(str, range(logits.shape[1])))
    said = Predictions(findings, np.arange(len(logits)), np.asarray(logits, np.float32), exclusive)
    if exclusive:
        temperature = np.full(len(findings), multiclass.temperature(said.logits, classes(labels))[0])
    else:
        temperature = metrics.temperatures(said.logits, labels).value
    probabilities = said.probabilities(tuple(temperature.tolist()))
    return tuple(temperature.tolist()), thresholds(probabilities, labels)


def thresholds(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, tuple[float | None, ...]]:
    """By every rule, one probability per finding; None where a class is missing."""
    return {
        name: tuple(map(number, metrics.choose_thresholds(probabilities, labels, rule, least)))
        for name, (rule, least) in RULES.items()
    }


def classes(labels: np.ndarray) -> np.ndarray:
    """(N,) the number of the one finding that is there, NaN where it is not said or not one."""
    one = (np.nan_to_num(labels) == 1).sum(axis=1) == 1
    return np.where(one & ~np.isnan(labels).any(axis=1), np.nan_to_num(labels).argmax(axis=1), np.nan)


# ---- everything


def evaluate(
    data: Answers,
    *,
    rule: str = DEFAULT_RULE,
    protocol: Protocol = "honest",
    fitting: "Fitting | None" = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All numbers.

    rule: the thresholds of the rates that get intervals.
    protocol: peers chooses the thresholds on the tested images themselves, as published tables often do.
    fitting: images that the baselines learn from.
    """
    if protocol == "peers":
        data = replace(data, thresholds=thresholds(data.probabilities, data.labels))
    known_rules = [*(data.thresholds or {}), HALF]
    rule = rule if data.thresholds else HALF
    if rule not in known_rules:
        raise ValueError(f"Unknown rule {rule!r} for thresholds; the model has {', '.join(known_rules)}.")
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    chosen = data.threshold(rule)
    whole = metrics.summarise(
        data.probabilities, data.labels, data.patients, thresholds=chosen, probabilities=data.probabilities, **options
    )
    result = {
        "images": len(data),
        "patients": patients(data),
        "protocol": protocol,
        "rule": rule,
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "findings": described(data, whole, rule),
        "macro": {name: mean(found) for name, found in whole.metrics.items()},
        "rules": {each: at_rule(data, each) for each in known_rules},
        "baselines": baselines(data, fitting, options),
        "subgroups": subgroups(data, chosen, options),
    }
    if data.predictions.exclusive:
        result["top1"] = top1(data, options)
    return {"notes": notes(data, result), **result}


def digest(result: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that model.json and the model card carry."""
    names = ("auroc", "ap", "sensitivity", "specificity", "brier", "ece")
    found = {
        row["finding"]: {"n": row["n"], "positives": row["positives"], **{name: row[name] for name in names}}
        for row in result["findings"]
    }
    return {
        "images": result["images"],
        "patients": result["patients"],
        "macro": {name: result["macro"][name] for name in ("auroc", "ap")},
        "findings": found,
        **({"top1": result["top1"]} if "top1" in result else {}),
    }


def patient_names(about: pd.DataFrame) -> np.ndarray:
    """(N,) a name per patient that no other set has; "" where unknown."""
    known = about["patient"] != ""
    return (about["set"] + "\0" + about["patient"]).where(known, "").to_numpy(str)


def patients(data: Answers) -> int:
    """How many are known."""
    return len(set(data.patients.tolist()) - {""})


def described(data: Answers, whole: MetricSummary, rule: str) -> list[dict[str, Any]]:
    """One dict per finding."""
    before = metrics.bootstrap(
        data.uncalibrated, data.labels, data.patients, probabilities=data.uncalibrated, resamples=1
    )["brier"].interval(LEVEL)  # which is not of resamples
    change = metrics.brier_change(data.probabilities, data.uncalibrated, data.labels, data.patients, LEVEL)
    ece = metrics.ece(data.uncalibrated, data.labels, bins=BINS)
    calibrated = metrics.ece(data.probabilities, data.labels, bins=BINS)
    rows = []
    for place, name in enumerate(data.findings):
        source, n = data.source[:, place], int(whole.n[place])
        rows.append(
            {
                "finding": name,
                "n": n,
                "positives": int(whole.positives[place]),
                "prevalence": number(whole.positives[place] / n) if n else None,
                "uncertain": int((source == -1).sum()),
                "unknown": int(np.isnan(source).sum()),
                "left_out": len(data) - n,
                "threshold": number(data.threshold(rule)[place]),
                "temperature": data.temperature[place] if data.temperature else None,
                **{key: estimate(found.findings, place) for key, found in whole.metrics.items()},
                "brier_before": estimate(before, place),
                "brier_change": estimate(change, place),
                "ece": number(calibrated[place]),
                "ece_before": number(ece[place]),
            }
        )
    return rows


def at_rule(data: Answers, rule: str) -> list[dict[str, Any]]:
    """The rates at the thresholds of one rule. Their intervals need no resamples."""
    chosen = data.threshold(rule)
    found = metrics.bootstrap(data.probabilities, data.labels, data.patients, thresholds=chosen, resamples=1)
    rates = {name: found[name].interval(LEVEL) for name in RATES}
    return [
        {"finding": name, "threshold": number(chosen[place])}
        | {rate: estimate(interval, place) for rate, interval in rates.items()}
        for place, name in enumerate(data.findings)
    ]


def top1(data: Answers, options: dict[str, Any]) -> dict[str, Any]:
    """Share of the images whose most probable finding is the true one."""
    right = multiclass.correct(data.probabilities, classes(data.labels))[:, None]
    asked = np.where(np.isnan(right), np.nan, 1.0)
    found = metrics.bootstrap(np.nan_to_num(right), asked, data.patients, thresholds=0.5, **options)["sensitivity"]
    return estimate(found.interval(LEVEL), 0) | {"n": int((asked == 1).sum())}


# ---- beside it


def baselines(data: Answers, fitting: "Fitting | None", options: dict[str, Any]) -> dict[str, Any]:
    """What is reached without looking: always the prevalence, only the view, and labels dealt out anew."""
    result: dict[str, Any] = {"fitted_on": fitting.name if fitting else "", "shuffled": shuffled(data, options["seed"])}
    if fitting is None:
        return result
    prevalence, by_view = view_shares(fitting)
    constant = np.broadcast_to(prevalence, data.labels.shape)
    result["prevalence"] = [
        {"finding": name, "prevalence": number(prevalence[place])} | _without_looking(constant, data.labels, place)
        for place, name in enumerate(data.findings)
    ]
    views = data.about["view"].to_numpy(str)
    scores = np.stack([by_view.get(view, prevalence) for view in views.tolist()])
    answered = ~np.isnan(prevalence)
    labels = np.where(answered, data.labels, np.nan)
    scores = np.where(answered, scores, 0.5)
    found = metrics.summarise(scores, labels, data.patients, probabilities=scores, **options).metrics
    result["view"] = _rows(data.findings, {name: found[name] for name in ("auroc", "ap", "brier")})
    result["view_macro"] = mean(found["auroc"])
    return result


def _without_looking(constant: np.ndarray, labels: np.ndarray, place: int) -> dict[str, Any]:
    """A finding's AP, Brier and accuracy if everybody gets the same probability."""
    known = labels[~np.isnan(labels[:, place]), place]
    share = constant[0, place]
    if not len(known) or np.isnan(share):
        return {"ap": None, "brier": None, "accuracy": None}
    brier, right = np.square(share - known).mean(), ((share >= 0.5) == (known == 1)).mean()
    precision = known.mean() if 0 < known.mean() < 1 else None  # as AP: undefined of one class
    return {"ap": number(precision), "brier": number(brier), "accuracy": number(right)}


def view_shares(fitting: Fitting) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(F,) prevalence, and the prevalence in each view, drawn towards the whole by one image's weight."""
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(fitting.labels)
        whole = np.nansum(fitting.labels, axis=0) / known.sum(axis=0)
    shares = {}
    for view in np.unique(fitting.views).tolist():
        rows = fitting.views == view
        shares[view] = (np.nansum(fitting.labels[rows], axis=0) + whole) / (known[rows].sum(axis=0) + 1)
    return whole, shares


def shuffled(data: Answers, seed: int) -> dict[str, Any]:
    """AUROC when labels are dealt out anew among the images, whole rows together: middle and 95 % range."""
    drawn = np.array([_aurocs_of(data, rng.permutation(seed, time, len(data))) for time in range(SHUFFLES)])
    kept = ~np.isnan(drawn).all(axis=0)
    spread = np.full((3, drawn.shape[1]), np.nan)
    spread[:, kept] = np.percentile(drawn[:, kept], [50, 2.5, 97.5], axis=0)
    mean = np.percentile(drawn[:, kept].mean(axis=1), [50, 2.5, 97.5]) if kept.any() else np.full(3, np.nan)
    names = ("value", "low", "high")
    rows = [
        {"finding": name, "auroc": dict(zip(names, map(number, spread[:, place]), strict=True))}
        for place, name in enumerate(data.findings)
    ]
    return {"times": SHUFFLES, "findings": rows, "macro": dict(zip(names, map(number, mean), strict=True))}


def _aurocs_of(data: Answers, order: np.ndarray) -> list[float]:
    """Of each finding, its known labels in this order."""
    found = []
    for ranks, known, labels in data.ranks:
        places = order[known[order]]
        positive = labels[places] == 1
        count, rest = int(positive.sum()), len(positive) - int(positive.sum())
        lower = ranks[positive].sum() - count * (count + 1) / 2
        found.append(lower / (count * rest) if count and rest else np.nan)
    return found


def subgroups(data: Answers, chosen: np.ndarray, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The same numbers for each sex, age band, view, hospital and set that differ among the images."""
    rows = []
    for by, groups in groupings(data.about).items():
        if len(np.unique(groups)) < 2:
            continue
        found = metrics.summarise_groups(
            groups, data.probabilities, data.labels, data.patients, thresholds=chosen, **options
        )
        for name, summary in found.items():
            kept = {key: summary.metrics[key] for key in ("auroc", "sensitivity", "specificity")}
            inside = groups == ("" if name == "unknown" else name)
            rows.append(
                {
                    "by": by,
                    "group": name,
                    "images": int(inside.sum()),
                    "patients": len(set(data.patients[inside].tolist()) - {""}),
                    "positives": int(summary.positives.sum()),
                    "macro": {key: estimate(each.macro, 0) | {"findings": each.averaged} for key, each in kept.items()},
                    "gap": _gap(data, inside),
                    "findings": [
                        row | {"n": int(summary.n[place]), "positives": int(summary.positives[place])}
                        for place, row in enumerate(_rows(data.findings, kept))
                    ],
                }
            )
    return rows


def _gap(data: Answers, inside: np.ndarray) -> dict[str, Any]:
    """The mean AUROC of these images less that of all others, over the findings that are defined in both; how many
    others there are, and their positives."""
    found = metrics.gap(data.probabilities, data.labels, inside, data.patients)
    return estimate(found.macro().interval(LEVEL), 0) | {
        "findings": int((~np.isnan(found.value)).sum()),
        "images": int((~inside).sum()),
        "positives": int((data.labels[~inside] == 1).sum()),
    }


def groupings(about: pd.DataFrame) -> dict[str, np.ndarray]:
    """What images can be told apart by: (N,) text each, "" where unknown."""
    found = {"sex": about["sex"].to_numpy(str), "age": age_bands(about["age"].to_numpy(np.float64))}
    found["view"] = about["view"].to_numpy(str)
    for name in ("hospital", "set"):
        if name in about:
            found[name] = about[name].fillna("").to_numpy(str)
    return found


def age_bands(ages: np.ndarray) -> np.ndarray:
    """(N,) '0–17', '18–39', … '80+' in an order that sorts as text."""
    edges = (0, *AGES)
    names = [f"{low}–{high - 1}" for low, high in zip(edges, AGES, strict=False)] + [f"{AGES[-1]}+"]
    bands = np.array([*names, ""])
    return bands[np.where(np.isnan(ages), len(names), np.searchsorted(AGES, np.nan_to_num(ages), side="right"))]


# ---- what to say of it


def notes(data: Answers, result: dict[str, Any]) -> list[str]:
    """Sentences for the reader about what was left out and cannot be known."""
    rows = result["findings"]
    empty = [row["finding"] for row in rows if row["auroc"]["value"] is None]
    texts = []
    if empty:
        texts.append(
            f"{', '.join(empty)}: only one class is known in these images, so no AUROC exists"
            + (f"; the mean is of the other {len(rows) - len(empty)}." if len(rows) - len(empty) > 1 else ".")
        )
    left = int(np.isnan(data.labels).sum())
    uncertain = int((np.isnan(data.labels) & (data.source == -1)).sum())
    if left:
        texts.append(
            f"{left:,} labels are left out: {uncertain:,} are uncertain, {left - uncertain:,} not said by the source."
        )
    if alone := [row["finding"] for row in rows if row["auroc"]["value"] is not None and row["auroc"]["low"] is None]:
        texts.append(
            f"{', '.join(alone)}: the positive images, or the negative ones, are of one patient. One patient shows no "
            "variance: no interval. In that of the mean such a finding counts with the largest error there is."
        )
    without = int((data.about["patient"] == "").sum())
    if without:
        texts.append(f"The patient of {without:,} images is not known: each counts as a patient of its own.")
    if not data.thresholds:
        texts.append("The model carries no thresholds from validation: rates are at 0.5.")
    return texts


WORSE = 0.01
"""By what share a temperature must worsen the Brier score to be spoken of, beyond what its interval allows."""


def shift(result: dict[str, Any], observed: Sequence[dict[str, Any]], model: ModelSpec, run: str) -> list[str]:
    """A sentence where validation and test disagree beyond their intervals, and one where the temperature that
    validation chose does harm; with what usually helps.

    observed: of each finding of the model, how it fared on validation (`ribcage.metrics.reliability_bins`).
    """
    fared = dict(zip(model.findings, (one["auroc"] for one in observed), strict=False))
    apart, harmed, compared = [], [], 0
    for row in result["findings"]:
        here, then = row["auroc"], fared.get(row["finding"], (None, None, None))
        known = None not in (here["low"], here["high"], *then)
        compared += known
        if known and (here["high"] < then[1] or here["low"] > then[2]):
            apart.append(
                f"{row['finding']} {then[0]:.3f} ({then[1]:.3f}–{then[2]:.3f}) then, {here['value']:.3f} "
                f"({here['low']:.3f}–{here['high']:.3f}) here"
            )
        after, before = row["brier"]["value"], row["brier_before"]["value"]
        sure = (row["brier_change"]["low"] or 0.0) > 0
        if row["temperature"] and None not in (after, before) and sure and after > before * (1 + WORSE):
            harmed.append(f"{row['finding']} {before:.3f} without, {after:.3f} with {row['temperature']:.2f}")
    run = shlex.quote(run)
    again = f"'ribcage convert {run} --data LOCAL --val val --out NEW' fits temperature and thresholds to local images"
    texts = []
    if apart:
        texts.append(
            f"Validation and test disagree beyond their intervals (AUROC of {_few(apart)}; {len(apart)} of {compared} "
            f"findings): these images differ from those that chose the model. {again}; a ranking that has become "
            f"worse needs 'ribcage finetune --init {run}' on local images."
        )
    if harmed:
        texts.append(
            f"The temperature that validation chose makes the Brier score worse here ({_few(harmed)}): probabilities "
            f"are not calibrated for these images. {again}."
        )
    return texts


def _few(texts: Sequence[str], most: int = 3) -> str:
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most:,} more" if len(texts) > most else "")


def policy_notes(policy: str, chosen_by: str) -> list[str]:
    """What uncertain and blank labels count as, where that needs saying."""
    if chosen_by and policy != chosen_by:
        return [f"Labels count by the policy '{policy}' here; in the model's own validation they did by '{chosen_by}'."]
    return [f"Labels count by the policy '{policy}', as in the model's own validation."] if policy != "ignore" else []


def stamps(result: dict[str, Any]) -> list[str]:
    """Sentences for the reader about what is not honest, the worst first; what the command knows was added."""
    leak, texts = result["leak"], []
    if leak["found"]:
        texts.append(f"Not an honest test. {leak['text']}. It was made with --allow-leak or --protocol peers.")
    if result["protocol"] == "peers":
        texts.append(
            "Protocol of peers: the thresholds were chosen on the tested images themselves, so accuracy, F1, "
            "sensitivity and specificity are better than they would be on new patients."
        )
    if leak["unseen"]:
        texts.append(
            f"{leak['unseen']:,} images that the model learnt from left no fingerprint (they were linked, not "
            "imported): that none of the tested ones is among them, or is a copy, is known only as far as patients are."
        )
    if unknown := leak.get("unknown"):
        texts.append(
            f"What {' and '.join(unknown)} has learnt from, which this model comes from, is not known: if it were "
            "these images, the numbers flatter the model."
        )
    if chosen := result["model"].get("leak"):
        texts.append(f"The choice of this model and its thresholds are not honest: {chosen}.")
    if result["split"] in result["model"].get("splits", ()):
        texts.append(f"These are {result['split']} images, not test images: the model may have been chosen on them.")
    if others := result.get("others"):
        texts.append(
            f"The model has learnt from frontal images alone, and {others:,} of these are not known to be frontal: "
            "--frontal leaves them out."
        )
    texts += [
        f"The images of {one['folder']} were made square by '{one['fit']}', those the model learnt from by "
        f"'{result['model']['fit']}': it sees another shape than it knows."
        for one in result["data"]
        if one["fit"] != result["model"]["fit"]
    ]
    texts += [
        f"The images of {one['folder']} were stored at {one['size']} px, those the model learnt from at "
        f"{result['model']['stored']} px: they are sharper or softer than it knows."
        for one in result["data"]
        if one["size"] != result["model"]["stored"]
    ]
    if result["not_tested"]:
        texts.append(f"Not tested, since no set has labels for it: {', '.join(result['not_tested'])}.")
    return texts


def estimate(interval: Interval, place: int) -> dict[str, float | None]:
    """value, low, high; None where undefined."""
    return {name: number(getattr(interval, name)[place]) for name in ("value", "low", "high")}


def mean(found: Estimate) -> dict[str, Any]:
    """The same of the mean over findings, and over how many."""
    return estimate(found.macro, 0) | {"findings": found.averaged}


def number(value: Any) -> float | None:
    """A float, or None for NaN."""
    return None if value is None or np.isnan(value) else float(value)


def _rows(findings: Sequence[str], found: dict[str, Estimate]) -> list[dict[str, Any]]:
    return [
        {"finding": name} | {key: estimate(each.findings, place) for key, each in found.items()}
        for place, name in enumerate(findings)
    ]
