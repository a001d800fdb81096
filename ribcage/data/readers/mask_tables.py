"""Mask tables: files with masks for the images of any dataset, by the names of the images.

- CheXmask (https://physionet.org/content/chexmask-cxr-segmentation-data/): a CSV file for each of five datasets, with
  run lengths of the left lung, the right lung and the heart, which were segmented by a network.
- COCO: a JSON file with categories, images and annotations, whose segmentations are polygons or run lengths.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from posixpath import commonpath
from typing import Any

import numpy as np
import pandas as pd

from ribcage.data.index import Index
from ribcage.data.masks import DrawnMask, joined_masks, mask_frame
from ribcage.data.readers import tables
from ribcage.data.readers.mask_cells import named_mask_errors
from ribcage.data.readers.mask_folders import are_among, meaningful_folders
from ribcage.data.readers.table_text import printable_text
from ribcage.data.structures import structure_name
from ribcage.imaging.mask import Mask, check_mask_size
from ribcage.imaging.mask_encodings import mask_of_counts, mask_of_pairs, mask_of_polygons
from ribcage.runtime import files
from ribcage.runtime.spelling import count_phrase

NAMES = ("Image Index", "Path", "dicom_id", "ImageID", "image_id", "Image ID")
"""Columns with the image in the files of CheXmask."""
STRUCTURES = ("Left Lung", "Right Lung", "Heart")
QUALITY = "Dice RCA (Mean)"
LEAST_QUALITY = 0.7
"""Masks of CheXmask with a lower estimated Dice coefficient are left out, as its authors recommend."""
READER = "CheXmask"
"""Name of the reader of masks that no person drew."""
ROWS = 1000
"""Rows of a CSV file that are read at once."""

Named = tuple[str, DrawnMask | None]
"""The name of an image, and one of its masks; None states only that the image is listed."""

log = logging.getLogger("ribcage")


def with_masks(index: Index, file: Path) -> Index:
    """The index with the masks in a CSV file of CheXmask or a JSON file of COCO."""
    files.open_regular(file, "rb").close()  # of a pipe, a reader would wait for content
    read = _coco if file.suffix.lower() == ".json" else _chexmask
    named = list(read(file))
    if read is _chexmask:
        named = _without_repeated(named, file)
    row = {path: place for place, path in enumerate(index.table["path"])}
    names = list(dict.fromkeys(name for name, _ in named))
    matched = _without_doubtful(dict(zip(names, _matched(names, list(row)), strict=True)), list(row), file)
    drawn = [(name, mask) for name, mask in named if mask is not None]
    found = [replace(mask, row=row[matched[name]]) for name, mask in drawn if matched.get(name) in row]
    if not found:
        raise ValueError(f"None of the {len(drawn):,} masks in {file} is for an image of this dataset.")
    images = len({mask.row for mask in found})
    if lost := sum(matched.get(name, name) not in row for name in {name for name, _ in drawn} & matched.keys()):
        log.warning("%s also contains masks for %s not in this dataset.", file,
                    count_phrase(lost, "image that is", "images that are"))  # fmt: skip
    log.warning("%s contains masks for %s of %s.", file, f"{images:,}", count_phrase(len(index), "image"))
    return replace(index, masks=joined_masks(index.masks, mask_frame(found)))


def _matched(names: list[str], paths: list[str]) -> list[str]:
    """The path of each named image, as `matched_files`, or the only one with the same folders at its end."""
    found, there = tables.matched_files(names, paths)[0], set(paths)
    for depth in (4, 3, 2):  # train/patient00003/study1/view1_frontal
        only = tables.unique_files([_tail(path, depth) for path in paths], paths)
        found = [path if path in there else only.get(_tail(path, depth), path) for path in found]
    return found


def _without_repeated(named: list[Named], file: Path) -> list[Named]:
    """The masks without those of images that have several rows, which would be instances of a structure."""
    counts = Counter((name, mask.structure) for name, mask in named if mask is not None)
    repeated = {name for (name, _), count in counts.items() if count > 1}
    if repeated:
        log.warning("Images with several rows in %s were ignored: %s.", file, f"{len(repeated):,}")
    return [(name, mask) for name, mask in named if name not in repeated]


def _without_doubtful(matched: dict[str, str], paths: list[str], file: Path) -> dict[str, str]:
    """The names and their paths without those whose folders contradict those of the image, and without several names
    for one image, unless one is its path."""
    counts = Counter(matched.values())
    known = set(paths)
    shared = commonpath([path.lstrip("/") for path in paths]) if len(paths) > 1 else ""  # such as CheXpert-v1.0-small
    certain = {
        name: path
        for name, path in matched.items()
        if path not in known
        or name == path
        or (counts[path] == 1 and _have_like_folders(name, path.lstrip("/").removeprefix(shared)))
    }
    if lost := len(matched) - len(certain):
        log.warning(
            "Images listed in %s were ignored, because the image with the same name is in other folders, or because "
            "several of them have the name of one image: %s.",
            file,
            f"{lost:,}",
        )
    return certain


def _have_like_folders(name: str, path: str) -> bool:
    """Whether the folders of one are among those of the other."""
    listed, there = (
        [step for step in meaningful_folders(each.replace("\\", "/")) if step not in ("", ".")] for each in (name, path)
    )
    return are_among(listed, there) or are_among(there, listed)


def _tail(path: str, depth: int) -> str:
    """The last folders and the name of a file, without its ending."""
    return "/".join(tables.SUFFIX.sub("", path).split("/")[-depth:])


def _chexmask(file: Path) -> Iterator[Named]:
    """Every image with its masks, except for masks of low quality."""
    columns = tables.header(file)
    name = next((name for name in NAMES if name in columns), "")
    absent = [each for each in (QUALITY, *STRUCTURES, "Height", "Width") if each not in columns]
    if not name or absent:
        missing = " and no column ".join(absent) or " or ".join(NAMES)
        raise ValueError(
            f"{file} is not from CheXmask: it has no column {missing}. Pass a CSV file from the folder "
            "OriginalResolution of CheXmask."
        )
    kept = [name, QUALITY, "Height", "Width", *STRUCTURES]
    poor = blank = 0
    for rows in tables.read_in_chunks(file, kept, ROWS):
        good = pd.to_numeric(rows[QUALITY], errors="coerce") >= LEAST_QUALITY
        poor += int((~good).sum())
        yield from ((image, None) for image in rows.loc[~good, name])
        for row in rows[good].itertuples(index=False, name=None):
            image, _, height, width, *cells = row
            with named_mask_errors(file, image):
                size = _whole(width), _whole(height)
                masks = [mask_of_pairs(cell, *size, first=1) for cell in cells]
            drawn = [(name, mask) for name, mask in zip(STRUCTURES, masks, strict=True) if mask.area]
            blank += len(masks) - len(drawn)
            yield from ((image, DrawnMask(0, structure_name(name), mask, READER)) for name, mask in drawn)
    if poor:
        log.warning(
            "Masks of %s were left out, because their %s is below %g or unknown.", count_phrase(poor, "image"), QUALITY,
            LEAST_QUALITY,
        )  # fmt: skip
    if blank:
        log.warning("Masks without pixels in %s were ignored: %s.", file, f"{blank:,}")


def _coco(file: Path) -> Iterator[Named]:
    """Every image in the list of images, then the masks of the annotations."""
    try:
        content = files.read_json(file)
        names = {each["id"]: structure_name(str(each["name"])) for each in content["categories"]}
        images = {each["id"]: (str(each["file_name"]), each["width"], each["height"]) for each in content["images"]}
        annotations = [
            (each["image_id"], each["category_id"], each.get("segmentation")) for each in content["annotations"]
        ]
        listed = [(*images[image], names[category], shape) for image, category, shape in annotations]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is not a valid COCO file ({type(error).__name__}: {said}).") from None
    yield from ((image, None) for image, _, _ in images.values())
    empty = 0
    for image, width, height, name, shape in listed:
        with named_mask_errors(file, image):
            mask = _coco_mask(shape or [], _whole(width), _whole(height))
        if mask.area:
            yield image, DrawnMask(0, name, mask)
        else:  # an annotation states that the structure is there
            empty += 1
    if empty:
        log.warning(
            "Annotations in %s were ignored, because the segmentation is missing or contains no pixel of the image: "
            "%s.",
            file,
            f"{empty:,}",
        )


def _coco_mask(shape: Any, width: int, height: int) -> Mask:
    check_mask_size(width, height)
    if isinstance(shape, Mapping):
        if shape.get("size") != [height, width] or not isinstance(shape.get("counts"), list | str):
            raise ValueError(f"its run lengths do not have the size of the image, {width} x {height} pixels")
        return mask_of_counts(shape["counts"], width, height)
    try:
        polygons = [np.asarray(one, np.float64).reshape(-1, 2) for one in shape]
    except (TypeError, ValueError):
        raise ValueError("a segmentation is neither run lengths nor a list of polygons") from None
    return mask_of_polygons(polygons, width, height)


def _whole(value: object) -> int:
    """A width or height."""
    try:
        number = float(str(value))
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"its size {printable_text(str(value))} is not a whole number")
