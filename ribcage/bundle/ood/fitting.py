"""Fitting an OOD check to training images, and its limits to held-out images."""

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.bundle import counterexamples
from ribcage.bundle.ood.check import CLASSES, FIRST_ALTERED, LATERAL, MIRRORED, OTHER, OODCheck, usualness
from ribcage.data import selection
from ribcage.data.collection import Datasets
from ribcage.imaging import appearance

COMPONENTS, IMAGES_PER_COMPONENT = 24, 10
"""Maximum number of principal components; fewer for few images, so that no image can be reconstructed from them."""
MOST = 600
"""Maximum number of training and of held-out images used."""
FEWEST = 20
"""Minimum number of training images."""
VIEWS, ENOUGH = 2, 200
"""For few images, several random crops of each: at most this many, or until this total is reached."""
PHANTOMS, LEAST = 150, 40
"""Maximum number of synthetic laterals and of frontal phantoms; minimum number of images without a chest."""
PENALTY, STEPS = 0.01, 40
"""L2 penalty and number of steps of the classifier."""
CLEANINGS, CLEANING_PENALTY = 2, 0.1
"""Rounds of fitting in which training images that look turned or inverted are removed, with a high penalty against
overfitting."""
KEPT = 0.98
"""Shares of held-out images above the limit of s, and of z_usual - z_mirrored."""
LIMITS = (-2.0, -0.5)
"""Bounds of the limit of s."""
FEWEST_HELD_OUT = round(1 / (1 - KEPT))
"""With fewer held-out images, a single one would determine the limits: s then has the upper of LIMITS, and mirrored
images are not flagged."""
FAR = 1.1
"""The limit of the distance, relative to the maximum over held-out images and random crops of them."""
NEVER = 1e9
"""A limit that is never reached."""
RARE = 0.05
"""A view or age group with a smaller share of the training images is unusual."""
ADULT = 18
LEAST_SCALE = 1e-2


def fit_check(data: Datasets, rows: np.ndarray, held_out: np.ndarray) -> OODCheck | None:
    """The check of a model trained on these rows; None for too few images."""
    ages, views = _children(data, rows), _laterals(data, rows)
    lateral = data.column("view") == "LATERAL"
    beside = np.empty(0, np.int64)
    if not is_common(views):  # unusual for this model: examples of the class lateral
        splits = data.column("split")
        beside = np.flatnonzero(lateral & np.isin(splits, np.unique(splits[rows])))
        rows, held_out = rows[~lateral[rows]], held_out[~lateral[held_out]]
    images = _images(data, rows)
    if len(images) < FEWEST:
        return None
    laterals = None if is_common(views) else _images(data, beside)
    found = fitted_check(images, _images(data, held_out), laterals)
    return replace(found, ages=np.array(ages), views=np.array(views))


def lazy_check(data: Datasets, rows: np.ndarray, held_out: np.ndarray) -> Callable[[], OODCheck | None]:
    """A function that fits the check on its first call."""
    return functools.cache(lambda: fit_check(data, rows, held_out))


def halved(data: Datasets, rows: np.ndarray) -> OODCheck | None:
    """The check of a converted model from the images its thresholds were chosen on, half of the patients held out."""
    half = selection.share_of_patients(data, rows, 0.5)
    found = fit_check(data, half, np.setdiff1d(rows, half))
    return found and replace(found, learnt=False)


def preferred_check(before: OODCheck | None, now: OODCheck | None) -> OODCheck | None:
    """Which of two checks a model whose thresholds are chosen again should have: the one fitted on its training
    images."""
    return before if before and (before.learnt or not now) else now


# ---- from image contents


@dataclass(frozen=True)
class Examples:
    """Vectors with their classes."""

    vectors: np.ndarray
    """(M, D)"""
    classes: np.ndarray
    """(M,)"""
    images: np.ndarray
    """(M,) index of the training image that a vector was made from; -1 for none."""

    def without(self, images: np.ndarray) -> "Examples":
        """The examples that were not made from these images."""
        left = ~np.isin(self.images, images)
        return Examples(self.vectors[left], self.classes[left], self.images[left])


def fitted_check(
    images: Sequence[np.ndarray], held_out: Sequence[np.ndarray], laterals: Sequence[np.ndarray] | None = ()
) -> OODCheck:
    """Fit a check to contents (96, 96) of training images, with limits from held-out ones.

    laterals: real lateral images to flag, in addition to synthetic ones; None: laterals are not flagged.
    """
    rng = np.random.default_rng(0)
    every = examples(images, laterals, rng)
    weights, bias, turned = _classifier(every, len(images))
    left = every.without(turned)
    count = min(COMPONENTS, len(images) // IMAGES_PER_COMPONENT)
    mean, components = _principal(left.vectors[left.classes == 0], count)
    none = np.zeros(len(CLASSES), np.int64)
    found = OODCheck(
        weights, bias, mean, components, limits=np.zeros(3), alarms=none, altered=none,
        fitted_on=len(images), held_out=len(held_out), ages=none[:2], views=none[:2],
    )  # fmt: skip
    return _limited(found, held_out, rng)


def examples(images: Sequence[np.ndarray], laterals: Sequence[np.ndarray] | None, rng: np.random.Generator) -> Examples:
    """The training images in all altered classes, and the counterexamples."""
    count, seen = len(images), counterexamples.random_crop
    numbers = np.arange(count)
    parts: list[tuple[int, np.ndarray, np.ndarray]] = []
    for place, change in ((0, np.asarray), (MIRRORED, counterexamples.mirrored)):
        parts.append((place, _vectors([counterexamples.plainly(change(one)) for one in images]), numbers))
    for _ in range(min(VIEWS, max(1, ENOUGH // count))):
        for place, change in ((0, np.asarray), (MIRRORED, counterexamples.mirrored)):
            parts.append((place, _vectors([seen(change(one), rng) for one in images]), numbers))
        for place, how in enumerate(counterexamples.ALTERED, FIRST_ALTERED):
            turned = [seen(counterexamples.altered_image(one, how, rng), rng) for one in images]
            parts.append((place, _vectors(turned), numbers))
    if laterals is not None:
        crops = np.concatenate([own for place, own, _ in parts[2:] if place == 0])
        own = _vectors([seen(_either(one, rng), rng) for one in laterals])
        both = np.concatenate([own, _synthetic_laterals(count, crops.mean(axis=0), rng)])
        parts.append((LATERAL, both, np.full(len(both), -1)))
    others = _vectors([seen(counterexamples.other(images, rng), rng) for _ in range(max(count, LEAST))])
    parts.append((OTHER, others, np.full(len(others), -1)))
    classes = np.concatenate([np.full(len(own), place) for place, own, _ in parts])
    return Examples(np.concatenate([own for _, own, _ in parts]), classes, np.concatenate([of for *_, of in parts]))


def _synthetic_laterals(count: int, usual: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(M, D): vectors of phantom laterals, shifted by the mean difference between training images and frontal phantoms,
    so that the classifier learns the view and not that an image is synthetic."""
    many = min(PHANTOMS, max(count, LEAST))
    laterals, frontals = (counterexamples.phantoms(many, view) for view in ("LATERAL", "PA"))
    seen = counterexamples.random_crop
    moved = usual - _vectors([seen(one, rng) for one in frontals]).mean(axis=0)
    return (
        _vectors([seen(_either(one, rng), rng) for _ in range(max(count, ENOUGH) // many) for one in laterals]) + moved
    )


def _either(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lateral, mirrored with probability 0.5."""
    return counterexamples.mirrored(image) if rng.random() < 0.5 else image


def _vectors(images: Sequence[np.ndarray]) -> np.ndarray:
    """(N, D) of images (64, 64)."""
    return np.stack([appearance.vector(one) for one in images] or [np.empty(0, np.float32)]).reshape(
        len(images), appearance.LENGTH
    )


def _classifier(every: Examples, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, b, and which training images look turned or inverted (a few of every large dataset do) and were left out."""
    turned = np.empty(0, np.int64)
    for last in range(CLEANINGS, -1, -1):
        penalty, steps = (CLEANING_PENALTY, STEPS // 2) if last else (PENALTY, STEPS)
        weights, bias = _softmax_regression(every.without(turned), penalty, steps)
        if last:
            z = every.vectors[:count] @ weights + bias  # the first are the unaltered images
            turned = np.flatnonzero(_looks_altered(z))
    return weights, bias, turned


def _looks_altered(z: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the turned and inverted classes are more probable than all others together."""
    return np.asarray(z[:, FIRST_ALTERED:LATERAL].max(axis=1) > np.logaddexp.reduce(z, axis=1) - math.log(2))


def _softmax_regression(every: Examples, penalty: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """W and b of multinomial logistic regression with equal class weights."""
    mean, scale = every.vectors.mean(axis=0), every.vectors.std(axis=0) + LEAST_SCALE
    counts = np.bincount(every.classes, minlength=len(CLASSES))
    share = 1 / (counts[every.classes] * (counts > 0).sum())
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.from_numpy(((every.vectors - mean) / scale).astype(np.float32))
        y, share = torch.from_numpy(every.classes), torch.from_numpy(share.astype(np.float32))
        weights = torch.zeros(x.shape[1], len(CLASSES), requires_grad=True)
        bias = torch.zeros(len(CLASSES), requires_grad=True)
        optimizer = torch.optim.LBFGS([weights, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            each = F.cross_entropy(x @ weights + bias, y, reduction="none")
            found = (each * share).sum() + penalty * (weights * weights).sum()
            found.backward()
            return found

        optimizer.step(loss)
    plain = weights.detach().numpy() / scale[:, None]
    return plain.astype(np.float32), (bias.detach().numpy() - mean @ plain).astype(np.float32)


def _principal(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and first principal components, with signs such that the largest coordinate is positive."""
    mean = vectors.mean(axis=0)
    _, _, found = np.linalg.svd(vectors - mean, full_matrices=False)
    components = found[:count]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return mean.astype(np.float32), (components * np.sign(largest)).astype(np.float16)


def _limited(found: OODCheck, held_out: Sequence[np.ndarray], rng: np.random.Generator) -> OODCheck:
    """The check with limits from held-out images (without those that look turned or inverted), and how many images they
    flag."""
    plain = _vectors([counterexamples.plainly(one) for one in held_out])
    straight = ~_looks_altered(found.scores(plain))
    upright = [one for one, is_so in zip(held_out, straight, strict=True) if is_so]
    if not upright:
        return replace(found, limits=np.array([LIMITS[1], -NEVER, NEVER]), held_out=0)
    crops = _vectors([counterexamples.random_crop(one, rng) for one in upright])
    z = found.scores(plain[straight])
    lowest, unmirrored = LIMITS[1], -NEVER
    if len(z) >= FEWEST_HELD_OUT:
        lowest = min(max(-upper_limit(-usualness(z), KEPT), LIMITS[0]), LIMITS[1])
        unmirrored = min(-upper_limit(z[:, MIRRORED] - z[:, 0], KEPT), LIMITS[1])
    far = FAR * max(found.distances(vectors).max(initial=1.0) for vectors in (plain[straight], crops))
    limits = (lowest, unmirrored, far)
    found = replace(found, limits=np.array(limits))
    looks = found.noticed(plain)
    altered = np.zeros(len(CLASSES), np.int64)
    for place in range(MIRRORED, LATERAL):
        change = counterexamples.ALTERED.get(CLASSES[place], counterexamples.mirrored)
        changed = _vectors([counterexamples.plainly(np.ascontiguousarray(change(one))) for one in upright])
        altered[place] = (found.noticed(changed) >= 0).sum()
    return replace(found, alarms=np.bincount(looks[looks >= 0], minlength=len(CLASSES)), altered=altered)


def upper_limit(numbers: np.ndarray, share: float) -> float:
    """A number that a new image of the same kind exceeds with probability at most 1 - share; for few numbers, their
    maximum."""
    place = min(math.ceil((len(numbers) + 1) * share), len(numbers)) - 1
    return float(np.sort(numbers)[place])


def _images(data: Datasets, rows: np.ndarray) -> list[np.ndarray]:
    """Contents (96, 96) of a fixed random sample of the rows; empty images are left out."""
    rows = np.unique(rows)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))

    def read(row: int) -> np.ndarray | None:
        image = np.asarray(data.image(row))
        return None if appearance.is_blank(image) else appearance.cropped_content(image)

    with ThreadPoolExecutor() as pool:
        return [one for one in pool.map(read, rows.tolist()) if one is not None]


def _children(data: Datasets, rows: np.ndarray) -> tuple[int, int]:
    """Number of known ages, and of children among them."""
    ages = data.column("age")[rows]
    return int((~np.isnan(ages)).sum()), int((ages < ADULT).sum())


def _laterals(data: Datasets, rows: np.ndarray) -> tuple[int, int]:
    """Number of known views, and of laterals among them."""
    views = data.column("view")[rows]
    return int((views != "").sum()), int((views == "LATERAL").sum())


def is_common(counts: Sequence[int]) -> bool:
    """Whether at least a share RARE of the images with known value are of this kind."""
    known, such = counts
    return bool(known) and such >= RARE * known
