"""Masks: the outlines of structures and findings that were drawn on the images, as a table of its own.

One row per mask: `row` in the index, the name of the `structure`, the `reader` who drew it ("" if unknown), and the
mask in pixels of the image on which it was drawn (`imaging.mask`). A mask without pixels means that the structure is
not in the image; an image without a row for a structure was not annotated for it. Several masks of one structure by the
same reader are instances of it. In a dataset folder, x, y, width and height are the place of the mask's rectangle in
pixels of the stored image, so that a mask moves with the image as a box does, at the resolution at which it was drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ribcage.data.annotation_tables import row_problems
from ribcage.imaging.mask import Mask, mask_problems
from ribcage.runtime import parquet, terminal

MASKS_FILE = "masks.parquet"
"""Name of the table beside index.parquet."""
MAX_BYTES = 1 << 35
"""Limit on the bytes of all masks of a dataset."""
SIZES = ("source_width", "source_height", "left", "top", "columns", "lines")
PLACE = ("x", "y", "width", "height")
NAMES = ("structure", "reader")
FILE = ("file", "value")
"""Columns of masks that are still in files: the path below Index.root, and the gray level of the structure (0: all
that is bright)."""
_BLOCK = 1 << 13
"""Masks whose run lengths are in memory as Python objects at a time."""
TYPES = {
    "row": "int64",
    **dict.fromkeys(NAMES, "str"),
    **dict.fromkeys(SIZES, "int32"),
    **dict.fromkeys(PLACE, "float64"),
    "runs": "object",
}


@dataclass(frozen=True)
class MaskFile:
    """A mask in an image file, which is read at import."""

    path: str
    """Relative to Index.root."""
    value: int = 0
    """Gray level of the structure; 0: all that is bright."""


@dataclass(frozen=True)
class DrawnMask:
    """A mask of a structure in an image."""

    row: int
    structure: str
    mask: Mask | MaskFile
    reader: str = ""


def no_masks() -> pd.DataFrame:
    """An empty table of masks."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TYPES.items()})


def mask_frame(drawn: Iterable[DrawnMask]) -> pd.DataFrame:
    """A table in the form of Index.masks, in the order of the images."""
    rows = [
        (
            one.row,
            one.structure,
            one.reader,
            *mask_sizes(one.mask),
            0.0,
            0.0,
            0.0,
            0.0,
            _runs(one.mask),
            *_file(one.mask),
        )
        for one in drawn
    ]
    if not rows:
        return no_masks()
    found = pd.DataFrame(rows, columns=[*TYPES, *FILE]).astype({**TYPES, "file": "str", "value": "int32"})
    found = found.sort_values("row", kind="stable", ignore_index=True)
    return found if (found["file"] != "").any() else found.drop(columns=list(FILE))


def joined_masks(*parts: pd.DataFrame) -> pd.DataFrame:
    """Several tables of masks of the same images as one."""
    parts = tuple(part for part in parts if len(part))
    if any("file" in part for part in parts):
        parts = tuple(part if "file" in part else part.assign(file="", value=np.int32(0)) for part in parts)
    found = pd.concat(parts, ignore_index=True) if parts else no_masks()
    return found.sort_values("row", kind="stable", ignore_index=True)


def masks_in_files(masks: pd.DataFrame) -> np.ndarray:
    """Positions in the table of the masks that are still in files."""
    return np.flatnonzero(masks["file"] != "") if "file" in masks else np.empty(0, np.int64)


def with_read_masks(masks: pd.DataFrame, read: Sequence[tuple[int, Mask]]) -> pd.DataFrame:
    """The table with masks that were read from files, each with its position in the table, and without the others."""
    if "file" not in masks:
        return masks
    found = masks.drop(columns=list(FILE))
    at = [place for place, _ in read]
    found.loc[at, list(SIZES)] = np.array([mask_sizes(mask) for _, mask in read], np.int32).reshape(-1, len(SIZES))
    runs = found["runs"].to_numpy(object, copy=True)
    for place, mask in read:
        runs[place] = mask.runs
    found["runs"] = runs
    lost = np.setdiff1d(masks_in_files(masks), at)
    return found.drop(index=lost).reset_index(drop=True)


def placed_masks(masks: pd.DataFrame, matrices: np.ndarray, sizes: np.ndarray) -> pd.DataFrame:
    """The table with the places of the masks in the stored images.

    matrices: (M, 2, 3) from the image of each mask to its stored image, without rotation.
    sizes: (M, 2) width and height of these images.
    """
    scale = sizes / masks[["source_width", "source_height"]].to_numpy(np.float64)
    corner = masks[["left", "top"]].to_numpy(np.float64) * scale
    side = masks[["columns", "lines"]].to_numpy(np.float64) * scale
    factor = matrices[:, [0, 1], [0, 1]]
    placed = np.concatenate([corner * factor + matrices[:, :, 2], side * factor], axis=1)
    return masks.assign(**dict(zip(PLACE, placed.T, strict=True)))


def mask_of(masks: pd.DataFrame, place: int) -> Mask:
    """The mask at this position of the table."""
    one = masks.iloc[place]
    return Mask.of_sizes([one[name] for name in SIZES], one["runs"])


def stored_masks_of(masks: pd.DataFrame, row: int, size: int) -> dict[str, np.ndarray]:
    """Structure → (S, S) uint8 mask of an image in a dataset folder, from all of its masks that have pixels."""
    from ribcage.imaging.augment import warp_mask  # imports torch, which an import does not need

    first, end = (int(np.searchsorted(masks["row"].to_numpy(), row, side=side)) for side in ("left", "right"))
    found: dict[str, np.ndarray] = {}
    for at in range(first, end):
        if len(masks["runs"].iloc[at]):
            place = masks[list(PLACE)].iloc[at].to_numpy(np.float64)
            mask = warp_mask(mask_of(masks, at).pixels(), place, np.eye(2, 3), (size, size))
            name = str(masks["structure"].iloc[at])
            found[name] = np.maximum(found[name], mask) if name in found else mask
    return found


def mask_table_problems(masks: pd.DataFrame, count: int) -> list[str]:
    """What is wrong with the table of the masks of `count` images; their run lengths are not checked."""
    if not len(masks):
        return []
    if list(masks) not in ([*TYPES], [*TYPES, *FILE]):
        return [f"the masks must have the columns {', '.join(TYPES)}, in this order"]
    rows, place = masks["row"].to_numpy(), masks[list(PLACE)].to_numpy()
    problems = row_problems("masks", rows, count)
    if not (np.abs(place) < 1e6).all() or (place[:, 2:] < 0).any():
        problems.append("the position of a mask is not within the stored images")
    if "" in (names := masks["structure"].unique()) or not all(
        name == "" or terminal.is_name(name) for name in (*names, *masks["reader"].unique())
    ):
        problems.append(f"the name of a structure must be one line of 1 to {terminal.LONGEST_NAME} visible characters")
    return problems


def save_masks(masks: pd.DataFrame, part: Path) -> None:
    """Write a Parquet file; the same masks always give the same bytes."""
    schema = [pa.field(name, _arrow(name)) for name in masks]
    columns = [pa.array(masks[field.name].to_numpy(), field.type) for field in schema]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=pa.schema(schema, {"ribcage.masks": "1"})), part, compression="zstd",
        row_group_size=1 << 16,
    )  # fmt: skip


def load_masks(file: Path, count: int) -> pd.DataFrame:
    """Read the masks of `count` images; ValueError if `save_masks` did not write them for such a dataset."""
    columns = parquet.read_own_table(file, max_bytes=MAX_BYTES)
    kinds = {one.name: one.type for one in columns.schema}
    if kinds.get("runs") == pa.binary():
        kinds["runs"] = _arrow("runs")
        columns = columns.cast(pa.schema(list(kinds.items())))
    if {name: _arrow(name) for name in kinds} != kinds or [*kinds][: len(TYPES)] != [*TYPES] or _has_gaps(columns):
        raise ValueError(f"{file} is a Parquet file, but not a table of masks written by Ribcage.")
    found = parquet.frame(columns)
    if wrong := _run_problems(found) + mask_table_problems(found, count):
        raise ValueError(f"{file} does not belong to this dataset: {'; '.join(wrong)}.")
    return found


def _run_problems(masks: pd.DataFrame) -> list[str]:
    """What is wrong with the sizes and run lengths of the first wrong masks; some masks at a time, to limit memory."""
    sizes = masks[list(SIZES)].to_numpy()
    for start in range(0, len(masks), _BLOCK):
        part = slice(start, start + _BLOCK)
        if wrong := mask_problems(sizes[part], masks["runs"].iloc[part].tolist()):
            return wrong
    return []


def _has_gaps(columns: pa.Table) -> bool:
    return any(column.null_count for column in columns.columns)


def _arrow(name: str) -> pa.DataType:
    """Type of a column in the file."""
    if name in ("structure", "reader", "file"):
        return pa.string()
    if name == "runs":
        return pa.large_binary()
    return {"int64": pa.int64(), "float64": pa.float64()}.get(TYPES.get(name, ""), pa.int32())


def mask_sizes(mask: Mask | MaskFile) -> tuple[int, ...]:
    """The columns SIZES of a mask; 0 while it is in a file."""
    if isinstance(mask, MaskFile):
        return (0,) * len(SIZES)
    return mask.width, mask.height, mask.left, mask.top, mask.columns, mask.lines


def _runs(mask: Mask | MaskFile) -> bytes:
    return b"" if isinstance(mask, MaskFile) else mask.runs


def _file(mask: Mask | MaskFile) -> tuple[str, int]:
    return (mask.path, mask.value) if isinstance(mask, MaskFile) else ("", 0)
