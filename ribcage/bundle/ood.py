"""Out-of-distribution (OOD) check: whether an image is unlike the training images, and in what way.

It is fitted on the training images alone: they, mirrored, turned and inverted ones, laterals, and what is no chest
(`ribcage.bundle.counterexamples`) are eight classes of a linear classifier of their vectors x
(`ribcage.imaging.appearance`):

    z = x W + b;   s = log(exp z_usual + exp z_mirrored) - log(sum of exp z_k over the other classes)

An image is noticed when s is below a limit, when z_usual - z_mirrored is, or when the part of x - m outside of the
first principal components of the training images is longer than a limit. The limits are from held-out images.
"""

import functools
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.bundle import counterexamples
from ribcage.data import selection
from ribcage.data.collection import Datasets
from ribcage.imaging import appearance, image_file

FILE = "ood.npz"
CLASSES = ("usual", "mirrored", *counterexamples.ALTERED, "lateral", "other")
MIRRORED, LATERAL, OTHER = (CLASSES.index(name) for name in ("mirrored", "lateral", "other"))
FIRST_ALTERED = MIRRORED + 1
COMPONENTS, IMAGES_PER_COMPONENT = 24, 10
"""At most so many; fewer of few images, so that none of them can be read from a component."""
MOST = 600
"""Training images, and held-out images, that are looked at."""
FEWEST = 20
"""With fewer training images there is no check."""
VIEWS, ENOUGH = 2, 200
"""Of few images several random crops each, up to so many, or until there are this many crops."""
PHANTOMS, LEAST = 150, 40
"""At most so many made-up laterals, and frontal images to compare them with; at least so many of what is no chest."""
PENALTY, STEPS = 0.01, 40
"""Of the classifier: its L2 penalty and its steps."""
CLEANINGS, CLEANING_PENALTY = 2, 0.1
"""How often it is fitted to leave out training images that it says are turned or inverted themselves; a high penalty,
so that it learns none of them by heart."""
KEPT = 0.98
"""Held-out images that stay above the limit of s, and above that of z_usual - z_mirrored."""
LIMITS = (-2.0, -0.5)
"""Where the limit of s lies, whatever the held-out images are."""
FEWEST_HELD_OUT = round(1 / (1 - KEPT))
"""With fewer held-out images one of them alone would set a limit: then s has the upper of LIMITS, and mirrored images
are not looked for."""
FAR = 1.1
"""The limit of the distance, over the largest of the held-out images and of a random crop of each."""
NEVER = 1e9
"""A limit that nothing passes."""
RARE = 0.05
"""A view or an age group with a smaller share of the training images is unusual."""
ADULT = 18
LEAST_SCALE = 1e-2
LARGEST = 1 << 20
"""Bytes of a file at most."""


@dataclass(frozen=True, eq=False)
class Check:
    """What an OOD check knows of the training images."""

    weights: np.ndarray
    """(D, K)"""
    bias: np.ndarray
    """(K,)"""
    mean: np.ndarray
    """(D,) of the training images' vectors."""
    components: np.ndarray
    """(C, D) float16"""
    limits: np.ndarray
    """(3,) of s, of z_usual - z_mirrored, and of the distance."""
    fitted_on: int
    """Training images."""
    held_out: int
    """Images that the limits are from."""
    alarms: np.ndarray
    """(K,) how many of these are noticed, by what they look like; [0] those that are only far."""
    altered: np.ndarray
    """(K,) how many of them are noticed when mirrored, turned or inverted; 0 for the other classes."""
    ages: np.ndarray
    """(2,) of all training images: how many have a known age, and how many of these are of children."""
    views: np.ndarray
    """(2,) how many have a known view, and how many of these are laterals."""
    learnt: bool = True
    """Whether the model has learnt from these images, or only its thresholds were chosen on them."""

    @classmethod
    def of(cls, data: Datasets, rows: np.ndarray, held_out: np.ndarray) -> "Check | None":
        """For a model that learns from these rows; None if they are too few."""
        ages, views = _children(data, rows), _laterals(data, rows)
        lateral = data.column("view") == "LATERAL"
        beside = np.empty(0, np.int64)
        if not _many(views):  # not what the model is for: examples of what is unusual
            splits = data.column("split")
            beside = np.flatnonzero(lateral & np.isin(splits, np.unique(splits[rows])))
            rows, held_out = rows[~lateral[rows]], held_out[~lateral[held_out]]
        images = _images(data, rows)
        if len(images) < FEWEST:
            return None
        laterals = None if _many(views) else _images(data, beside)
        found = fitted(images, _images(data, held_out), laterals)
        return replace(found, ages=np.array(ages), views=np.array(views))

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """(N, K) z of vectors (N, D)."""
        return np.asarray(vectors @ self.weights + self.bias)

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) the length of x - m outside of the components."""
        rest = vectors - self.mean
        along = rest @ self.components.astype(np.float32).T
        return np.asarray(np.sqrt(np.maximum((rest * rest).sum(axis=1) - (along * along).sum(axis=1), 0)))

    def noticed(self, vectors: np.ndarray) -> np.ndarray:
        """(N,) int: the class that an image looks like where it is noticed, 0 where it is only far, else -1."""
        z = self.scores(vectors)
        looks = FIRST_ALTERED + z[:, FIRST_ALTERED:].argmax(axis=1)
        found = np.where(self.distances(vectors) > self.limits[2], 0, -1)
        found = np.where(z[:, 0] - z[:, MIRRORED] < self.limits[1], MIRRORED, found)
        return np.where(usualness(z) < self.limits[0], looks, found)

    def save(self, part: Path) -> None:
        """Write one npz, into the part of a file to be."""
        with part.open("wb") as stream:
            np.savez(stream, **{item.name: getattr(self, item.name) for item in fields(self)})


def usualness(z: np.ndarray) -> np.ndarray:
    """(N,) s of scores (N, K)."""
    return np.asarray(np.logaddexp(z[:, 0], z[:, MIRRORED]) - np.logaddexp.reduce(z[:, FIRST_ALTERED:], axis=1))


def later(data: Datasets, rows: np.ndarray, held_out: np.ndarray) -> Callable[[], Check | None]:
    """The check, fitted when it is first asked for."""
    return functools.cache(lambda: Check.of(data, rows, held_out))


def halved(data: Datasets, rows: np.ndarray) -> Check | None:
    """For somebody's model, whose thresholds were chosen on these images: half of their patients are held out."""
    half = selection.share_of_patients(data, rows, 0.5)
    found = Check.of(data, half, np.setdiff1d(rows, half))
    return found and replace(found, learnt=False)


def kept(before: Check | None, now: Check | None) -> Check | None:
    """Which of two a model keeps whose thresholds were chosen again: the one that knows its training images."""
    return before if before and (before.learnt or not now) else now


# ---- Fitting


@dataclass(frozen=True)
class Examples:
    """Vectors with their classes."""

    vectors: np.ndarray
    """(M, D)"""
    classes: np.ndarray
    """(M,)"""
    images: np.ndarray
    """(M,) which training image a vector is made from; -1 for none."""

    def without(self, images: np.ndarray) -> "Examples":
        """Those made from other images."""
        left = ~np.isin(self.images, images)
        return Examples(self.vectors[left], self.classes[left], self.images[left])


def fitted(
    images: Sequence[np.ndarray], held_out: Sequence[np.ndarray], laterals: Sequence[np.ndarray] | None = ()
) -> Check:
    """A check of contents (96, 96) of training images, with limits from held-out ones.

    laterals: real ones that are to be noticed, beside made-up ones; None: laterals are not to be noticed.
    """
    rng = np.random.default_rng(0)
    every = examples(images, laterals, rng)
    weights, bias, turned = _classifier(every, len(images))
    left = every.without(turned)
    count = min(COMPONENTS, len(images) // IMAGES_PER_COMPONENT)
    mean, components = _principal(left.vectors[left.classes == 0], count)
    none = np.zeros(len(CLASSES), np.int64)
    found = Check(
        weights, bias, mean, components, limits=np.zeros(3), alarms=none, altered=none,
        fitted_on=len(images), held_out=len(held_out), ages=none[:2], views=none[:2],
    )  # fmt: skip
    return _limited(found, held_out, rng)


def examples(images: Sequence[np.ndarray], laterals: Sequence[np.ndarray] | None, rng: np.random.Generator) -> Examples:
    """The training images in all classes, and what belongs to none of them."""
    count, seen = len(images), counterexamples.seen
    numbers = np.arange(count)
    parts: list[tuple[int, np.ndarray, np.ndarray]] = []
    for place, change in ((0, np.asarray), (MIRRORED, counterexamples.mirrored)):
        parts.append((place, _vectors([counterexamples.plainly(change(one)) for one in images]), numbers))
    for _ in range(min(VIEWS, max(1, ENOUGH // count))):
        for place, change in ((0, np.asarray), (MIRRORED, counterexamples.mirrored)):
            parts.append((place, _vectors([seen(change(one), rng) for one in images]), numbers))
        for place, how in enumerate(counterexamples.ALTERED, FIRST_ALTERED):
            turned = [seen(counterexamples.altered(one, how, rng), rng) for one in images]
            parts.append((place, _vectors(turned), numbers))
    if laterals is not None:
        crops = np.concatenate([own for place, own, _ in parts[2:] if place == 0])
        own = _vectors([seen(_either(one, rng), rng) for one in laterals])
        both = np.concatenate([own, _made_up_laterals(count, crops.mean(axis=0), rng)])
        parts.append((LATERAL, both, np.full(len(both), -1)))
    others = _vectors([seen(counterexamples.other(images, rng), rng) for _ in range(max(count, LEAST))])
    parts.append((OTHER, others, np.full(len(others), -1)))
    classes = np.concatenate([np.full(len(own), place) for place, own, _ in parts])
    return Examples(np.concatenate([own for _, own, _ in parts]), classes, np.concatenate([of for *_, of in parts]))


def _made_up_laterals(count: int, usual: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(M, D): laterals of the phantom, moved by what its frontal images differ by from the training images. What is
    learnt is then what makes a lateral, and not what makes a made-up image."""
    many = min(PHANTOMS, max(count, LEAST))
    laterals, frontals = (counterexamples.phantoms(many, view) for view in ("LATERAL", "PA"))
    seen = counterexamples.seen
    moved = usual - _vectors([seen(one, rng) for one in frontals]).mean(axis=0)
    return (
        _vectors([seen(_either(one, rng), rng) for _ in range(max(count, ENOUGH) // many) for one in laterals]) + moved
    )


def _either(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A lateral from the left or from the right."""
    return counterexamples.mirrored(image) if rng.random() < 0.5 else image


def _vectors(images: Sequence[np.ndarray]) -> np.ndarray:
    """(N, D) of images (64, 64)."""
    return np.stack([appearance.vector(one) for one in images] or [np.empty(0, np.float32)]).reshape(
        len(images), appearance.LENGTH
    )


def _classifier(every: Examples, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, b, and which of the training images look turned or inverted themselves, as some of every large data set do:
    these are left out."""
    turned = np.empty(0, np.int64)
    for last in range(CLEANINGS, -1, -1):
        penalty, steps = (CLEANING_PENALTY, STEPS // 2) if last else (PENALTY, STEPS)
        weights, bias = _softmax_regression(every.without(turned), penalty, steps)
        if last:
            z = every.vectors[:count] @ weights + bias  # the first are the images as they are
            turned = np.flatnonzero(_looks_altered(z))
    return weights, bias, turned


def _looks_altered(z: np.ndarray) -> np.ndarray:
    """(N,) bool: whether turned or inverted is likelier than all else together."""
    return np.asarray(z[:, FIRST_ALTERED:LATERAL].max(axis=1) > np.logaddexp.reduce(z, axis=1) - math.log(2))


def _softmax_regression(every: Examples, penalty: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """W and b of multinomial logistic regression in which all classes count the same."""
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
    """Mean and first components, each with the sign that makes its largest number positive."""
    mean = vectors.mean(axis=0)
    _, _, found = np.linalg.svd(vectors - mean, full_matrices=False)
    components = found[:count]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return mean.astype(np.float32), (components * np.sign(largest)).astype(np.float16)


def _limited(found: Check, held_out: Sequence[np.ndarray], rng: np.random.Generator) -> Check:
    """With limits from held-out images, without those of them that look turned or inverted, and what these limits
    notice."""
    plain = _vectors([counterexamples.plainly(one) for one in held_out])
    straight = ~_looks_altered(found.scores(plain))
    upright = [one for one, is_so in zip(held_out, straight, strict=True) if is_so]
    if not upright:
        return replace(found, limits=np.array([LIMITS[1], -NEVER, NEVER]), held_out=0)
    crops = _vectors([counterexamples.seen(one, rng) for one in upright])
    z = found.scores(plain[straight])
    lowest, unmirrored = LIMITS[1], -NEVER
    if len(z) >= FEWEST_HELD_OUT:
        lowest = min(max(-kept_by(-usualness(z), KEPT), LIMITS[0]), LIMITS[1])
        unmirrored = min(-kept_by(z[:, MIRRORED] - z[:, 0], KEPT), LIMITS[1])
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


def kept_by(numbers: np.ndarray, share: float) -> float:
    """The number that a new image like these is above in at most 1 - share of the cases; of few, their greatest."""
    place = min(math.ceil((len(numbers) + 1) * share), len(numbers)) - 1
    return float(np.sort(numbers)[place])


def _images(data: Datasets, rows: np.ndarray) -> list[np.ndarray]:
    """Contents (96, 96) of at most so many of the rows, always the same; empty images are left out."""
    rows = np.unique(rows)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))

    def read(row: int) -> np.ndarray | None:
        image = np.asarray(data.image(row))
        return None if appearance.empty(image) else appearance.content(image)

    with ThreadPoolExecutor() as pool:
        return [one for one in pool.map(read, rows.tolist()) if one is not None]


def _children(data: Datasets, rows: np.ndarray) -> tuple[int, int]:
    """How many ages are known, and how many of them are of children."""
    ages = data.column("age")[rows]
    return int((~np.isnan(ages)).sum()), int((ages < ADULT).sum())


def _laterals(data: Datasets, rows: np.ndarray) -> tuple[int, int]:
    """How many views are known, and how many of them are laterals."""
    views = data.column("view")[rows]
    return int((views != "").sum()), int((views == "LATERAL").sum())


def _many(counts: Sequence[int]) -> bool:
    """Whether such images are at least RARE among those of which it is known."""
    known, such = counts
    return bool(known) and such >= RARE * known


# -- In a bundle ------------------------------------------------------------------------------------------------------


def load(folder: Path) -> Check | None:
    """The check in a bundle; None where there is none."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = [one.file_size for one in archive.infolist()]
        if sum(sizes) > LARGEST:
            raise ValueError(f"{sum(sizes):,} bytes")
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {item.name: arrays[item.name] for item in fields(Check)}
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f"{file} is damaged ({type(error).__name__}): train or calibrate the model again.") from None
    if not _whole(found):
        raise ValueError(f"{file} is damaged: its arrays are not what Ribcage writes.")
    return Check(**{**found, **{name: found[name].item() for name in ("fitted_on", "held_out", "learnt")}})


def _whole(found: dict[str, np.ndarray]) -> bool:
    """Whether all arrays are of the right kind and shape, finite, and counts where they must be."""
    length, many = appearance.LENGTH, len(CLASSES)
    shapes: dict[str, tuple[int, ...]] = {"weights": (length, many), "bias": (many,), "mean": (length,)}
    shapes |= {"components": (found["components"].shape[0] if found["components"].ndim else 0, length), "limits": (3,)}
    shapes |= {"alarms": (many,), "altered": (many,), "ages": (2,), "views": (2,)}
    counts = ("fitted_on", "held_out", "alarms", "altered", "ages", "views", "learnt")
    if any(one.shape != shapes.get(name, ()) for name, one in found.items()):
        return False
    if any(one.dtype.kind not in ("ib" if name in counts else "f") for name, one in found.items()):
        return False
    return all(np.isfinite(one).all() for one in found.values()) and all((found[name] >= 0).all() for name in counts)


# -- What is said of an image -----------------------------------------------------------------------------------------

RADIOGRAPHS = ("", "CR", "DX", "RG", "DR", "OT", "SC")
"""Modalities of plain radiographs, and those that tell nothing."""
WORD = re.compile(r"[\w ]{1,16}")
"""What a DICOM may call a part of the body; anything else may be a name."""
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB", "STERNUM", "HEART", "BRUSTKORB", "胸", "肺")
"""Words of body parts that are in a chest radiograph."""


def remarks(
    check: Check | None, square: np.ndarray, tags: dict[str, str], notes: Sequence[str] = ()
) -> tuple[str, ...]:
    """What is unusual about an image, in plain sentences: what its DICOM says, how it was read, and how it looks."""
    said = [note.removeprefix(image_file.CAUTION) for note in notes if note.startswith(image_file.CAUTION)]
    cautions = [f"{note[:1].upper()}{note[1:]}." for note in said]
    dark = [f"Perhaps too dark: {note.removesuffix(', which is dark')}." for note in notes if note.endswith("is dark")]
    return (*_of_tags(check, tags), *cautions, *dark, *_of_pixels(check, square))


def _of_tags(check: Check | None, tags: dict[str, str]) -> list[str]:
    """What the tags say that is unusual."""
    said = []
    modality, body = (_shown(tags.get(name, "")) for name in ("modality", "body"))
    if body and not WORD.fullmatch(body):
        body = "that is no DICOM word"
    if modality.upper() not in RADIOGRAPHS:
        said.append(f"No plain radiograph: its DICOM says modality {modality}.")
    if body and not any(word in body.upper() for word in CHEST):
        said.append(f"Perhaps no chest: its DICOM says body part {body}.")
    if tags.get("view") == "LATERAL" and (how := _rare(check, "view", "laterals")):
        said.append(f"Not a frontal image: its DICOM says it is a lateral; {how}.")
    if (age := _age(tags.get("age", ""))) is not None:
        who, which = ("A child", "of children") if age < ADULT else ("An adult", "of adults")
        if how := _rare(check, "age", which):
            said.append(f"{who}: its DICOM says age {age:.3g}; {how}.")
    return said


def _rare(check: Check | None, what: str, which: str) -> str:
    """How many images of this kind were learnt from; "" where they are many, or where adults are as likely as not."""
    every, such = (check.ages if what == "age" else check.views).tolist() if check else (0, 0)
    if which == "of adults":
        such = every - such
    if check is None or not every:
        usual = which == "of adults"
        return "" if usual else f"how many of the images the model has learnt from were {which} is not known"
    return "" if _many((every, such)) else f"of {_whose(check)} with a known {what}, {every:,}, {such:,} were {which}"


def _whose(check: Check) -> str:
    """What the images that a check knows are to the model."""
    return "the training images" if check.learnt else "the images that its thresholds were chosen on"


def _age(text: str) -> float | None:
    """In years."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age < math.inf else None


def _shown(text: str) -> str:
    """What a file says, short and without what a terminal would act upon."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:40]


def _of_pixels(check: Check | None, square: np.ndarray) -> list[str]:
    """What the pixels show that is unusual."""
    if appearance.empty(square):
        return ["Empty: its pixels are all but equal."]
    if check is None:
        return []
    vector = appearance.vector(counterexamples.plainly(appearance.content(square)))[None]
    look = int(check.noticed(vector)[0])
    return [] if look < 0 else [f"{_said_of(check, look)} {_worth(check, look)}"]


def _said_of(check: Check, look: int) -> str:
    """One sentence for what an image looks like."""
    if look == 0:
        return f"Unlike {_whose(check)}."
    if look == MIRRORED:
        return "Perhaps mirrored, left for right: the heart seems to be on the other side."
    if look == LATERAL:
        return "Looks like a lateral or oblique view."
    if look == OTHER:
        return "Perhaps no frontal chest radiograph."
    return f"Looks {CLASSES[look]}."


def _worth(check: Check, look: int) -> str:
    """What the sentence is worth: how often it is said of held-out images, as they are and so altered."""
    if not check.held_out:
        return "No validation image was there to try this on."
    alarms = f"The same is said of {check.alarms[look]:,} of {check.held_out:,} validation images"
    if check.altered[look]:
        alarms += f", and of {check.altered[look]:,} when they are altered like that"
    return alarms + "."


# -- What the check is worth ------------------------------------------------------------------------------------------


def weakness(check: Check | None) -> str:
    """A sentence for a model whose check should not be relied on; "" for others."""
    if check is None:
        return (
            f"The model has no OOD check ({FEWEST} training images or more give one): only DICOM tags can say what is "
            "unusual."
        )
    if not check.held_out:
        return f"The OOD check was fitted on {check.fitted_on:,} images and tried on none."
    share = check.alarms.sum() / check.held_out
    if check.fitted_on < ENOUGH or check.held_out < ENOUGH // 2:
        return (
            f"The OOD check is from few images ({check.fitted_on:,}, and {check.held_out:,} of validation, of which it "
            f"notices {check.alarms.sum():,}): it notices turned images, and little else can be promised."
        )
    return f"The OOD check notices {share:.0%} of the validation images themselves." if share > RARE else ""
