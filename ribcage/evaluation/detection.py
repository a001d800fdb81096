"""Box evaluation: found boxes beside true ones → every number of a detector's report, as a dict that JSON can hold.

All boxes count, whatever their score; only `kaggle` needs a cut, which validation chose. An image in which a finding
is but nobody drew it is left out for that finding: its boxes may be anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ribcage.data.collection import Datasets
from ribcage.data.findings import Policy
from ribcage.evaluation import classification
from ribcage.evaluation.classification import LEVEL, Protocol, estimate, number
from ribcage.inference import detections
from ribcage.inference.detections import Detections
from ribcage.metrics import froc
from ribcage.metrics.box_precision import precisions
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.detection import HIT, FindingBoxes, bootstrap_detection
from ribcage.metrics.image_precision import best_score_threshold
from ribcage.metrics.matching import match_boxes
from ribcage.metrics.resampling import Resampled, gap
from ribcage.runtime import rng

BASELINE = ("map", "map_positives", "centre_mean")
"""What baselines and subgroups are told by."""
SHUFFLES = 20
RATE = 1.0
"""False marks per image at which sizes are told and images are shown."""
SIZES = 10


@dataclass(frozen=True)
class Answers:
    """What a detector found in some images, and what is there."""

    findings: tuple[str, ...]
    """Those that are drawn at least once."""
    boxes: tuple[FindingBoxes, ...]
    """Of each finding."""
    about: pd.DataFrame
    """(N rows): set, row, path, patient, split, view, sex, age …"""
    rows: np.ndarray
    """(N,) int64 counted through all sets."""
    sides: np.ndarray
    """(N,) of the stored squares, whose pixels the boxes are in."""
    cuts: tuple[float | None, ...] | None = None
    """The score that validation chose for each finding; None: it knew none."""

    def __len__(self) -> int:
        return len(self.about)

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) a name per patient that no other set has; "" where unknown."""
        return classification.patient_names(self.about)

    @cached_property
    def events(self) -> tuple[froc.Events, ...]:
        """Of each finding, hit by the centre."""
        return tuple(froc.froc_events(each.found, each.true, len(self)) for each in self.boxes)

    @cached_property
    def shown(self) -> np.ndarray:
        """(F,) the score at which there is one false mark per image."""
        curves = [
            froc.froc_curve(events, int(each.known.sum())) for events, each in zip(self.events, self.boxes, strict=True)
        ]
        return np.array([scores[false <= RATE][-1] for false, _, scores in curves])


@dataclass(frozen=True)
class Fitting:
    """True boxes of other images, for the baseline to learn from."""

    name: str
    """What the images are called."""
    boxes: np.ndarray
    """(F, 4) the mean box of each finding, in shares of the image's side; NaN where none is drawn."""

    @classmethod
    def of(cls, name: str, data: Datasets, rows: np.ndarray, findings: Sequence[str]) -> "Fitting":
        """These rows, counted through all sets."""
        scale = data.sides(rows)
        true = [detections.truth(data, rows, finding) for finding in findings]
        shares = [each.boxes / scale[each.images][:, None] for each in true]
        return cls(name, np.array([one.mean(axis=0) if len(one) else np.full(4, np.nan) for one in shares]))


def answers(
    found: Detections,
    data: Datasets,
    rows: np.ndarray,
    policy: Policy,
    cuts: Sequence[float | None] | None = None,
) -> Answers:
    """Put true boxes beside found ones; findings that are drawn nowhere in these rows, which ascend, are left out.

    cuts: a score for each of the detector's findings.
    """
    true = {name: detections.truth(data, rows, name) for name in found.findings}
    drawn = [place for place, name in enumerate(found.findings) if len(true[name])]
    if not drawn:
        there = sorted({str(name) for dataset in data for name in dataset.index.boxes["finding"].unique()})
        raise ValueError(
            f"None of these images has a box of {', '.join(found.findings)}, which the detector finds; boxes of the "
            f"sets are of {', '.join(there) or 'nothing'}."
        )
    known = detections.drawn(data, rows, found.findings, policy)
    names = tuple(found.findings[place] for place in drawn)
    boxes = [
        FindingBoxes.of(found.marks(name), true[name], len(rows), known[:, place])
        for name, place in zip(names, drawn, strict=True)
    ]
    chosen = None if cuts is None else tuple(cuts[place] for place in drawn)
    return Answers(names, tuple(boxes), found.images, rows, data.sides(rows), chosen)


# ---- everything


def evaluate(
    data: Answers,
    *,
    protocol: Protocol = "honest",
    fitting: Fitting | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All numbers.

    protocol: peers chooses the cut on the tested images themselves.
    fitting: where the baseline has its box from.
    """
    if protocol == "peers":
        best = [best_score_threshold(each.found, each.true, len(data))[0] for each in data.boxes]
        data = replace(data, cuts=tuple(cut if np.isfinite(cut) else None for cut in best))  # None: call nothing
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    cuts = None if data.cuts is None else [np.inf if cut is None else cut for cut in data.cuts]
    found = bootstrap_detection(data.boxes, data.patients, cuts=cuts, **options)
    result = {
        "kind": "boxes",
        "images": len(data),
        "patients": len(set(data.patients.tolist()) - {""}),
        "protocol": protocol,
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "findings": described(data, found),
        "macro": macro(found),
        "baselines": baselines(data, fitting, options),
        "subgroups": subgroups(data, options),
    }
    return {"notes": notes(data, result), **result}


def described(data: Answers, found: dict[str, Resampled]) -> list[dict[str, Any]]:
    """One dict per finding."""
    limits = {name: values.interval(LEVEL) for name, values in found.items()}
    return [
        {
            "finding": name,
            "n": int(boxes.known.sum()),
            "positives": len(np.unique(boxes.true.images)),
            "boxes": len(boxes.true),
            "found": len(boxes.found),
            "left_out": int((~boxes.known).sum()),
            "cut": None if data.cuts is None else data.cuts[place],
            **{key: estimate(values, place) for key, values in limits.items()},
            "sizes": sizes(data, place),
        }
        for place, (name, boxes) in enumerate(zip(data.findings, data.boxes, strict=True))
    ]


def macro(found: dict[str, Resampled]) -> dict[str, dict[str, Any]]:
    """The mean over the findings that are defined, and over how many."""
    means = {name: values.macro() for name, values in found.items()}
    return {
        name: estimate(mean.interval(LEVEL), 0) | {"findings": int((~np.isnan(found[name].value)).sum())}
        for name, mean in means.items()
    }


def sizes(data: Answers, place: int) -> list[dict[str, float | int]]:
    """How many boxes of each size there are, and how many are hit by the centre at `RATE` false marks per image. A
    size is the side of a square of the same area, as a share of the image's side."""
    boxes = data.boxes[place]
    best, _, _ = froc.best_hits(boxes.found, boxes.true, len(data))
    true = _by_image(boxes.true)
    share = extents(true) / data.sides[true.images]
    bins = int(np.clip(len(true) // 8, 1, SIZES))
    edges = np.linspace(share.min(), max(share.max(), share.min() + 1e-3), bins + 1)
    every, hit = (np.histogram(own, edges)[0].tolist() for own in (share, share[best >= data.shown[place]]))
    return [
        {"from": low, "to": high, "boxes": there, "found": found}
        for low, high, there, found in zip(edges.tolist(), edges[1:].tolist(), every, hit, strict=False)
    ]


def extents(marks: BoxTable) -> np.ndarray:
    """(M,) the side of a square of the same area."""
    return np.sqrt(np.maximum(marks.boxes[:, 2:] - marks.boxes[:, :2], 0).prod(axis=1))


def _by_image(marks: BoxTable) -> BoxTable:
    return marks.select(np.argsort(marks.images, kind="stable"))


# ---- beside it


def baselines(data: Answers, fitting: Fitting | None, options: dict[str, Any]) -> dict[str, Any]:
    """What is reached without looking: the mean box everywhere, and the detector's boxes on other images."""
    result: dict[str, Any] = {"fitted_on": fitting.name if fitting else "", "shuffled": shuffled(data, options["seed"])}
    if fitting is None:
        return result
    boxes = [mean_box(data, place, box, options["seed"]) for place, box in enumerate(fitting.boxes)]
    found = bootstrap_detection(boxes, data.patients, **options)
    limits = {name: found[name].interval(LEVEL) for name in BASELINE}
    undefined = np.isnan(fitting.boxes).any(axis=1)
    result["mean_box"] = [
        {"finding": name, "box": None if undefined[place] else fitting.boxes[place].tolist()}
        | {key: estimate(values, place) for key, values in limits.items()}
        for place, name in enumerate(data.findings)
    ]
    result["mean_box_macro"] = {name: macro(found)[name] for name in BASELINE}
    return result


def mean_box(data: Answers, place: int, box: np.ndarray, seed: int) -> FindingBoxes:
    """The same box in every image. Its scores are drawn: equal ones would leave the order to that of the images."""
    boxes, images = data.boxes[place], np.arange(len(data))
    if np.isnan(box).any():
        return replace(boxes, found=BoxTable.none())
    scores = rng.uniform(seed, place, images, rng.METHOD, 1)[:, 0]
    return FindingBoxes.of(BoxTable(images, box * data.sides[:, None], scores), boxes.true, len(data), boxes.known)


def shuffled(data: Answers, seed: int) -> dict[str, Any]:
    """When what was found is dealt out anew among the images: the middle and the 95 % range of some rounds."""
    rounds = [_dealt(data, seed, time) for time in range(SHUFFLES)]
    findings, means = [], {}
    for key in BASELINE:
        drawn = np.array([each[key] for each in rounds])  # (rounds, F)
        findings.append([_spread(column) for column in drawn.T])
        kept = ~np.isnan(drawn).all(axis=0)
        means[key] = _spread(drawn[:, kept].mean(axis=1)) if kept.any() else _spread(np.full(SHUFFLES, np.nan))
    rows = [
        {"finding": name} | {key: findings[at][place] for at, key in enumerate(BASELINE)}
        for place, name in enumerate(data.findings)
    ]
    return {"times": SHUFFLES, "findings": rows, "macro": means}


def _dealt(data: Answers, seed: int, time: int) -> dict[str, np.ndarray]:
    """(F,) each metric of one round. Only images that count for a finding are dealt to."""
    values = []
    for boxes in data.boxes:
        there = np.flatnonzero(boxes.known)
        target = np.arange(len(data))
        target[there] = there[rng.permutation(seed, time, len(there))]
        images = target[boxes.found.images]
        scale = data.sides[images] / data.sides[boxes.found.images]
        moved = BoxTable(images, boxes.found.boxes * scale[:, None], boxes.found.scores)
        values.append(_quick(replace(boxes, found=moved)))
    return {key: np.array([each[key] for each in values]) for key in BASELINE}


def _quick(boxes: FindingBoxes) -> dict[str, float]:
    """What baselines are told by, without resamples."""
    images, once = np.arange(boxes.count), np.ones((boxes.count, 1), np.int32)
    matches = match_boxes(boxes.found, boxes.true, boxes.count)
    events = froc.froc_events(boxes.found, boxes.true, boxes.count)
    return {
        "map": precisions(matches, images, once).mean(),
        "map_positives": precisions(matches.select(matches.truths > 0), images, once).mean(),
        "centre_mean": froc.sensitivities(events, boxes.known, images, once).mean(),
    }


def _spread(values: np.ndarray) -> dict[str, float | None]:
    if np.isnan(values).any():
        return {"value": None, "low": None, "high": None}
    middle, low, high = np.percentile(values, [50, 2.5, 97.5])
    return {"value": number(middle), "low": number(low), "high": number(high)}


def subgroups(data: Answers, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The means over findings for each sex, age band, view, hospital and set that differ among the images."""
    rows = []
    for by, groups in classification.groupings(data.about).items():
        names = sorted(set(groups.tolist()), key=lambda name: (name == "", name))
        for name in names if len(names) > 1 else []:
            inside = groups == name
            own, rest = _within(data, inside), _within(data, ~inside)
            found, others = (bootstrap_detection(boxes, data.patients, **options) for boxes in (own, rest))
            rows.append(
                {
                    "by": by,
                    "group": name or "unknown",
                    "images": int(inside.sum()),
                    "patients": len(set(data.patients[inside].tolist()) - {""}),
                    "boxes": sum(len(each.true) for each in own),
                    "macro": {key: value for key, value in macro(found).items() if key in BASELINE},
                    "gap": {key: _gap(found[key], others[key]) for key in BASELINE}
                    | {"images": int((~inside).sum()), "boxes": sum(len(each.true) for each in rest)},
                }
            )
    return rows


def _within(data: Answers, inside: np.ndarray) -> list[FindingBoxes]:
    """The same, where other images are left out."""
    return [FindingBoxes.of(each.found, each.true, len(data), each.known & inside) for each in data.boxes]


def _gap(own: Resampled, others: Resampled) -> dict[str, Any]:
    """The mean of these images less that of all others, over the findings that are drawn in both."""
    found = gap(own, others)
    return estimate(found.macro().interval(LEVEL), 0) | {"findings": int((~np.isnan(found.value)).sum())}


# ---- what to say of it


def notes(data: Answers, result: dict[str, Any]) -> list[str]:
    """Sentences for the reader about what was left out and cannot be known."""
    texts = []
    left = [f"{row['finding']} {row['left_out']:,}" for row in result["findings"] if row["left_out"]]
    if left:
        texts.append(
            "Images are left out where a finding is, or nothing certain is said of it, and nobody drew where: "
            f"{', '.join(left)}."
        )
    if alone := [row["finding"] for row in result["findings"] if row["map"]["low"] is None]:
        texts.append(
            f"{', '.join(alone)}: all boxes are of one patient, who shows no variance: no interval. In the interval of "
            "the mean such a finding counts with the largest error there is."
        )
    without = int((data.about["patient"] == "").sum())
    if without:
        texts.append(f"The patient of {without:,} images is not known: each counts as a patient of its own.")
    if data.cuts is None:
        texts.append("The model carries no cut from validation, so the challenge's metric is not told.")
    return texts


def stamps(result: dict[str, Any]) -> list[str]:
    """Sentences for the reader about what is not honest; what the command knows was added."""
    texts = classification.stamps(result | {"protocol": "honest", "not_tested": []})
    if result["protocol"] == "peers":
        texts.append(
            "Protocol of peers: the cut was chosen on the tested images themselves, so the challenge's metric is "
            "better than it would be on new patients."
        )
    if result["not_tested"]:
        texts.append(f"Not tested, since no box of it is drawn here: {', '.join(result['not_tested'])}.")
    return texts


def digest(result: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that model.json and the model card carry."""
    names = ("map", "ap50", "map_positives", "centre_mean")
    return {
        "images": result["images"],
        "patients": result["patients"],
        "macro": {name: result["macro"][name] for name in names},
        "findings": {
            row["finding"]: {"n": row["n"], "boxes": row["boxes"], **{name: row[name] for name in names}}
            for row in result["findings"]
        },
    }


# ---- the worst of it


@dataclass(frozen=True)
class Error:
    """One box that is wrong, or is missed."""

    image: int
    finding: int
    box: np.ndarray
    """(4,)"""
    score: float
    """Of a false mark; of a missed box that of the best hit, -inf without any."""
    false: float
    """False marks per image at or above this score; inf for a box that is never hit."""
    size: float
    """Side of a square of the same area, as a share of the image's side."""


def missed(data: Answers, most: int) -> list[Error]:
    """True boxes that nothing overlaps by `HIT` until there is one false mark per image, one of each image: those
    found after most false marks or never, of these the larger first."""
    every = []
    for place, boxes in enumerate(data.boxes):
        best, hitting, _ = froc.best_hits(boxes.found, boxes.true, len(data), HIT)
        false = boxes.found.scores[~hitting]
        late = best < data.shown[place]
        every += _errors(data, place, _by_image(boxes.true).select(late), best[late], false)
    return _one_each(sorted(every, key=lambda error: (-error.false, -error.size)), most)


def false_marks(data: Answers, most: int) -> list[Error]:
    """Found boxes that overlap no true one by `HIT` and have no centre in one, one of each image: the surest first,
    by how few others are as sure."""
    every = []
    for place, boxes in enumerate(data.boxes):
        hitting, centred = (froc.best_hits(boxes.found, boxes.true, len(data), by)[1] for by in (HIT, None))
        marks = boxes.found.select(~hitting & ~centred)
        marks = marks.select(np.argsort(-marks.scores, kind="stable")[: 100 * most])
        every += _errors(data, place, marks, marks.scores, boxes.found.scores[~hitting])
    return _one_each(sorted(every, key=lambda error: (error.false, -error.size)), most)


def _errors(data: Answers, place: int, marks: BoxTable, scores: np.ndarray, false: np.ndarray) -> list[Error]:
    """false: (K,) the scores of all false marks."""
    above = len(false) - np.searchsorted(np.sort(false), scores, side="left")
    share = np.where(np.isfinite(scores), above / max(int(data.boxes[place].known.sum()), 1), np.inf)
    size = extents(marks) / data.sides[marks.images]
    columns = zip(marks.images.tolist(), marks.boxes, scores.tolist(), share.tolist(), size.tolist(), strict=True)
    return [Error(image, place, box, *numbers) for image, box, *numbers in columns]


def _one_each(errors: Sequence[Error], most: int) -> list[Error]:
    """The first of each image."""
    chosen: dict[int, Error] = {}
    for error in errors:
        if len(chosen) < most:
            chosen.setdefault(error.image, error)
    return list(chosen.values())
