"""Radiology reports: their sections and language, as a table beside the index.

One row per report: `rows`, the images in the index that it describes, the sections as text ("" if missing), and the
language. The text is patient data: it is never part of a message, a log or a bundle.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ribcage.runtime import parquet

REPORTS_FILE = "reports.parquet"
"""Name of the table beside index.parquet."""
SECTIONS = ("indication", "comparison", "technique", "findings", "impression", "other")
"""Sections of a report; `other` is all text that belongs to none of the others."""
LANGUAGE = "language"
"""Column with the language as an ISO 639-1 code, "" if unknown."""
COLUMNS = ("rows", *SECTIONS, LANGUAGE)
LONGEST_SECTION = 1 << 20
"""Limit on the characters of a section."""


@dataclass(frozen=True, repr=False)
class Report:
    """A radiology report. Its repr shows which sections it has, not their text."""

    indication: str = ""
    comparison: str = ""
    technique: str = ""
    findings: str = ""
    impression: str = ""
    other: str = ""
    language: str = ""

    def __repr__(self) -> str:
        lengths = [f"{name}: {len(text)} characters" for name in SECTIONS if (text := getattr(self, name))]
        return f"Report({', '.join([self.language or 'language unknown', *lengths])})"

    @property
    def text(self) -> str:
        """All sections with their headings, as one text."""
        return "\n\n".join(f"{name.upper()}: {text}" for name in SECTIONS if (text := getattr(self, name)))


def no_reports() -> pd.DataFrame:
    """An empty table of reports."""
    return pd.DataFrame({name: pd.Series(dtype="object" if name == "rows" else "str") for name in COLUMNS})


def reports_of_images(keys: pd.Series, sections: pd.DataFrame, language: str = "") -> pd.DataFrame:
    """The table of reports in the form of Index.reports.

    `keys` has the key of the report of each image, in the order of the index; `sections` has some of the SECTIONS as
    columns and is indexed by these keys. Reports without text or without images are left out.
    """
    texts = pd.DataFrame({name: sections.get(name, pd.Series("", sections.index)) for name in SECTIONS}, dtype="str")
    texts = texts.fillna("")[~sections.index.duplicated()]
    texts = texts[(texts != "").any(axis=1)]
    codes = texts.index.get_indexer(pd.Index(keys))
    known = np.flatnonzero(codes >= 0)
    ordered = known[np.argsort(codes[known], kind="stable")]
    found, starts = np.unique(codes[ordered], return_index=True)
    rows = [tuple(each.tolist()) for each in np.split(ordered, starts[1:])] if len(found) else []
    texts = texts.iloc[found].assign(rows=pd.Series(rows, texts.index[found], dtype="object"), language=language)
    return _in_order(texts)


def taken_reports(reports: pd.DataFrame, place: np.ndarray) -> pd.DataFrame:
    """The reports of some images; `place` is the new row of each old row, -1 for images that are left out."""
    if not len(reports):
        return reports
    moved = [tuple(sorted(row for row in place[list(rows)].tolist() if row >= 0)) for rows in reports["rows"]]
    return _in_order(reports.assign(rows=pd.Series(moved, reports.index, dtype="object"))[[*map(bool, moved)]])


def report_problems(reports: pd.DataFrame, count: int) -> list[str]:
    """What is wrong with the reports of `count` images; without their text."""
    if not len(reports):
        return []
    if tuple(reports) != COLUMNS:
        return [f"the reports must have the columns {', '.join(COLUMNS)}, in this order"]
    problems = []
    first = [rows[0] if rows else -1 for rows in reports["rows"]]
    rows = np.array([row for each in reports["rows"] for row in each], np.int64)
    if min(first) < 0 or rows.min() < 0 or rows.max() >= count or first != sorted(first):
        problems.append("the reports refer to rows that are not in the table, or are not in the order of its rows")
    if len(np.unique(rows)) < len(rows):
        problems.append("an image has several reports")
    if not reports[LANGUAGE].isin(["", *reports[LANGUAGE][reports[LANGUAGE].str.fullmatch("[a-z]{2}")]]).all():
        problems.append("the language of a report must be a code of two letters such as en, or empty")
    if max(int(reports[name].str.len().max()) for name in SECTIONS) > LONGEST_SECTION:
        problems.append(f"a section of a report has more than {LONGEST_SECTION:,} characters")
    return problems


def report_numbers(reports: pd.DataFrame, count: int) -> np.ndarray:
    """(count,) int64: the position of each image's report in the table, -1 if it has none."""
    numbers = np.full(count, -1, np.int64)
    for number, rows in enumerate(reports["rows"]):
        numbers[list(rows)] = number
    return numbers


@dataclass(frozen=True)
class RowReports:
    """The reports of a dataset by the rows of its images; the arrays and texts may be memory-mapped."""

    texts: pd.DataFrame
    """The sections and the language of each report."""
    numbers: np.ndarray
    """(N,) int64: the position of each image's report in `texts`, -1 if it has none."""

    def of_row(self, row: int) -> Report | None:
        """The report on an image; None if there is none."""
        number = int(self.numbers[row])
        return (
            Report(**{one.name: self.texts[one.name].iloc[number] for one in fields(Report)}) if number >= 0 else None
        )


def save_reports(reports: pd.DataFrame, part: Path) -> None:
    """Write a Parquet file; the same reports always give the same bytes."""
    columns = [pa.array([list(rows) for rows in reports["rows"]], pa.list_(pa.int64()))]
    columns += [pa.array(reports[name].to_numpy(object), pa.string()) for name in COLUMNS[1:]]
    table = pa.Table.from_arrays(columns, list(COLUMNS)).replace_schema_metadata({"ribcage.reports": "1"})
    pq.write_table(table, part, compression="zstd")


def load_reports(file: Path, count: int) -> pd.DataFrame:
    """Read what `save_reports` wrote for `count` images; ValueError if it is something else."""
    columns = parquet.read_own_table(file)
    kinds = {one.name: one.type for one in columns.schema}
    rows, texts = kinds.get("rows", pa.null()), [kinds.get(name, pa.null()) for name in COLUMNS[1:]]
    if not (
        tuple(kinds) == COLUMNS
        and (pa.types.is_list(rows) and pa.types.is_integer(rows.value_type))
        and all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in texts)
        and not any(columns[name].null_count for name in COLUMNS)
        and not columns["rows"].combine_chunks().flatten().null_count
    ):
        raise ValueError(f"{file} is a Parquet file, but not a table of reports written by Ribcage.")
    found = parquet.frame(columns.drop_columns("rows"))
    lists = [tuple(each) for each in columns["rows"].to_pylist()]
    found.insert(0, "rows", pd.Series(lists, found.index, dtype="object"))
    if wrong := report_problems(found, count):
        raise ValueError(f"{file} does not belong to this dataset: {'; '.join(wrong)}.")
    return found


def _in_order(reports: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns and reports in order; the empty table if there are none."""
    if not len(reports):
        return no_reports()
    order = np.argsort([rows[0] for rows in reports["rows"]], kind="stable")
    types = dict.fromkeys(COLUMNS[1:], "str")
    return reports.iloc[order][list(COLUMNS)].astype(types).reset_index(drop=True)
