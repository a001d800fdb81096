"""One oddity in a table of any dataset: the same index, another one with a message, or an error that names the file."""

import csv
import gzip
import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets
from ribcage.data.index import Index

Rows = list[list[str]]
NO_TABLE = ("chestxdet", "covidx", "jsrt", "medmnist", "nlm_tb", "phantom")
MADE = tuple(name for name in datasets.dataset_names() if name not in NO_TABLE and trees.builder(name))
ANNOTATIONS = ("boxes", "readings", "reports", "masks", "points")


def tables_of(root: Path) -> list[Path]:
    return [file for file in sorted(root.rglob("*")) if file.name.lower().endswith((".csv", ".csv.gz"))]


def read(file: Path) -> str:
    stored = file.read_bytes()
    return (gzip.decompress(stored) if file.suffix == ".gz" else stored).decode(
        "gb18030" if file.stem == "list" else "utf-8"
    )


def write(file: Path, content: bytes) -> None:
    file.write_bytes(gzip.compress(content, 1, mtime=0) if file.suffix == ".gz" else content)


def text_of(rows: Rows, delimiter: str = ",", ending: str = "\n") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=ending).writerows(rows)
    return stream.getvalue().encode()


def rows_of(text: str) -> Rows:
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def equal(one: Index, other: Index) -> bool:
    if one.findings != other.findings or not one.table.equals(other.table[list(one.table)]):
        return False
    return all(getattr(one, name).equals(getattr(other, name)) for name in ANNOTATIONS)


HARMFUL: dict[str, Callable[[Rows], bytes]] = {
    "separated by semicolons": lambda rows: text_of(rows, ";"),
    "a cell less in the last row": lambda rows: text_of([*rows[:-1], rows[-1][:-1]]),
    "the first row twice": lambda rows: text_of([rows[0], *rows[1:2], *rows[1:]]),
    "UTF-16": lambda rows: text_of(rows).decode().encode("utf-16"),
}


@pytest.mark.parametrize("name", MADE)
def test_an_oddity_of_a_table_is_never_another_index_in_silence(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    root = trees.builder(name)(tmp_path / "病人 数据")
    before = datasets.index(name, root)
    known, found = {record.getMessage() for record in caplog.records}, []

    def attempt(what: str, file: Path) -> None:
        caplog.clear()
        try:
            after = datasets.index(name, root)
        except (ValueError, OSError) as error:
            if "\n" in str(error) or file.name not in str(error):
                found.append(f"{file.name}, {what}: {error}")
        else:
            said = {record.getMessage() for record in caplog.records} - known
            if not said and not equal(before, after):
                found.append(f"{file.name}, {what}: another index without a message")

    own = {file: read(file) for file in tables_of(root) if name == "mimic" or "mimic" not in file.name}
    for file, text in own.items():
        rows, stored = rows_of(text), file.read_bytes()
        cases = {what: change(rows) for what, change in HARMFUL.items()}
        if name != "folder":  # the columns of one's own table are one's own business
            count = 3 if "image_labels" in file.name else 7  # the others are labels, and all alike
            columns = range(min(count, len(rows[0])))
            cases |= {
                f"without {rows[0][place]}": text_of([row[:place] + row[place + 1 :] for row in rows])
                for place in columns
            }
        for what, content in cases.items():
            write(file, content)
            attempt(what, file)
        file.write_bytes(stored)
    for file, text in own.items():  # all harmless ones at once
        first = rows_of(text)[0]
        more = [] if "image_labels" in file.name else ["病人 x", "a, b"]  # there, every column is a finding
        rows = [[*row, *(more[:1] if row == first else more[1:])] for row in rows_of(text)]
        write(file, b"\xef\xbb\xbf" + text_of(rows, ending="\r\n") + b"\r\n\r\n")
    assert equal(before, datasets.index(name, root))
    assert not found


@pytest.mark.parametrize(
    ("name", "table", "column", "cell"),
    [
        ("brax", "master_spreadsheet_update.csv", "Edema", "2.0"),
        ("chexpert", "train.csv", "Edema", "2.0"),
        ("chexpert", "valid.csv", "Age", "68,5"),
        ("chexpert_plus", "df_chexpert_plus_240401.csv", "split", "tast"),
        ("folder", "list.csv", "Mass", "2.0"),
        ("mimic", "mimic-cxr-2.0.0-chexpert.csv.gz", "Edema", "inf"),
        ("mimic", "mimic-cxr-2.0.0-split.csv.gz", "split", "tast"),
        ("ms_cxr", "MS_CXR_Local_Alignment_v1.1.0.csv", "category_name", "Efusion"),
        ("ms_cxr", "MS_CXR_Local_Alignment_v1.1.0.csv", "w", "a"),
        ("nih", "Data_Entry_2017_v2020.csv", "Finding Labels", "Efusion"),
        ("object_cxr", "dev.csv", "annotation", "9 1 2 3 4"),
        ("rsna", "stage_2_train_labels.csv", "Target", "2"),
        ("vindr", "image_labels_train.csv", "Edema", "2.0"),
        ("vindr", "annotations_train.csv", "rad_id", "R99"),
        ("vindr_pcxr", "annotations_train.csv", "class_name", "Efusion"),
    ],
)
def test_a_cell_that_is_not_understood_is_named_with_its_line_and_column(
    name: str, table: str, column: str, cell: str, tmp_path: Path
) -> None:
    root = trees.builder(name)(tmp_path)
    file = next(file for file in tables_of(root) if file.name == table)
    rows = rows_of(read(file))
    rows[3][rows[0].index(column)] = cell
    write(file, text_of(rows))
    with pytest.raises(ValueError) as error:
        datasets.index(name, root)
    assert has_facts(str(error.value), table, "line 4") and column in str(error.value)
    assert cell in str(error.value).replace("inf", cell) and "\n" not in str(error.value)
