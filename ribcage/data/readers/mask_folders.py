"""Mask folders: image files that are masks of the images beside them, recognised by their names.

masks/a.png, a_mask.png                     a mask of a.png
masks/left lung/a.png, a_left_lung_mask.png  a mask of the left lung in a.png

A file is only attached to an image if its name and folders leave no doubt: the structure in its name must be known, and
its folders must be those of the image.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from ribcage.data.findings import FINDINGS, plain_letters
from ribcage.data.masks import DrawnMask, MaskFile
from ribcage.data.readers import tables
from ribcage.data.structures import STRUCTURES, structure_name

SUFFIX = re.compile(r"^(.+)[_-](?:mask|seg|segmentation)$", re.IGNORECASE)
LIKE_MASK = re.compile(r".[_-](?:masks?(?:[_-]?\d+)?|segs?|segmentations?)$", re.IGNORECASE)
"""End of the names of files that are no images; SUFFIX also tells to which image they belong."""
SIDES = {"leftmask": "Left_Lung", "rightmask": "Right_Lung"}
NEUTRAL = ("data", "image", "images", "img", "imgs", "png", "jpg", "jpeg", "图像", "图片", "manualmask")
"""Names of folders without a meaning."""
UNNAMED = "Mask"
"""Structure of a mask whose name says nothing about it."""


class Guess(NamedTuple):
    """A possible image of a mask, and the structure."""

    folders: tuple[str, ...]
    stem: str
    structure: str
    """Empty if the name of the mask does not state it."""


def without_masks(images: Sequence[str]) -> list[str]:
    """The image files that are no masks: neither in a folder of masks nor with the name of a mask, unless all have such
    names."""
    outside = [path for path in images if not tables.in_mask_folder(path)]
    return [path for path in outside if not LIKE_MASK.search(_stem(path))] or outside


def likely_mask_files(paths: Sequence[str], images: Sequence[str]) -> list[str]:
    """The image files with the names or in the folders of masks that are not among the images."""
    known = set(images)
    return [
        path
        for path in paths
        if path not in known
        and path.lower().endswith(tables.IMAGES)
        and (tables.in_mask_folder(path) or LIKE_MASK.search(_stem(path)))
    ]


def masks_in_folders(paths: Sequence[str], images: Sequence[str], structure: str = "") -> list[DrawnMask]:
    """The masks among these files, for the images with these paths, in order.

    structure: that of masks whose names say nothing about it.
    """
    row = {path: place for place, path in enumerate(images)}
    by_key, by_stem = (tables.unique_files([key(path) for path in images], images) for key in (_key, _stem))
    files = {path: list(dict.fromkeys(_guesses(path, structure))) for path in likely_mask_files(paths, images)}
    counts = Counter(pair for found in files.values() for pair in {(one.stem, one.structure) for one in found})
    drawn = []
    for path, guesses in files.items():
        found = {one: by_key[key] for one in guesses if (key := "/".join([*one.folders, one.stem])) in by_key}
        found = found or {
            one: by_stem[one.stem]
            for one in guesses
            if one.stem in by_stem
            and counts[one.stem, one.structure] == 1
            and are_among(one.folders, meaningful_folders(by_stem[one.stem]))
        }
        if len(set(found.values())) == 1:
            guess, image = next(iter(found.items()))
            drawn.append(DrawnMask(row[image], guess.structure or structure_name(structure or UNNAMED), MaskFile(path)))
    return sorted(drawn, key=lambda mask: mask.row)


def _guesses(path: str, structure: str) -> Iterator[Guess]:
    """Possible images of a mask. The structure may be in its name or be the name of a folder; where these contradict
    each other, there is no guess."""
    folders = meaningful_folders(path)
    sides = {SIDES[step.lower()] for step in path.split("/")[:-1] if step.lower() in SIDES}
    names = [*_split_suffix(path, structure), *([(_stem(path), "")] * tables.in_mask_folder(path))]
    steps = [(at, name) for at, step in enumerate(folders) if (name := _known_structure(step, structure))]
    for stem, word in names:
        for at, name in ((len(folders), ""), *steps):
            said = {word, name, *sides} - {""}
            if len(said) <= 1:
                yield Guess((*folders[:at], *folders[at + 1 :]), stem, "".join(said))


def _split_suffix(path: str, structure: str) -> list[tuple[str, str]]:
    """(stem of the image, structure) for each way to divide a name such as a_left_lung_mask.png."""
    named = SUFFIX.match(_stem(path))
    if not named:
        return []
    rest = named[1]
    parts = [(rest[:at], rest[at + 1 :]) for at in range(1, len(rest) - 1) if rest[at] in "_-"]
    return [(rest, ""), *((stem, name) for stem, word in parts if (name := _known_structure(word, structure)))]


@lru_cache(4096)
def _known_structure(word: str, given: str) -> str:
    """The name of the structure or finding, if it is in the vocabulary or was given; else an empty string."""
    if given and plain_letters(word) == plain_letters(given):
        return structure_name(given)
    name = structure_name(word)
    return name if name in STRUCTURES or (name in FINDINGS and name != "No_Finding") else ""


def are_among(folders: Sequence[str], others: Sequence[str]) -> bool:
    """Whether these folders are among the others, in the same order."""
    rest = iter(others)
    return all(step in rest for step in folders)


def _key(path: str) -> str:
    """Folders with a meaning and stem: train/images/a.png → train/a."""
    return "/".join([*meaningful_folders(path), _stem(path)])


def meaningful_folders(path: str) -> list[str]:
    """The folders in a path without those such as images and masks."""
    return [step for step in path.split("/")[:-1] if step.lower() not in (*NEUTRAL, *tables.MASK_FOLDERS)]


def _stem(path: str) -> str:
    return _without_ending(path).rpartition("/")[2]


def _without_ending(path: str) -> str:
    return tables.SUFFIX.sub("", path)
