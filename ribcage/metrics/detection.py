"""Detection: all metrics of detected boxes for each finding, with their bootstrap over patients.

- `map`, `ap50`, `ap75`: average precision over IoU .40:.05:.75, at .50 and at .75, on all images;
 `map_positives` … only on images with a ground-truth box, which ignores all false positives on healthy people.
- `map_skipping`: mAP as in several published tables: only on images with a ground-truth box and, of these,
 only on those with a detection above a score threshold, so that a missed image costs nothing; boxes a pixel larger.
- `kaggle`: mean precision per image; needs a score threshold.
- `centre_at_0.125` … `8`, `overlap_at_…`: sensitivity at that many false positives per image, where a hit is by
 centre or by IoU, and `centre_mean`, `overlap_mean` over these rates.

Images are matched once; in a resample they count as often as their patients were drawn.
"""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ribcage.metrics import froc
from ribcage.metrics.box_precision import box_average_precision, precisions
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.effective_size import Patients
from ribcage.metrics.image_precision import image_precision
from ribcage.metrics.matching import THRESHOLDS, match_boxes
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.resampling import BLOCK, Resampled, times_drawn
from ribcage.runtime import rng
from ribcage.runtime.threads import available_cores

HIT = 0.4
"""IoU of a hit on the FROC curve by overlap: the lowest of THRESHOLDS."""
HALVINGS = 32
"""Number of random splits of the patients into halves, which show how AP depends on their number."""
_AT = {"ap50": THRESHOLDS.index(0.5), "ap75": THRESHOLDS.index(0.75)}


@dataclass(frozen=True)
class FindingBoxes:
    """Detections and ground truth of one finding, and the images on which the ground truth is known."""

    found: BoxTable
    true: BoxTable
    known: np.ndarray
    """(count,) bool: whether the ground truth is known for an image; other images are left out."""

    @classmethod
    def of(cls, found: BoxTable, true: BoxTable, count: int, known: np.ndarray | None = None) -> "FindingBoxes":
        """Boxes on images that are left out are left out, too."""
        known = np.ones(count, np.bool_) if known is None else np.asarray(known, np.bool_)
        if known.shape != (count,):
            raise ValueError(
                f"The mask of known images must have one boolean for each of the {count} images, but has shape "
                f"{known.shape}."
            )
        return cls(found.on_images(known), true.on_images(known), known)

    @property
    def count(self) -> int:
        """Number of images including those left out, which keep their numbers."""
        return len(self.known)


@dataclass(frozen=True)
class Skipping:
    """Settings of the flawed mAP of published tables."""

    cut: float = 0.5
    """Score threshold below which detections are ignored."""
    whole_pixels: bool = True
    """Boxes are one pixel wider and higher than the difference of their corners."""


def mean_average_precision(found: Sequence[BoxTable], true: Sequence[BoxTable], count: int) -> float:
    """mAP, the mean over findings with ground-truth boxes; NaN if none has any."""
    values = [box_average_precision(*pair, count).mean() for pair in zip(found, true, strict=True)]
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def bootstrap_detection(
    findings: Sequence[FindingBoxes],
    patients: np.ndarray | None = None,
    *,
    cuts: Sequence[float] | None = None,
    skipping: Skipping | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Resampled]:
    """All metrics of all findings in each resample; all findings are of the same images.

    patients: one code per image; a negative number, an empty text or None counts as a separate patient.
    cuts: score threshold of each finding for `kaggle`, chosen on other data. Without them it is not computed.
    threads: None uses all cores. The result does not depend on it.
    """
    if resamples < 1 or not 0 <= seed < 1 << 64:
        raise ValueError(
            f"The number of resamples is {resamples} and the seed is {seed}, but there must be at least 1 resample, "
            f"and the seed must be between 0 and 2⁶⁴ - 1."
        )
    codes = patient_numbers(patients, findings[0].count)
    people = int(codes.max(initial=-1)) + 1
    chosen = cuts if cuts is not None else [None] * len(findings)
    of_each = [
        _measures(boxes, codes, cut, skipping or Skipping()) for boxes, cut in zip(findings, chosen, strict=True)
    ]

    def metrics(times: np.ndarray) -> dict[str, np.ndarray]:
        """(B, F) each."""
        found = [{name: row for measure in measures for name, row in measure(times).items()} for measures in of_each]
        return {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}

    with ThreadPoolExecutor(threads or available_cores()) as pool:
        blocks = [range(s, min(s + BLOCK, resamples)) for s in range(0, resamples, BLOCK)]
        parts = list(pool.map(lambda block: metrics(times_drawn(seed, block, people)), blocks))
        halves = [metrics(times) for times in pool.map(partial(_halves, seed, people), range(HALVINGS))]
    value = {name: rows[0] for name, rows in metrics(np.ones((people, 1), np.int32)).items()}
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in value}
    true = Patients.of([np.bincount(codes[boxes.true.images]) for boxes in findings])
    asked = Patients.of([_asked(boxes, codes, cut) for boxes, cut in zip(findings, chosen, strict=True)])
    address = (seed, zlib.crc32(codes.tobytes()))
    found = {
        name: Resampled.of(whole, drawn[name], asked if name == "kaggle" else true, address)
        for name, whole in value.items()
    }
    return {
        name: replace(each, bias=_bias(each.value, [half[name] for half in halves])) if _optimistic(name) else each
        for name, each in found.items()
    }


def _halves(seed: int, people: int, number: int) -> np.ndarray:
    """(people, 2) int32: the patients of two random halves."""
    first = np.zeros(people, np.int32)
    first[rng.permutation(seed, number, people)[: people // 2]] = 1
    return np.stack([first, 1 - first], axis=1)


def _bias(value: np.ndarray, halves: Sequence[np.ndarray]) -> np.ndarray:
    """(F,) bias of AP, estimated from how much larger AP is on half the patients.

    At each recall AP takes the best precision from there on, a maximum that is higher by chance with fewer boxes. The
    bias is taken to grow by half when the number of patients is halved, as about m^-0.6 does; so the difference counts
    twice.
    """
    means = np.array([half.mean(axis=0) for half in halves])  # (HALVINGS, F); NaN where a half has no true box
    known = ~np.isnan(means)
    count = known.sum(axis=0)
    mean = np.divide(np.where(known, means, 0.0).sum(axis=0), count, out=value.copy(), where=count > 0)
    return np.nan_to_num(2 * (mean - value))


def _optimistic(name: str) -> bool:
    """Whether a metric is biased upwards, as maxima of precision are."""
    return name.startswith(("map", "ap"))


Measure = Callable[[np.ndarray], dict[str, np.ndarray]]


def _measures(boxes: FindingBoxes, codes: np.ndarray, cut: float | None, skipping: Skipping) -> list[Measure]:
    """The matching, as functions from how often each patient was drawn to (B,) values."""
    matches = match_boxes(boxes.found, boxes.true, boxes.count)
    called = boxes.found.at_least(skipping.cut)
    seen = np.bincount(called.images, minlength=boxes.count) > 0
    skipped = match_boxes(called, boxes.true, boxes.count, whole_pixels=skipping.whole_pixels)
    there = matches.truths > 0
    hits = {
        "centre": froc.froc_events(boxes.found, boxes.true, boxes.count),
        "overlap": froc.froc_events(boxes.found, boxes.true, boxes.count, HIT),
    }
    positives, kept = matches.select(there), skipped.select(there & seen)

    def precision(times: np.ndarray) -> dict[str, np.ndarray]:
        both = {"": precisions(matches, codes, times), "_positives": precisions(positives, codes, times)}
        named = {f"map{which}": values.mean(axis=0) for which, values in both.items()}
        named |= {f"{name}{which}": values[at] for which, values in both.items() for name, at in _AT.items()}
        return named | {"map_skipping": precisions(kept, codes, times).mean(axis=0)}

    def sensitivity(times: np.ndarray) -> dict[str, np.ndarray]:
        named: dict[str, np.ndarray] = {}
        for kind, events in hits.items():
            values = froc.sensitivities(events, boxes.known, codes, times)
            named |= {f"{kind}_at_{rate:g}": row for rate, row in zip(froc.RATES, values, strict=True)}
            named[f"{kind}_mean"] = values.mean(axis=0)
        return named

    return [precision, sensitivity, *([] if cut is None else [_by_image(boxes, codes, cut)])]


def _asked(boxes: FindingBoxes, codes: np.ndarray, cut: float | None) -> np.ndarray:
    """(patients,) number of images that count for `kaggle`: those with a ground-truth box, or a detection above the
    threshold."""
    called = boxes.found.images if cut is None else boxes.found.at_least(cut).images
    images = np.union1d(boxes.true.images, called).astype(np.int64)
    return np.bincount(codes[images])


def _by_image(boxes: FindingBoxes, codes: np.ndarray, cut: float) -> Measure:
    values = image_precision(boxes.found, boxes.true, boxes.count, cut)
    asked = ~np.isnan(values)
    people = int(codes.max(initial=-1)) + 1
    sums = np.array([np.bincount(codes, each, people) for each in (np.where(asked, values, 0.0), asked)])

    def mean(times: np.ndarray) -> dict[str, np.ndarray]:
        total, images = np.einsum("pb,kp->kb", times, sums)
        undefined = np.full(len(total), np.nan)
        return {"kaggle": np.divide(total, images, out=undefined, where=images > 0)}

    return mean
