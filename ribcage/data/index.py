"""Index: one row per image – its file, patient and labels –, its boxes, masks and points, the labels of its readers,
and its report.

Label columns hold 1 (present), 0 (absent), -1 (uncertain) and NaN (unknown) exactly as in the source; how an uncertain
label is used for training is decided when a batch is made (`label_policy.Policy`). If several readers labelled the
images, the label columns hold their majority, and `readings` the labels of each reader.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ribcage.data.annotation_tables import taken_annotations
from ribcage.data.masks import MASKS_FILE, load_masks, mask_table_problems, no_masks, save_masks
from ribcage.data.patient_codes import PatientCodes
from ribcage.data.points import POINTS_FILE, load_points, no_points, point_problems, save_points
from ribcage.data.radiology_reports import (
    REPORTS_FILE,
    load_reports,
    no_reports,
    report_problems,
    save_reports,
    taken_reports,
)
from ribcage.data.readings import (
    READINGS_FILE,
    load_readings,
    no_readings,
    reading_problems,
    save_readings,
    taken_readings,
)
from ribcage.runtime import parquet, terminal

# Columns of every table, whatever its source. Unknown text is "", unknown age is NaN (years).
TEXT_COLUMNS = ("path", "patient", "study", "view", "split", "sex")
COLUMNS = (*TEXT_COLUMNS, "age")
CATEGORIES = ("split", "view")
"""Text columns with few different values, in which rows are looked up."""
# Column names of dataset folders, predictions and reports, which a finding cannot have; neither can it start with
# split_.
RESERVED = (*COLUMNS, "width", "height", "notes", "row", "set", "name", "group", "pixels", "hospital", "boxes")
SPLITS = ("train", "val", "test", "")
"""The usual splits; others have custom names, such as one reserved for later."""
OWN_SPLIT = re.compile(r"(?!all$)\w[\w .+-]{0,39}")
"""Pattern of a custom split name; `all` means the whole dataset."""
VIEWS = ("PA", "AP", "LATERAL", "")
SEXES = ("F", "M", "")
SIDES = ("x", "y", "width", "height")
"""Columns of a box, in pixels of the stored image."""
BOX_COLUMNS = ("row", "finding", *SIDES)
BOX_TEXTS = ("reader", "phrase")
"""Columns that a table of boxes may have, if they are known for any box."""
MAX_CELLS = 1_000_000_000
"""Limit on rows × columns of an index that is read into memory."""
UNKNOWN = -128
"""Code of an unknown label in `Index.label_codes`."""


def no_boxes() -> pd.DataFrame:
    """An empty table of boxes."""
    numbers = {name: pd.Series(dtype="float32") for name in SIDES}
    return pd.DataFrame({"row": pd.Series(dtype="int64"), "finding": pd.Series(dtype="str"), **numbers})


@dataclass(frozen=True)
class Index:
    """The table of a dataset's images. `table` is indexed 0 … N-1; columns other than COLUMNS and the findings are
    preserved (`split_*` columns are other published splits of the same images)."""

    name: str
    table: pd.DataFrame
    findings: tuple[str, ...] = ()
    boxes: pd.DataFrame = field(default_factory=no_boxes)
    """One row per box: `row` in the table, `finding`, and x, y (top left), width, height in pixels of `box_frame`; and
    the columns of BOX_TEXTS that are known for any box: `reader`, who drew it, and `phrase`, the words of the report
    about it ("" if unknown)."""
    box_frame: tuple[int, int] | None = None
    """(width, height) of the image the boxes were drawn on; None: the file's own pixels."""
    root: Path = Path()
    """Base folder of `path`."""
    readings: pd.DataFrame = field(default_factory=no_readings)
    """One row per image and reader: `row`, `reader`, and the reader's labels; empty if readers are unknown."""
    reports: pd.DataFrame = field(default_factory=no_reports, repr=False)
    """One row per report: the `rows` of its images, its sections and its language; empty if there are no reports."""

    masks: pd.DataFrame = field(default_factory=no_masks, repr=False)
    """One row per mask of a structure or finding, in the form of `mask_frame`; empty if there are no masks."""
    points: pd.DataFrame = field(default_factory=no_points, repr=False)
    """One row per point of a structure or finding, in pixels of `box_frame`; empty if there are no points."""

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise ValueError(f"The index of {self.name!r} is not valid: " + "; ".join(problems))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """(N, F) float32: 1, 0, -1 and NaN, in the order of `findings`."""
        return self.table[list(self.findings)].to_numpy(np.float32)

    @cached_property
    def label_codes(self) -> np.ndarray:
        """(N, F) int8: `labels`, with UNKNOWN instead of NaN."""
        codes = np.empty((len(self), len(self.findings)), np.int8)
        for place, name in enumerate(self.findings):  # one column at a time: no second copy of all labels
            codes[:, place] = np.nan_to_num(self.table[name].to_numpy(np.float32), nan=UNKNOWN)
        return codes

    @cached_property
    def categories(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each of the columns CATEGORIES, (N,) the number of the text in each row, and the texts."""
        return {name: _numbered(self.table[name]) for name in CATEGORIES}

    @cached_property
    def patient_codes(self) -> PatientCodes:
        """The patients as integers."""
        return PatientCodes.of(self.table["patient"])

    @cached_property
    def has_repeated_paths(self) -> bool:
        """Whether two images have the same path."""
        return bool(pc.count_distinct(pa.array(self.table["path"])).as_py() < len(self))

    def file(self, row: int) -> Path:
        """Path of the image in this row."""
        return self.root / self.table["path"].iloc[row]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Index":
        """These rows only, in this order, with their boxes, masks, points, readings and reports."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        place = np.full(len(self), -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        return replace(
            self,
            table=self.table.iloc[chosen].reset_index(drop=True),
            boxes=taken_annotations(self.boxes, place),
            readings=taken_readings(self.readings, place),
            reports=taken_reports(self.reports, place),
            masks=taken_annotations(self.masks, place),
            points=taken_annotations(self.points, place),
        )

    def save(self, part: Path) -> None:
        """Write table and boxes as one Parquet file, without the tables that are written `beside` it; the same index
        always gives the same bytes."""
        columns = pa.Table.from_pandas(self.table, preserve_index=False).replace_schema_metadata(
            {
                "ribcage.name": self.name,
                "ribcage.findings": "\n".join(self.findings),
                "ribcage.box_frame": " ".join(map(str, self.box_frame or ())),
                "ribcage.root": str(self.root),
            }
        )
        pq.write_table(columns.append_column("boxes", _box_lists(self.boxes, len(self))), part, compression="zstd")

    @property
    def beside(self) -> dict[str, Callable[[Path], None]]:
        """File name → function that writes it, for each table beside index.parquet that is not empty."""
        writers: dict[str, tuple[pd.DataFrame, Callable[[pd.DataFrame, Path], None]]] = {
            READINGS_FILE: (self.readings, save_readings),
            REPORTS_FILE: (self.reports, save_reports),
            MASKS_FILE: (self.masks, save_masks),
            POINTS_FILE: (self.points, save_points),
        }
        return {name: partial(save, table) for name, (table, save) in writers.items() if len(table)}

    @classmethod
    def load(cls, file: Path, beside: Collection[str] = ()) -> "Index":
        """Read what `save` wrote, with these tables beside it."""
        columns = parquet.read_own_table(file, max_cells=MAX_CELLS)
        try:
            found = cls._of(columns)
        except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, pa.ArrowException) as error:
            said = " ".join(str(error).split())[:300].rstrip(".")
            raise ValueError(f"{file} is a Parquet file, but not an index written by Ribcage: {said}.") from None
        readings, reports = file.with_name(READINGS_FILE), file.with_name(REPORTS_FILE)
        if READINGS_FILE in beside:
            found = replace(found, readings=load_readings(readings, found.boxes, len(found), found.findings))
        if REPORTS_FILE in beside:
            found = replace(found, reports=load_reports(reports, len(found)))
        if MASKS_FILE in beside:
            found = replace(found, masks=load_masks(file.with_name(MASKS_FILE), len(found)))
        if POINTS_FILE in beside:
            found = replace(found, points=load_points(file.with_name(POINTS_FILE), len(found)))
        return found

    @classmethod
    def _of(cls, columns: pa.Table) -> "Index":
        """The index in an Arrow table."""
        if "boxes" not in columns.column_names:
            raise ValueError("the column boxes is missing")
        if strange := strange_columns(columns):
            raise ValueError(f"the column {strange[0]!r} has an unexpected type")
        about = IndexMetadata.of(columns)
        return cls(
            about.name,
            parquet.frame(columns.drop_columns("boxes")),
            about.findings,
            box_table(columns["boxes"]),
            about.box_frame,
            about.root,
        )

    @classmethod
    def unchecked(cls, about: "IndexMetadata", table: pd.DataFrame, boxes: pd.DataFrame) -> "Index":
        """An index of tables that were checked before."""
        index = object.__new__(cls)
        for one in fields(cls):  # the tables beside them are empty
            if one.default_factory is not MISSING:
                vars(index)[one.name] = one.default_factory()
        vars(index).update(vars(about), table=table, boxes=boxes)
        return index


def _numbered(texts: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    codes, names = pd.factorize(texts)
    return codes.astype(np.min_scalar_type(len(names))), np.array(names, object)


@dataclass(frozen=True)
class IndexMetadata:
    """What `Index.save` writes beside the columns."""

    name: str
    findings: tuple[str, ...]
    box_frame: tuple[int, int] | None
    root: Path

    @classmethod
    def of(cls, columns: pa.Table) -> "IndexMetadata":
        """From the metadata of an Arrow table."""
        meta = {key.decode(): value.decode() for key, value in (columns.schema.metadata or {}).items()}
        if "ribcage.name" not in meta:
            raise ValueError("the metadata entry ribcage.name is missing")
        frame = tuple(int(side) for side in meta["ribcage.box_frame"].split())
        findings = tuple(meta["ribcage.findings"].split("\n")) if meta["ribcage.findings"] else ()
        return cls(meta["ribcage.name"], findings, (frame[0], frame[1]) if frame else None, Path(meta["ribcage.root"]))


def strange_columns(columns: pa.Table) -> list[str]:
    """Columns that are not of the types that `save` writes: texts, ages, boxes, and scalars in all others."""

    def fits(name: str, kind: pa.DataType) -> bool:
        if name in TEXT_COLUMNS:
            return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
        if name in ("hospital", "notes") or name.startswith("split_"):
            return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))
        if name in ("width", "height"):
            return bool(pa.types.is_integer(kind))
        if name == "age":
            return bool(pa.types.is_floating(kind))
        return bool(pa.types.is_list(kind) if name == "boxes" else not pa.types.is_nested(kind))

    counts = Counter(columns.column_names)
    twice = [name for name, count in counts.items() if count > 1]
    empty = [name for name in TEXT_COLUMNS if counts[name] == 1 and columns[name].null_count]
    return twice + empty + [one.name for one in columns.schema if not fits(one.name, one.type)]


def index_table(rows: pd.DataFrame, findings: Sequence[str] = ()) -> pd.DataFrame:
    """A table in the form of Index.table: missing columns added, types set, columns in order."""
    columns: dict[str, pd.Series] = {}
    for name in TEXT_COLUMNS:
        columns[name] = rows[name].fillna("").astype("str") if name in rows else pd.Series("", rows.index, dtype="str")
    columns["age"] = rows["age"].astype("float32") if "age" in rows else pd.Series(np.nan, rows.index, dtype="float32")
    columns |= {name: rows[name].astype("float32") for name in findings}
    columns |= {str(name): rows[name] for name in rows if name not in columns}
    return pd.DataFrame(columns).reset_index(drop=True)


def box_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """A box table in the form of Index.boxes: typed, in the order of its images."""
    types = {"row": "int64", "finding": "str", **dict.fromkeys(SIDES, "float32")}
    types |= dict.fromkeys(_box_texts(rows), "str")
    return rows[list(types)].astype(types).sort_values("row", kind="stable").reset_index(drop=True)


def _box_texts(boxes: pd.DataFrame) -> list[str]:
    return [name for name in BOX_TEXTS if name in boxes and (boxes[name] != "").any()]


def reserved(names: Iterable[str]) -> list[str]:
    """Names that a finding cannot have."""
    return [name for name in names if name.casefold() in RESERVED or name.casefold().startswith("split_")]


def _problems(index: Index) -> list[str]:
    rows = index.table
    missing = [name for name in (*COLUMNS, *index.findings) if name not in rows]
    clashes = [
        f"a finding cannot be named {name!r}, which is a reserved column name" for name in reserved(index.findings)
    ]
    clashes += [f"{name} occurs twice" for name, count in Counter(index.findings).items() if count > 1]
    if len(index.name) > terminal.LONGEST_NAME or not terminal.is_plain(index.name):
        clashes.append(f"a name must be one line of at most {terminal.LONGEST_NAME} visible characters")
    clashes += [
        f"a finding cannot be named {name[:40]!r}: a name must be one line of 1 to {terminal.LONGEST_NAME} visible "
        f"characters"
        for name in index.findings
        if not terminal.is_name(name)
    ]
    if missing or clashes:
        return [f"no column {name}" for name in missing] + clashes
    problems = ["an age is infinite"] if np.isinf(rows["age"].to_numpy(np.float64)).any() else []
    problems += [
        f"a split cannot be named {split[:40]!r}: use up to 40 letters, digits, spaces and .+-, not 'all'"
        for split in sorted(set(rows["split"].unique()) - set(SPLITS))
        if not OWN_SPLIT.fullmatch(split)
    ]
    for name, allowed in (("view", VIEWS), ("sex", SEXES)):
        strange = sorted(set(rows[name].unique()) - set(allowed))
        if strange:
            problems.append(f"{name} {strange[0]!r} must be one of {', '.join(repr(value) for value in allowed)}")
    for name in index.findings:
        strange = sorted(set(rows[name].dropna().unique()) - {1.0, 0.0, -1.0})
        if strange:
            problems.append(f"{name} contains {strange[0]:g}; labels must be 1, 0, -1 or empty")
    if len(index.boxes) and not index.boxes["row"].between(0, len(rows) - 1).all():
        problems.append("a box refers to a row that is not in the table")
    problems += reading_problems(index.readings, index.boxes, len(rows), index.findings)
    problems += report_problems(index.reports, len(rows))
    return problems + mask_table_problems(index.masks, len(rows)) + point_problems(index.points, len(rows))


def _box_lists(boxes: pd.DataFrame, count: int) -> pa.ChunkedArray:
    """Boxes as one list per image: [{finding, x, y, width, height}, …], and their BOX_TEXTS, if any are known."""
    rows = boxes["row"].to_numpy()
    offsets = np.searchsorted(rows, np.arange(count + 1)).astype(np.int32)
    kinds = {name: pa.string() if name == "finding" else pa.float32() for name in BOX_COLUMNS[1:]}
    kinds |= dict.fromkeys(_box_texts(boxes), pa.string())
    values = pa.StructArray.from_arrays(
        [pa.array(boxes[name].to_numpy(), kind) for name, kind in kinds.items()], list(kinds)
    )
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), values)])


def box_table(lists: pa.ChunkedArray) -> pd.DataFrame:
    """The boxes that `Index.save` wrote as one list per image."""
    if pc.sum(pc.list_value_length(lists)).as_py() in (None, 0):
        return no_boxes()
    values = pa.Table.from_struct_array(pc.list_flatten(lists)).to_pandas()
    parents = pc.list_parent_indices(lists.combine_chunks()).to_numpy()
    values.insert(0, "row", parents.astype(np.int64))
    for name in BOX_TEXTS:
        if name in values and not all(isinstance(text, str) for text in values[name].unique()):
            raise ValueError(f"the {name} of a box is not text")
    return values
