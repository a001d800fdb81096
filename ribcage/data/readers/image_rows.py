"""Rows of a user's CSV: one row per image with its columns by role, its labels, file, readers and report."""

import logging
import os
import posixpath
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ribcage.data.index import reserved
from ribcage.data.radiology_reports import no_reports
from ribcage.data.readers import box_list, coded_columns, columns, reader_rows, report_columns, tables
from ribcage.data.readers.image_folders import report_other_folders
from ribcage.data.readers.table_text import printable_text
from ribcage.data.readings import no_readings
from ribcage.runtime.spelling import count_phrase

log = logging.getLogger("ribcage")


@dataclass(frozen=True)
class Given:
    """Columns and treatments that the user gave; empty where they are to be recognised."""

    roles: dict[str, str] = field(default_factory=dict)
    """Role → column."""
    labels: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    reader: str = ""
    language: str = ""
    conflicts: str = "stop"


@dataclass(frozen=True)
class ImageRows:
    """One row per image."""

    table: pd.DataFrame
    labels: pd.DataFrame
    readings: pd.DataFrame = field(default_factory=no_readings)
    """`row`, `reader` and the reader's labels."""
    reports: pd.DataFrame = field(default_factory=no_reports, repr=False)


def csv_rows(rows: pd.DataFrame, root: Path, given: Given) -> ImageRows:
    """The rows of a CSV by role, with their labels, readings and reports; other columns are preserved."""
    header = list(rows.columns)
    role = columns.roles(header, given.roles)
    if "path" not in role:
        raise ValueError(
            f"The column with the image files was not recognised. Specify it with --path-column. "
            f"{columns.among(header)}"
        )
    rows = _with_image(rows, role["path"]).drop_duplicates()
    texts = report_columns.report_columns(rows, [*role.values(), *given.labels], given.reports)
    taken = [*role.values(), *texts]
    chosen = columns.label_columns(header, taken, given.labels)
    found = columns.labels(rows, chosen)
    if not chosen:
        log.warning(
            "There are no labels, because no column is named after a finding. To choose columns, pass "
            "--label-columns. %s",
            columns.among(header),
        )
    text = {name: rows[column].str.strip() for name, column in role.items()}
    text["path"] = _located(text["path"], root)
    meaning = {
        "patient": columns.whole_numbers,
        "view": columns.views,
        "sex": coded_columns.sexes,
        "split": lambda column: columns.splits(column, role["split"]),
        "age": coded_columns.years,
    }
    frame = pd.DataFrame({name: meaning.get(name, lambda column: column)(column) for name, column in text.items()})
    reader = reader_rows.reader_column(rows, frame["path"], [*taken, *chosen], given.reader)
    others = [name for name in header if name and name not in (*taken, *chosen, reader)]
    readings = no_readings()
    if reader:
        merge = given.conflicts == "merge" or columns.is_one_list(chosen, found)
        found, readings = reader_rows.readings_of_rows(found, frame["path"], rows[reader], merge)
    frame, found = _one_row_each(frame, found, rows[[*others, *texts]], given.conflicts)
    keys = _report_keys(frame)
    reports = report_columns.reports_in_columns(rows.loc[frame.index], keys, texts, given.language)
    readings = reader_rows.placed_readings(readings, frame["path"]) if reader else readings
    frame = frame.join(rows[others].rename(columns=_apart(others, list(found.columns))))
    return ImageRows(frame.reset_index(drop=True), found.reset_index(drop=True), readings, reports)


def _report_keys(frame: pd.DataFrame) -> pd.Series:
    """Equal for images that may share a report: those of a study or, if it is unknown, of a patient."""
    blank = pd.Series("", frame.index, dtype="str")
    patient, study = frame.get("patient", blank), frame.get("study", blank)
    return (patient + "\0" + study).where((patient != "") | (study != ""), frame["path"])


def _one_row_each(
    frame: pd.DataFrame, found: pd.DataFrame, others: pd.DataFrame, conflicts: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per image. Rows that differ only in columns without a role are no conflict: the first one is used."""
    twice = frame["path"].duplicated(keep=False)
    if not twice.any():
        return frame, found
    known = frame.drop(columns="path").join(found.add_prefix("label "))[twice]
    apart = known.groupby(frame["path"][twice]).nunique(dropna=False) > 1  # (images, columns)
    differing = {str(name): int(count) for name, count in apart.sum().items() if count}
    first = ~frame["path"].duplicated()
    if not differing and not box_list.has_boxes(list(others.columns)):
        unlike = (others[twice].groupby(frame["path"][twice]).nunique() > 1).any()
        if unlike.any():  # else only their readers differ
            log.warning(
                "%s several rows that differ only in other columns (%s). The first row is used.",
                count_phrase(len(apart), "image has", "images have"),
                ", ".join(map(repr, unlike.index[unlike][:5])),
            )
        return frame[first], found[first]
    by = apart[apart.any(axis=1)]
    said = ", ".join(f"{count:,} in {name}" for name, count in differing.items()) or "in other columns only"
    stands = (
        f"{count_phrase(len(by) or len(apart), 'image has', 'images have')} several rows that differ ({said}), such as "
    )
    candidate = reader_rows.candidate_column(others, frame["path"])
    stands += ", ".join(printable_text(path) for path in list((by if len(by) else apart).index)[:5])
    labels_only = all(name.startswith("label ") for name in differing)
    if conflicts == "stop" or (conflicts == "merge" and not labels_only):
        ways = "--conflicts drop removes these images, first uses the first row"
        ways += ", merge combines their labels" if labels_only and differing else ""
        boxes = " If the rows are boxes, use --boxes FILE." * box_list.has_boxes(list(others.columns))
        readers = f" If {candidate!r} names the reader of each row, use --reader-column {candidate}." * bool(candidate)
        raise ValueError(f"{stands}. {ways}.{boxes}{readers}")
    log.warning(
        "%s: %s.", stands, {"first": "the first row is used", "drop": "removed", "merge": "labels combined"}[conflicts]
    )
    if conflicts == "drop":
        kept = first & ~frame["path"].isin(by.index)
        return frame[kept], found[kept]
    if conflicts == "merge":
        # Precedence of an image's labels: present, uncertain, absent, unknown.
        order = found.replace({1.0: 3.0, -1.0: 2.0, 0.0: 1.0}).groupby(frame["path"]).transform("max")
        found = order.replace({3.0: 1.0, 2.0: -1.0, 1.0: 0.0}).astype("float32")
    return frame[first], found[first]


def without_slices(rows: pd.DataFrame, view: str) -> pd.DataFrame:
    """The rows of radiographs, by the words of view and modality."""
    slices = columns.are_slices(rows, view)
    if slices.all() and len(rows):
        raise ValueError(
            "According to their view or modality, all rows are CT or MR slices. To use them, pass --slices keep."
        )
    if slices.any():
        log.warning(
            "%s ignored, according to the view or modality. To use such slices, pass --slices keep.",
            count_phrase(int(slices.sum()), "CT or MR slice was", "CT or MR slices were"),
        )
    return rows[~slices]


def _with_image(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows that name an image."""
    named = rows[rows[column].str.strip() != ""]
    if named.empty:
        raise ValueError(
            f"The column {column!r} is blank in every row. Use --path-column to specify the column that contains the "
            "image files."
        )
    if len(named) < len(rows):
        log.warning("Rows without an image were ignored: %s.", f"{len(rows) - len(named):,}")
    return named


def _apart(others: list[str], names: list[str]) -> dict[str, str]:
    """New names for columns of the CSV with the name of a finding or a reserved column ('hospital' is no clash)."""
    taken = {*reserved(others), *names} - {"hospital"}
    return {name: f"csv_{name}" for name in others if name in taken}


def _located(names: pd.Series, root: Path) -> pd.Series:
    """Paths of the files in a CSV: as given; the folder is only searched if some do not exist."""
    base = str(root.absolute()).rstrip("/") + "/"
    plain = [posixpath.normpath(name.replace("\\", "/").replace("\0", "")).removeprefix(base) for name in names]
    # a Path for each of 200,000 rows would take seconds
    there = [os.path.isfile(posixpath.join(base, path)) for path in plain]  # noqa: PTH113
    if all(there):
        return pd.Series(plain, index=names.index, dtype="str")
    paths, other = tables.matched_files(names.tolist(), tables.files_below(root))
    if other:
        log.warning(
            "Files whose extension differs from that in the table were found by the name without extension: %s.",
            f"{other:,}",
        )
    absent = [place for place, is_file in enumerate(there) if not is_file]
    report_other_folders([plain[place] for place in absent], [paths[place] for place in absent], "the table")
    kept = [path if is_file else other for path, is_file, other in zip(plain, there, paths, strict=True)]
    return pd.Series(kept, index=names.index, dtype="str")
