"""Tables: what an import records about each image, and the tables of the dataset folder made from it."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
import pandas as pd

from ribcage.data import dataset_facts, dataset_folder, fingerprint_table, splits
from ribcage.data.importer import mask_files
from ribcage.data.importer.box_check import BoxCheck
from ribcage.data.index import SIDES, Index
from ribcage.data.masks import placed_masks
from ribcage.data.readers.box_cells import TOLERANCE, exceeding
from ribcage.data.readers.table_text import named_errors
from ribcage.imaging import duplicates, fingerprint, image_file
from ribcage.imaging.dicom import terms
from ribcage.runtime.spelling import count_phrase

log = logging.getLogger("ribcage")

TAGS = ("patient", "study", "view", "sex", "age")  # fields that DICOM headers may add to a table
FEW = 0.05
"""Share of images that may be enlarged for the sake of the others."""
LEAST_SIZE = 8
"""Minimum size of stored images in pixels."""


class ImageRecords(TypedDict):
    """The journal's records of several images: one list for each field."""

    rows: list[int]
    width: list[int]
    height: list[int]
    sum: list[int]
    squares: list[int]
    """Sum of the squared pixels."""
    pixels: list[int]
    """Hash of the stored pixels."""
    print: list[str]
    """Fingerprint in hexadecimal digits."""
    notes: list[list[str]]
    tags: list[dict[str, str]]


def join(records: Sequence[ImageRecords]) -> ImageRecords:
    """Several records as one."""
    return {
        "rows": [value for one in records for value in one["rows"]],
        "width": [value for one in records for value in one["width"]],
        "height": [value for one in records for value in one["height"]],
        "sum": [value for one in records for value in one["sum"]],
        "squares": [value for one in records for value in one["squares"]],
        "pixels": [value for one in records for value in one["pixels"]],
        "print": [value for one in records for value in one["print"]],
        "notes": [value for one in records for value in one["notes"]],
        "tags": [value for one in records for value in one["tags"]],
    }


def image_record(row: int, image: image_file.GrayImage, square: np.ndarray) -> ImageRecords:
    """The journal's record of an image."""
    wide = square.astype(np.uint64)
    against = (image_file.Note(text, caution=True) for text in terms.unlike_chest(image.tags))
    return {
        "rows": [row],
        "width": [image.width],
        "height": [image.height],
        "sum": [int(wide.sum())],
        "squares": [int((wide * wide).sum())],
        "pixels": [fingerprint.pixel_hash(square)],
        "print": [fingerprint.fingerprint(image.pixels).astype("<u8").tobytes().hex()],
        "notes": [[*image.note_texts, *map(str, against)]],
        "tags": [{name: image.tags[name] for name in TAGS if image.tags.get(name)}],
    }


def stored_index(index: Index, joined: ImageRecords, facts: dataset_facts.Facts) -> Index:
    """The index of the stored images: with original sizes, gaps filled from DICOM tags, and boxes transformed."""
    table = index.table.assign(width=np.array(joined["width"], np.int32), height=np.array(joined["height"], np.int32))
    if any(joined["notes"]):
        table["notes"] = pd.Series(["; ".join(notes) for notes in joined["notes"]], dtype="str")
    before, table = table, filled(table, joined["tags"])
    sizes = dict(enumerate(zip(table["width"].tolist(), table["height"].tolist(), strict=True)))
    moved = stored_tables(index, sizes, facts)
    table = with_split(table, facts)
    for contradiction in contradictions(before.assign(split=table["split"]), joined["tags"]):
        log.warning("%s", contradiction)
    return replace(index, table=table, box_frame=(facts.size, facts.size), **moved)


def linked_index(index: Index, facts: dataset_facts.Facts) -> Index:
    """The index of a linked folder, whose DICOM tags are read now."""
    index = replace(index, table=_tagged(index))
    read = dataset_folder.source(index, facts)
    sizes = {}
    boxes, masks, records = BoxCheck.of(index), mask_files.MaskReader(index), []
    annotated = {*index.masks["row"].unique().tolist(), *index.points["row"].unique().tolist()}
    for row in sorted({*index.boxes["row"].unique().tolist(), *annotated}):
        sizes[row] = (row not in annotated and index.box_frame) or _own_size(read(row))
        with named_errors(index.file(row)):
            boxes.check(row, *sizes[row])
            records += masks.read(row, *sizes[row])
    index = mask_files.with_read(index, records)
    moved = stored_tables(index, sizes, facts)
    return replace(index, table=with_split(index.table, facts), box_frame=(facts.size, facts.size), **moved)


def filled(table: pd.DataFrame, tags: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """The table with gaps filled from the tags of the images' files."""
    table = table.copy()
    for name in TAGS:
        known = pd.Series([each.get(name) or None for each in tags], dtype="float32" if name == "age" else "object")
        blank = table[name].isna() if name == "age" else table[name] == ""
        if known.notna().any():
            table[name] = table[name].mask(blank & known.notna(), known).astype(table[name].dtype)
    return table


def contradictions(table: pd.DataFrame, tags: Sequence[Mapping[str, str]]) -> list[str]:
    """What a table contradicts in the DICOM headers of its images: several patients with one PatientID who are in
    several splits, other views, other sexes. One sentence each."""
    found = []
    for name in ("view", "sex"):
        count = sum(
            bool(own and tag.get(name) and own != tag[name]) for own, tag in zip(table[name], tags, strict=True)
        )
        if count:
            found.append(
                f"The {name} in the table differs from the DICOM header for {count_phrase(count, 'image')}; "
                "the table is used."
            )
    headers = splits.spelt(pd.Series([tag.get("patient", "") for tag in tags], table.index, dtype="str"))
    known = table.assign(header=headers)[(headers != "") & (table["patient"] != "")]
    each = known.groupby("header")[["patient", "split"]].nunique()
    shared = each.index[(each > 1).all(axis=1)]
    if len(shared) and len(each) > 1:  # a single identifier in all files is a dummy
        images = int(known["header"].isin(shared).sum())
        found.append(
            f"{count_phrase(len(shared), 'PatientID')} in the DICOM headers ({count_phrase(images, 'image')}) occurs "
            "with several patients of the table and in several splits, so images of one person may be in several "
            "splits. If the headers are correct, use --patient-column none."
        )
    return found


def _tagged(index: Index) -> pd.DataFrame:
    """The table of files that are not imported, completed from DICOM headers."""
    if (index.table["patient"] != "").all():
        return index.table
    return filled(index.table, [image_file.read_tags(index.file(row)) for row in range(len(index))])


def _own_size(image: image_file.GrayImage) -> tuple[int, int]:
    return image.width, image.height


def with_split(table: pd.DataFrame, facts: dataset_facts.Facts) -> pd.DataFrame:
    """The table with a split: rows without one are assigned by a hash of the patient, with a warning."""
    if facts.dataset != "folder" and (table["split"] != "").any():
        return table  # a published split is unchanged, even if --limit removes parts of it
    return table.assign(split=splits.completed_splits(table["split"], table["patient"], table["path"]))


def without_shared_images(index: Index, prints: fingerprint_table.Fingerprints, giving: Sequence[str]) -> Index:
    """The index without the split of images that share a patient or are (near-)duplicates of an image in another split,
    for the splits in `giving`. Between two of these, images are removed from the one named first."""
    table = index.table
    parts = table["split"].to_numpy(object).copy()
    names = splits.spelt(table["patient"])
    for part in dict.fromkeys(giving):
        own, rest = np.flatnonzero(parts == part), np.flatnonzero((parts != part) & (parts != ""))
        found = splits.shared(names, parts, (part,)) | splits.shared(prints.pixels, parts, (part,))
        found[own[duplicates.duplicates_between(prints.prints[own], prints.prints[rest]).first]] = True
        parts[found] = ""
        if len(own) and not (parts == part).any():
            raise ValueError(
                f"--drop-shared {part} would remove every image of split {part!r}, because all of its patients or "
                f"images also occur in other splits."
            )
        log.warning(
            "Removed %s of %s, because the patient or a copy of the image is also in another split.",
            count_phrase(int(found.sum()), "image"),
            part,
        )
    return replace(index, table=table.assign(split=pd.Series(parts, table.index, dtype="str")))


def stored_boxes(index: Index, sizes: dict[int, tuple[int, int]], facts: dataset_facts.Facts) -> pd.DataFrame:
    """Boxes in pixels of the stored image, clipped to it; boxes outside it are dropped."""
    boxes = index.boxes
    matrices, own = _matrices(boxes["row"], sizes, facts)
    frames = np.broadcast_to(index.box_frame or own, own.shape)
    sides = boxes[list(SIDES)].to_numpy(np.float64)
    corners = np.stack([sides[:, :2], sides[:, :2] + sides[:, 2:]], 1) * (own / frames)[:, None]  # (M, 2, 2)
    corners = corners * matrices[:, None, [0, 1], [0, 1]] + matrices[:, None, :, 2]
    corners = corners.clip(0, facts.size)
    if over := int(exceeding(sides, frames).sum()):
        log.warning("%s by more than %s pixels; the part outside is clipped.",
                    count_phrase(over, "box exceeds its image", "boxes exceed their images"), TOLERANCE)  # fmt: skip
    moved = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], 1).astype(np.float32)
    boxes = boxes.assign(**dict(zip(SIDES, moved.T, strict=True)))
    return boxes[(boxes["width"] > 0) & (boxes["height"] > 0)].reset_index(drop=True)


def stored_tables(
    index: Index, sizes: dict[int, tuple[int, int]], facts: dataset_facts.Facts
) -> dict[str, pd.DataFrame]:
    """Boxes, masks and points in the stored images, by the names of the fields of Index."""
    return {
        "boxes": stored_boxes(index, sizes, facts),
        "masks": stored_masks(index, sizes, facts),
        "points": stored_points(index, sizes, facts),
    }


def stored_masks(index: Index, sizes: dict[int, tuple[int, int]], facts: dataset_facts.Facts) -> pd.DataFrame:
    """Masks with their places in the stored images."""
    matrices, own = _matrices(index.masks["row"], sizes, facts)
    return placed_masks(index.masks, matrices, own)


def stored_points(index: Index, sizes: dict[int, tuple[int, int]], facts: dataset_facts.Facts) -> pd.DataFrame:
    """Points in pixels of the stored image; points outside it are dropped."""
    matrices, own = _matrices(index.points["row"], sizes, facts)
    scale = own / np.array(index.box_frame or own, np.float64).reshape(-1, 2)
    at = index.points[["x", "y"]].to_numpy() * scale * matrices[:, [0, 1], [0, 1]] + matrices[:, :, 2]
    inside = ((at >= 0) & (at <= facts.size)).all(axis=1)
    return index.points.assign(x=at[:, 0], y=at[:, 1])[inside].reset_index(drop=True)


def _matrices(
    rows: pd.Series, sizes: dict[int, tuple[int, int]], facts: dataset_facts.Facts
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 2, 3) matrices from the images of these rows to their stored images, and (M, 2) sizes of the images."""
    known: dict[tuple[int, int], np.ndarray] = {}
    for row in rows.unique().tolist():
        size = sizes[row]
        known.setdefault(size, image_file.fit_matrix(*size, facts.size, facts.fit))
    own = [sizes[row] for row in rows.tolist()]
    matrices = np.array([known[size] for size in own]).reshape(-1, 2, 3)
    return matrices, np.array(own, np.float64).reshape(-1, 2)


def compute_fingerprints(index: Index, joined: ImageRecords) -> fingerprint_table.Fingerprints:
    """Fingerprints of all images. Patients are in the table, and are hashed when compared."""
    prints = np.frombuffer(bytes.fromhex("".join(joined["print"])), "<u8").reshape(len(index), -1, 4)
    pixels = np.array(joined["pixels"], np.uint64)
    return fingerprint_table.Fingerprints(prints.astype(np.uint64), pixels, np.zeros(len(pixels), np.uint64))


def moments(joined: ImageRecords, facts: dataset_facts.Facts) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, scaled to 0 … 1, from exact sums."""
    count, top = len(joined["sum"]) * facts.size**2, 2**facts.depth - 1
    mean = sum(joined["sum"]) / count
    variance = sum(joined["squares"]) / count - mean**2
    return round(mean / top, 6), round(max(variance, 0.0) ** 0.5 / top, 6)


def final_facts(
    facts: dataset_facts.Facts, joined: ImageRecords, rejected: int, prints: fingerprint_table.Fingerprints
) -> dataset_facts.Facts:
    """The content of dataset.json once all is done."""
    mean, std = moments(joined, facts)
    return replace(
        facts,
        images=len(joined["rows"]),
        rejected=rejected,
        mean=mean,
        std=std,
        contents=fingerprint.contents_hash(prints.pixels),
        notes=note_kinds(joined["notes"]),
    )


def enlarged(table: pd.DataFrame, facts: dataset_facts.Facts) -> str:
    """Number of images smaller than the stored size, and a --size that avoids enlarging them; "" if none is known."""
    if not {"width", "height"} <= set(table) or not len(table):
        return ""
    sides = table[["width", "height"]].to_numpy()
    own = sides.max(axis=1) if facts.fit == "pad" else sides.min(axis=1)
    count = int((own < facts.size).sum())
    if not count:
        return ""
    share = f"{count / len(own):.0%}" if count / len(own) >= 0.01 else "under 1%"
    verb = "is" if count == 1 else "are"
    said = (
        f"{count:,} of {count_phrase(len(own), 'image')} ({share}) {verb} smaller than {facts.size} px and {verb} "
        "enlarged to that size"
    )
    better = max(LEAST_SIZE, int(np.percentile(own, 100 * FEW, method="lower")))
    if better >= facts.size:
        return said + "."
    left = int((own < better).sum())
    return f"{said}; an import with --size {better} enlarges {f'{left:,}' if left else 'none'}."


def note_kinds(notes: Sequence[Sequence[str]]) -> dict[str, int]:
    """Number of notes of each kind; notes that differ only in numbers are of one kind: 'window …/…'."""
    texts: dict[str, set[str]] = {}
    for note in {note for of_image in notes for note in of_image}:
        texts.setdefault(_without_numbers(note), set()).add(note)
    names = {note: kind if len(same) > 1 else note for kind, same in texts.items() for note in same}
    return dict(sorted(Counter(names[note] for of_image in notes for note in of_image).items()))


def _without_numbers(note: str) -> str:
    return re.sub(r"(?<![\w.])-?\d+(\.\d+)?", "…", note)
