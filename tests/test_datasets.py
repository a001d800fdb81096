"""What every dataset promises: a valid Index from the layout its makers ship, in the same order on any file system."""

import functools
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets
from ribcage.data.index import Index

# Other layouts of the same sets, beside the one in TREES.
LAYOUTS = [
    *((name, name, build) for name in datasets.dataset_names() if (build := trees.builder(name))),
    ("chexpert in batches", "chexpert", trees.chexpert_batches),
    (
        "chexpert's first batch",
        "chexpert",
        lambda folder: trees.chexpert_batches(folder) / "CheXpert-v1.0 batch 1 (validate & csv)",
    ),
    ("chexpert itself", "chexpert", lambda folder: trees.chexpert(folder) / "CheXpert-v1.0-small"),
    ("chexpert with readers", "chexpert", trees.chexpert_readers),
    ("rsna with LoVT", "rsna", lambda folder: trees.lovt(trees.rsna(folder))),
    ("chestmnist", "medmnist", lambda folder: trees.medmnist(folder, "chestmnist_64.npz", 64, 14)),
    ("openi from Kaggle", "openi", trees.openi_kaggle),
    ("class folders", "folder", trees.class_folders),
    ("vinbigdata", "vindr", trees.vinbigdata),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout[0])
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Name and folder; no test changes the folder."""
    _, name, build = request.param
    return name, build(tmp_path_factory.mktemp("layout") / "病人 数据 set")


@functools.cache
def index(layout: tuple[str, Path]) -> Index:
    return read(layout)


def read(layout: tuple[str, Path]) -> Index:
    return datasets.index("phantom", images=60) if layout[0] == "phantom" else datasets.index(*layout)


# ---- what every dataset promises


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_every_dataset_has_a_tree_to_be_tested_on(name: str) -> None:
    if trees.builder(name) is None:
        pytest.skip(f"{name} has no synthetic tree: its file has no example(folder), nor is it in tests/trees.py")
    assert set(trees.TREES) <= set(datasets.dataset_names())


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_a_dataset_has_a_title_a_source_and_a_licence(name: str) -> None:
    module = datasets.load_dataset(name)
    assert datasets.description(name).endswith(".") and len(datasets.description(name)) <= 120
    assert module.SOURCE and module.LICENCE
    row = next(line for line in datasets.dataset_table().splitlines() if line.startswith(f"| `{name}`"))
    assert module.SOURCE in row and module.LICENCE in row


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_options_are_keywords_with_types_defaults_and_help(name: str) -> None:
    function = datasets.load_dataset(name).index
    for option in list(inspect.signature(function).parameters.values())[1:]:
        assert option.kind is option.KEYWORD_ONLY and option.annotation is not option.empty
        assert option.default is not option.empty
        assert f"    {option.name}: " in inspect.getdoc(function).replace("\n", "\n    "), option.name


def test_an_index_is_valid_and_its_labels_are_the_four_that_exist(layout: tuple[str, Path]) -> None:
    found = index(layout)
    assert len(found) and found.findings
    assert set(np.unique(found.labels[~np.isnan(found.labels)])) <= {1, 0, -1}
    assert (found.labels == 1).any()
    assert found.table["path"].is_unique
    assert found.table["age"].dropna().between(0, 120).all()


def test_no_patient_is_in_two_parts_of_a_split(layout: tuple[str, Path]) -> None:
    table = index(layout).table
    known = table[(table["patient"] != "") & (table["split"] != "")]
    assert (known.groupby("patient")["split"].nunique() == 1).all()
    for name in [name for name in table if name.startswith("split_")]:
        assert (table[table[name] != ""].groupby("patient")[name].nunique() == 1).all()


def test_every_image_is_a_file_or_is_made_by_the_dataset(layout: tuple[str, Path]) -> None:
    found = index(layout)
    read = datasets.images(layout[0], found, size=32, depth=8, no_such_option=1)
    for row in range(len(found)):
        if read is None:
            assert found.file(row).is_file(), found.file(row)
        elif row % 10 == 0:
            pixels = getattr(read(row), "pixels", read(row))
            assert pixels.ndim == 2 and pixels.dtype == np.uint8


def test_boxes_lie_inside_the_frame_and_belong_to_known_findings(layout: tuple[str, Path]) -> None:
    found = index(layout)
    boxes = found.boxes
    if len(boxes):
        width, height = found.box_frame or (trees.SIDE, trees.SIDE)  # None: pixels of the image itself
        assert (boxes[["x", "y"]] >= 0).all(axis=None) and (boxes[["width", "height"]] > 0).all(axis=None)
        assert (boxes["x"] + boxes["width"]).max() <= width
        assert (boxes["y"] + boxes["height"]).max() <= height
        assert set(boxes["finding"]) <= set(found.findings)
    assert len(boxes) or layout[0] not in ("nih", "rsna", "vindr", "ms_cxr", "object_cxr", "vindr_pcxr")


class Backwards:
    """os.scandir with its entries in the opposite order."""

    def __init__(self, path: str | Path) -> None:
        with SCAN(path) as entries:
            self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self.entries)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self.entries)

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


SCAN = os.scandir


def test_the_order_of_rows_does_not_depend_on_the_file_system(
    layout: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index(layout)
    monkeypatch.setattr(os, "scandir", Backwards)
    again = read(layout)
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.boxes, again.boxes)
    pd.testing.assert_frame_equal(first.readings, again.readings)
    pd.testing.assert_frame_equal(first.reports, again.reports)


def test_an_index_survives_its_file(layout: tuple[str, Path], tmp_path: Path) -> None:
    found = index(layout)
    found.save(tmp_path / "index.parquet")
    again = Index.load(tmp_path / "index.parquet")
    assert again.findings == found.findings and again.root == found.root
    pd.testing.assert_frame_equal(again.table, found.table, check_dtype=False)
    again.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "index.parquet").read_bytes()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("nih", ("Data_Entry_2017_v2020.csv",)),
        ("chexpert", ("train.csv", "valid.csv")),
        (
            "mimic",
            tuple(f"mimic-cxr-2.0.0-{part}.csv.gz" for part in ("metadata", "split", "chexpert")),
        ),
        ("rsna", ("stage_2_train_labels.csv",)),
        ("medmnist", ("pneumoniamnist*.npz",)),
        ("folder", ("no images",)),
    ],
)
def test_all_missing_files_are_named_in_one_line_with_where_to_get_them(
    name: str, missing: tuple[str, ...], folder: Path
) -> None:
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as error:
        datasets.index(name, folder)
    assert has_facts(str(error.value), str(folder), *missing) and "\n" not in str(error.value)
    assert name == "folder" or datasets.load_dataset(name).SOURCE in str(error.value)
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        datasets.index(name, folder / "no-such-folder")


def test_an_unknown_dataset_is_one_line_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'chexprt'.* 'chexpert'\?") as error:
        datasets.load_dataset("chexprt")
    assert has_facts(str(error.value), *datasets.dataset_names()) and "\n" not in str(error.value)


def test_all_wrong_options_are_named_at_once(folder: Path) -> None:
    with pytest.raises(ValueError) as error:
        datasets.index("nih", trees.nih(folder), splitt="official", images="images", split="oficial")
    assert has_facts(str(error.value), "'splitt'", "'split'")
    assert "no split 'oficial', only 'auto', 'official'" in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b'path,Mass\n"1.png,0\n', b"path,Mass\n1.png,0,3,4\n2.png\n", b"\xff\xfe\x00"]
)
def test_a_damaged_table_is_one_line(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "a.csv").write_bytes(content)
    with pytest.raises(ValueError) as error:
        datasets.index("folder", folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not gzip at all", b"\x1f\x8b\x08\x00\x00"])
def test_a_damaged_official_table_is_one_line(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "Data_Entry_2017.csv.gz").write_bytes(content)
    with pytest.raises((ValueError, OSError)) as error:
        datasets.index("nih", folder)
    assert "\n" not in str(error.value) and "Data_Entry_2017" in str(error.value)


def test_an_official_table_without_its_columns_names_them_all(folder: Path) -> None:
    trees.text(folder / "stage_2_train_labels.csv", "patientId,x,y", "a,1,2")
    with pytest.raises(ValueError, match=r"stage_2_train_labels\.csv .*width.* height.* Target"):
        datasets.index("rsna", folder)


# ---- what was once taken wrongly


def test_a_made_up_set_takes_no_root_and_depends_on_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'phantom' .*'/nowhere'"):
        datasets.index("phantom", "/nowhere")
    first = datasets.index("phantom", images=3)
    folder.mkdir()
    monkeypatch.chdir(folder)
    again = datasets.index("phantom", images=3)
    assert first.root == again.root == Path() and first.table.equals(again.table)
