"""Typical: what a model's training pictures look like, so that one unlike them is noticed.

A picture becomes a thumbnail x of 32 × 32 without its local mean and contrast. Of at most 2,000 training pictures are
kept the mean m, the first 24 principal components v_i with their variances s_i, and with z = x - m the distance

    d² = (sum_i (v_i z)² / s_i) / A + (|z|² - sum_i (v_i z)²) / B

where A and B are the means of the two sums over held-out pictures: how strange a picture is in what training pictures
differ by, and how much of it they do not have at all. The limits are those that held-out pictures keep.
"""

import functools
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np

from ribcage import cohort, image
from ribcage.store import Store

FILE = "typical.npz"
SIDE, REACH, LEAST_CONTRAST = 32, 8.0, 0.2
"""Of a thumbnail: its side, how far its local mean and contrast reach, and the least of a local contrast, as a share of
the whole picture's."""
COMPONENTS = 24
MOST = 2000
"""Pictures are looked at of each part at most."""
FEWEST, FEWEST_HELD_OUT = 200, 100
"""Of less there is no description."""
INSIDE = 0.995
"""So many held-out pictures are no farther than the limit."""
USUAL = 0.95
"""So many are usual, also among those that are nearer to the training pictures as they are than inverted or turned: in
real data some are turned. A picture that is far has to become usual to count as such."""
RARE = 0.05
"""A kind of picture that is less than this share of what was learnt from is remarked on."""
ADULT = 18
EMPTY = 1.0
"""Gray values: what varies less shows nothing."""
LEAST_SCALE = 1e-6
"""Nothing is divided by less."""
LARGEST = 1 << 20
"""Bytes that a description has at most."""


def _exchanged(small: np.ndarray) -> np.ndarray:
    """Black for white; a black border beside the picture stays."""
    rows, columns = (small > 0).max(axis=1), (small > 0).max(axis=0)
    return np.where(_between(rows)[:, None] & _between(columns), 255 - small, 0)


def _between(there: np.ndarray) -> np.ndarray:
    """(N,) bool: from the first place to the last."""
    return np.logical_or.accumulate(there) & np.logical_or.accumulate(there[::-1])[::-1]


UNDONE: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "inverted": ("with black and white exchanged", _exchanged),
    "upside down": ("turned by 180°", lambda small: small[::-1, ::-1]),
    "turned to the left by 90°": ("turned back to the right", lambda small: np.rot90(small, -1)),
    "turned to the right by 90°": ("turned back to the left", lambda small: np.rot90(small)),
}
"""How a picture may look → what mends it, in words and for its few pixels."""


@dataclass(frozen=True, eq=False)
class Typical:
    """A short description of pictures, and how far from it held-out ones lie."""

    mean: np.ndarray
    """(D,) of thumbnails."""
    components: np.ndarray
    """(K, D)"""
    variances: np.ndarray
    """(K,)"""
    scale: np.ndarray
    """(2,) A and B."""
    limit: float
    """The distance that held-out pictures keep."""
    usual: float
    """What all but the strangest of them keep."""
    nearer: np.ndarray
    """(4,) how many times nearer, mended in each way, a picture must be to count as such."""
    held_out: int
    """How many pictures the limits are from."""
    inside: int
    """How many of them are no farther than the limit."""
    mended: np.ndarray
    """(4,) how many of them count as inverted, upside down, …"""
    ages: np.ndarray
    """(2,) of all pictures learnt from: how many have a known age, and how many of these are of children."""
    views: np.ndarray
    """(2,) how many have a known view, and how many of these are laterals."""
    learnt: bool = True
    """Whether the model has learnt from these pictures, or only its thresholds were chosen on them."""

    @classmethod
    def of(cls, stores: Sequence[Store], rows: np.ndarray, held_out: np.ndarray) -> "Typical | None":
        """Of these rows, counted through all stores, with limits from those held out; None of too few pictures."""
        if len(rows) < FEWEST or len(held_out) < FEWEST_HELD_OUT:
            return None
        some, others = _pictures(stores, rows), _pictures(stores, held_out)
        if len(some) < FEWEST or len(others) < FEWEST_HELD_OUT:
            return None
        return fitted(some, others, _children(stores, rows), _laterals(stores, rows))

    def distances(self, smalls: np.ndarray) -> np.ndarray:
        """(N,) of pictures (N, 32, 32) from the training pictures."""
        return np.asarray(np.sqrt((self.parts(smalls) / self.scale).sum(axis=1)))

    def mended_distances(self, smalls: np.ndarray) -> np.ndarray:
        """(4, N) the same, mended in each way."""
        return np.stack([self.distances(np.stack([mend(one) for one in smalls])) for _, mend in UNDONE.values()])

    def parts(self, smalls: np.ndarray) -> np.ndarray:
        """(N, 2): the two sums in d²."""
        z = np.stack([thumbnail(one) for one in smalls]) - self.mean
        along = z @ self.components.T  # (N, K)
        rest = np.maximum((z * z).sum(axis=1) - (along * along).sum(axis=1), 0)
        return np.stack([(along * along / self.variances).sum(axis=1), rest], axis=1)

    def looks(self, distances: np.ndarray, mended: np.ndarray) -> np.ndarray:
        """(4, N) bool: which pictures of these distances look inverted, upside down, …: mended they are typical."""
        far = distances > self.limit
        return np.asarray(
            (distances > self.nearer[:, None] * mended) & (mended <= np.where(far, self.usual, self.limit))
        )

    def save(self, part: Path) -> None:
        """Write one npz, into the part of a file to be."""
        with part.open("wb") as stream:
            np.savez(stream, **{item.name: getattr(self, item.name) for item in fields(self)})


def later(stores: Sequence[Store], rows: np.ndarray, held_out: np.ndarray) -> Callable[[], Typical | None]:
    """The description, worked out when it is first asked for."""
    return functools.cache(lambda: Typical.of(stores, rows, held_out))


def halved(stores: Sequence[Store], rows: np.ndarray) -> Typical | None:
    """Of pictures that the thresholds of somebody's model were chosen on: half of their patients are the held-out."""
    half = cohort.share_of_patients(stores, rows, 0.5)
    found = Typical.of(stores, half, np.setdiff1d(rows, half))
    return found and replace(found, learnt=False)


def known(before: Typical | None, now: Typical | None) -> Typical | None:
    """Which of two describes a model whose thresholds were chosen anew: what it has learnt from stays so."""
    return before if before and (before.learnt or not now) else now


def fitted(
    some: np.ndarray, held_out: np.ndarray, ages: tuple[int, int] = (0, 0), views: tuple[int, int] = (0, 0)
) -> Typical:
    """Of pictures (N, 32, 32), and what is known of ages and views."""
    principal = _principal(np.stack([thumbnail(one) for one in some]))
    none = np.zeros(len(UNDONE), int)
    found = Typical(
        *principal, scale=np.ones(2), limit=math.inf, usual=math.inf, nearer=np.ones(len(UNDONE)), mended=none,
        held_out=len(held_out), inside=0, ages=np.array(ages), views=np.array(views),
    )  # fmt: skip
    found = replace(found, scale=np.maximum(found.parts(held_out).mean(axis=0), LEAST_SCALE))
    distances, mended = found.distances(held_out), found.mended_distances(held_out)
    limit, usual = _kept_by(distances, INSIDE), _kept_by(distances, USUAL)
    nearer = np.array([max(1.0, _kept_by(distances / one, USUAL)) for one in mended])
    found = replace(found, limit=limit, usual=usual, nearer=nearer, inside=int((distances <= limit).sum()))
    return replace(found, mended=found.looks(distances, mended).sum(axis=1))


def _principal(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, components and their variances, in single precision: what the last bits of a sum are does not show."""
    mean = thumbnails.mean(axis=0)
    _, spreads, vectors = np.linalg.svd(thumbnails - mean, full_matrices=False)
    components = vectors[:COMPONENTS]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    components = components * np.sign(largest)  # either sign would do: always the same one
    variances = np.maximum(spreads[:COMPONENTS] ** 2 / (len(thumbnails) - 1), LEAST_SCALE)
    return mean.astype(np.float32), components.astype(np.float32), variances.astype(np.float32)


def _kept_by(numbers: np.ndarray, share: float) -> float:
    """The number that a new picture like these is above in at most 1 - share of the cases; of few, their greatest."""
    place = min(math.ceil((len(numbers) + 1) * share), len(numbers)) - 1
    return float(np.sort(numbers)[place])


def small(square: np.ndarray) -> np.ndarray:
    """(32, 32) of a picture (S, S) of 8 or 16 bits, in gray values of 8."""
    pixels = np.ascontiguousarray(square, np.float32) / (1 if square.dtype == np.uint8 else 257)
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def empty(few: np.ndarray) -> bool:
    """Whether a small picture shows nothing."""
    return bool(few.std() < EMPTY)


def thumbnail(few: np.ndarray) -> np.ndarray:
    """(D,) a small picture without its local mean and contrast."""
    scaled = few.astype(np.float64) / max(few.std(), EMPTY)
    rest = scaled - _blurred(scaled)
    contrast = np.sqrt(_blurred(rest * rest))
    return np.asarray(rest / np.maximum(contrast, LEAST_CONTRAST)).ravel()


def _blurred(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), REACH, borderType=cv2.BORDER_REFLECT))


def _pictures(stores: Sequence[Store], rows: np.ndarray) -> np.ndarray:
    """(N, 32, 32) at most so many of the rows, always the same; empty pictures are left out."""
    rows = np.unique(rows)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    starts = np.cumsum([0, *map(len, stores)]).tolist()
    places = np.searchsorted(starts, rows, side="right") - 1
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda of, row: small(stores[of].picture(row - starts[of])), places.tolist(), rows.tolist())
        return np.stack([one for one in read if not empty(one)] or [np.empty((0, 0))])


def _children(stores: Sequence[Store], rows: np.ndarray) -> tuple[int, int]:
    """How many ages are known, and how many of them are of children."""
    ages = np.concatenate([one.index.table["age"].to_numpy(np.float32) for one in stores])[rows]
    return int((~np.isnan(ages)).sum()), int((ages < ADULT).sum())


def _laterals(stores: Sequence[Store], rows: np.ndarray) -> tuple[int, int]:
    """How many views are known, and how many of them are laterals."""
    views = np.concatenate([one.index.table["view"].to_numpy(str) for one in stores])[rows]
    return int((views != "").sum()), int((views == "LATERAL").sum())


# -- In a bundle ------------------------------------------------------------------------------------------------------


def load(folder: Path) -> Typical | None:
    """The description in a bundle; None where there is none."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = [one.file_size for one in archive.infolist()]
        if sum(sizes) > LARGEST:
            raise ValueError(f"{sum(sizes):,} bytes")
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {item.name: arrays[item.name] for item in fields(Typical)}
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f"{file} is damaged ({type(error).__name__}): train or calibrate the model again.") from None
    if not _whole(found):
        raise ValueError(f"{file} is damaged: its arrays are not what Ribcage writes.")
    plain = {name: found[name].item() for name in ("limit", "usual", "held_out", "inside", "learnt")}
    return Typical(**{**found, **plain})


def _whole(found: dict[str, np.ndarray]) -> bool:
    """Whether all arrays are of the right kind and shape, finite, and not what nothing could be divided by."""
    count = found["variances"].size
    shapes: dict[str, tuple[int, ...]] = {"mean": (SIDE * SIDE,), "components": (count, SIDE * SIDE)}
    shapes |= {"variances": (count,), "scale": (2,), "nearer": (4,), "mended": (4,), "ages": (2,), "views": (2,)}
    whole = ("held_out", "inside", "mended", "ages", "views", "learnt")
    if any(one.shape != shapes.get(name, ()) for name, one in found.items()):
        return False
    if any(one.dtype.kind not in ("ib" if name in whole else "f") for name, one in found.items()):
        return False
    if not all(np.isfinite(one).all() for one in found.values()) or any((found[name] < 0).any() for name in whole):
        return False
    return all((found[name] > 0).all() for name in ("variances", "scale", "limit", "usual", "nearer", "held_out"))


# -- What is said of a picture ----------------------------------------------------------------------------------------

RADIOGRAPHS = ("", "CR", "DX", "RG", "DR", "OT", "SC")
"""Modalities of plain radiographs, and those that tell nothing."""
WORD = re.compile(r"[\w ]{1,16}")
"""What a DICOM may call a part of the body; anything else may be a name."""
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB", "STERNUM", "HEART", "BRUSTKORB", "胸", "肺")
"""Words of body parts that are in a chest radiograph."""


def remarks(
    known: Typical | None, square: np.ndarray, tags: dict[str, str], notes: Sequence[str] = ()
) -> tuple[str, ...]:
    """What is unusual about a picture, in plain sentences: what its DICOM says, how it was read, and how it looks."""
    said = [note.removeprefix(image.CAUTION) for note in notes if note.startswith(image.CAUTION)]
    cautions = [f"{note[:1].upper()}{note[1:]}." for note in said]
    dark = [f"Perhaps too dark: {note.removesuffix(', which is dark')}." for note in notes if note.endswith("is dark")]
    return (*_said(known, tags), *cautions, *dark, *_seen(known, small(square)))


def _said(known: Typical | None, tags: dict[str, str]) -> list[str]:
    """What the tags say that is unusual."""
    said = []
    modality, body = (_shown(tags.get(name, "")) for name in ("modality", "body"))
    if body and not WORD.fullmatch(body):
        body = "that is no DICOM word"
    if modality.upper() not in RADIOGRAPHS:
        said.append(f"No plain radiograph: its DICOM says modality {modality}.")
    if body and not any(word in body.upper() for word in CHEST):
        said.append(f"Perhaps no chest: its DICOM says body part {body}.")
    if tags.get("view") == "LATERAL" and (how := _rare(known, "view", "laterals")):
        said.append(f"Not a frontal picture: its DICOM says it is a lateral; {how}.")
    if _child(tags.get("age", "")) and (how := _rare(known, "age", "of children")):
        said.append(f"A child: its DICOM says age {float(tags['age']):.3g}; {how}.")
    return said


def _rare(known: Typical | None, what: str, which: str) -> str:
    """How many pictures of this kind were learnt from; "" where they are many."""
    every, such = (known.ages if what == "age" else known.views).tolist() if known else (0, 0)
    if known is None or not every:
        return f"how many of the pictures the model has learnt from were {which} is not known"
    share = f"of {_whose(known)} with a known {what}, {every:,}, {such:,} were {which}"
    return share if such < RARE * every else ""


def _whose(known: Typical) -> str:
    """What the described pictures are to the model."""
    return "the training pictures" if known.learnt else "the pictures that its thresholds were chosen on"


def _child(age: str) -> bool:
    try:
        return 0 <= float(age) < ADULT
    except ValueError:
        return False


def _shown(text: str) -> str:
    """What a file says, short and without what a terminal would act upon."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:40]


def _seen(known: Typical | None, few: np.ndarray) -> list[str]:
    """What a small picture shows that is unusual."""
    if empty(few):
        return ["Empty: its pixels are all but equal."]
    if known is None:
        return []
    distance, mended = known.distances(few[None]), known.mended_distances(few[None])
    looks = known.looks(distance, mended)
    if looks.any():
        place = int(np.where(looks, mended, math.inf).argmin())
        return [_mended(known, place, float(distance[0]), float(mended[place, 0]))]
    return [_far(known, float(distance[0]))] if distance[0] > known.limit else []


def _mended(known: Typical, place: int, distance: float, mended: float) -> str:
    look, (how, _) = list(UNDONE.items())[place]
    return (
        f"Looks {look}: {how} it is nearer to {_whose(known)} (distance {mended:.2f}, as it is {distance:.2f}); "
        f"that is so of {known.mended[place]:,} of {known.held_out:,} validation pictures."
    )


def _far(known: Typical, distance: float) -> str:
    what = "chest radiograph" if known.views[1] else "frontal chest radiograph"
    count = "all" if known.inside == known.held_out else f"{known.inside:,} of"
    return (
        f"Far from {_whose(known)}, perhaps no {what}: distance {distance:.2f}; {count} {known.held_out:,} "
        f"validation pictures are within {known.limit:.2f}."
    )
