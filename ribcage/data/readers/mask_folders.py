"""Mask folders: image files that are masks of the images beside them, recognised by their names.

masks/a.png, a_mask.png                     a mask of a.png
masks/left lung/a.png, a_left_lung_mask.png  a mask of the left lung in a.png
"""

import re
from collections import Counter
from collections.abc import Sequence

from ribcage.data.masks import DrawnMask, MaskFile
from ribcage.data.readers import tables
from ribcage.data.structures import STRUCTURES, structure_name

FOLDERS = (
    *("mask", "masks", "leftmask", "rightmask", "manualmask", "seg", "segs", "segmentation", "segmentations"),
    *("annotation", "annotations"),
)
"""Names of folders of masks."""
SUFFIX = re.compile(r"^(.+)[_-](?:mask|seg|segmentation)$", re.IGNORECASE)
SIDES = {"leftmask": "Left_Lung", "rightmask": "Right_Lung"}
NEUTRAL = ("data", "image", "images", "img", "imgs", "png", "jpg", "jpeg", "图像", "图片", "manualmask")
"""Names of folders without a meaning."""
UNNAMED = "Mask"
"""Structure of a mask whose name says nothing about it."""


def without_masks(images: Sequence[str]) -> list[str]:
    """The image files that are no masks: neither in a folder of masks nor a_mask.png beside a.png."""
    there = {_without_ending(path) for path in images}
    return [
        path
        for path in images
        if not _in_mask_folder(path)
        and not any(f"{path.rpartition('/')[0]}/{image}".removeprefix("/") in there for image, _ in _split_suffix(path))
    ]


def masks_in_folders(paths: Sequence[str], images: Sequence[str], structure: str = "") -> list[DrawnMask]:
    """The masks among these files, for the images with these paths, in order.

    structure: that of masks whose names say nothing about it.
    """
    row = {path: place for place, path in enumerate(images)}
    by_key, by_stem = (_only([key(path) for path in images], images) for key in (_key, _stem))
    drawn = []
    for path in paths:
        if path in row or not path.lower().endswith(tables.IMAGES):
            continue
        names = _names(path)
        found = [(by_key[name], word) for name, word in names if name in by_key]
        found += [(by_stem[stem], word) for name, word in names if (stem := name.rpartition("/")[2]) in by_stem]
        if found:
            image, word = found[0]
            word = word or next((step for step in _folders(path) if structure_name(step) in STRUCTURES), "")
            side = SIDES.get(path.split("/")[-2].lower(), "") if "/" in path else ""
            drawn.append(DrawnMask(row[image], side or structure_name(word or structure or UNNAMED), MaskFile(path)))
    return sorted(drawn, key=lambda mask: mask.row)


def _names(path: str) -> list[tuple[str, str]]:
    """Possible names of the image of a mask, with its folders, and the structure in the name of the mask, likeliest
    first; none if the file is no mask."""
    folders, inside = _folders(path), _in_mask_folder(path)
    found = [*_split_suffix(path), *([(_stem(path), "")] * inside)]
    names = [("/".join([*folders, image]), word) for image, word in found]
    if folders and _in_mask_folder(path.rpartition("/")[0]):  # masks/left lung/a.png
        names += [("/".join([*folders[:-1], image]), folders[-1]) for image, word in found if not word]
    return names


def _split_suffix(path: str) -> list[tuple[str, str]]:
    """(stem of the image, structure) for each way to divide a name such as a_left_lung_mask.png."""
    named = SUFFIX.match(_stem(path))
    if not named:
        return []
    rest = named[1]
    return [(rest, ""), *((rest[:at], rest[at + 1 :]) for at in range(1, len(rest) - 1) if rest[at] in "_-")]


def _key(path: str) -> str:
    """Folders with a meaning and stem: train/images/a.png → train/a."""
    return "/".join([*_folders(path), _stem(path)])


def _folders(path: str) -> list[str]:
    return [step for step in path.split("/")[:-1] if step.lower() not in (*NEUTRAL, *FOLDERS)]


def _stem(path: str) -> str:
    return _without_ending(path).rpartition("/")[2]


def _without_ending(path: str) -> str:
    return tables.SUFFIX.sub("", path)


def _in_mask_folder(path: str) -> bool:
    return any(step.lower() in FOLDERS for step in path.split("/")[:-1])


def _only(keys: list[str], images: Sequence[str]) -> dict[str, str]:
    """Key → image, for keys that only one image has."""
    counts = Counter(keys)
    return {key: path for key, path in zip(keys, images, strict=True) if counts[key] == 1}
