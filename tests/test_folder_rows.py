"""One row per image of one's own: conflicts between rows, other endings, files outside the root, patients in names."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets

REAL = os.environ.get("RIBCAGE_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="RIBCAGE_REAL_DATA names no folder of real data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "own"
    made.mkdir()
    return made


def test_class_folders_may_be_numbered(folder: Path) -> None:
    trees.images(folder, ["0_normal/a.png", "1_bacterial/b.png", "2_TB/c.png"])
    found = datasets.index("folder", folder)
    assert found.findings == ("Tuberculosis", "bacterial")
    assert found.labels.tolist() == [[0, 0], [0, 1], [1, 0]]


# ---- several rows of one image

TWICE = ("path,patient,split,Mass,Nodule", "1.png,A,train,1,0", "1.png,B,train,1,0", "2.png,A,train,0,",
         "2.png,A,test,0,1", "3.png,C,test,1,0", "3.png,C,test,0,-1", "4.png,D,test,0,0", "4.png,D,test,0,0")  # fmt: skip


def test_all_conflicts_are_named_at_once_with_what_differs_and_the_option(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\b3 images") as error:
        trees.read_table(folder, *TWICE)
    for fact in ("1 in patient", "1 in split", "1 in label Mass", "2 in label Nodule", "1.png", "3.png", "--conflicts"):
        assert fact in str(error.value)
    assert "boxes" not in str(error.value)


def test_ways_on_from_conflicts(folder: Path) -> None:
    assert trees.read_table(folder, *TWICE, conflicts="drop").table["path"].tolist() == ["4.png"]
    assert trees.read_table(folder, *TWICE, conflicts="first").table["patient"].tolist() == ["A", "A", "C", "D"]
    with pytest.raises(ValueError, match="1 in patient"):
        trees.read_table(folder, *TWICE, conflicts="merge")
    lines = ("path,label", "1.png,Mass", "1.png,Nodule", "2.png,Normal", "2.png,Mass")
    merged = trees.read_table(folder, *lines, conflicts="merge")
    np.testing.assert_array_equal(merged.labels, [[1, 1], [1, 0]])


def test_rows_that_differ_in_other_columns_only_are_no_conflict(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(trees.read_table(folder, "path,Mass,station", "1.png,1,a", "1.png,1,b")) == 1
    assert has_facts(caplog.text, "1 image", "first")
    with pytest.raises(ValueError, match="--boxes"):
        trees.read_table(folder, "path,Mass,x,y,width,height", "1.png,1,1,1,2,2", "1.png,1,5,5,2,2")


# ---- files


def test_another_ending_is_tried_and_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, ["images/1.jpg", "images/2.jpg"])
    found = trees.read_table(folder, "path,Mass", "1.png,1", "2.png,0")
    assert found.table["path"].tolist() == ["images/1.jpg", "images/2.jpg"]
    assert has_facts(caplog.text, "extension", 2)


def test_files_outside_the_root_are_refused_unless_allowed(folder: Path) -> None:
    trees.image(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "deep").symlink_to(folder.parent)
    paths = ("../secret.png", str(folder.parent / "secret.png"), "link.png", "deep/secret.png", "x/../../secret.png")
    for path in paths:
        with pytest.raises(ValueError, match=r"1 of 1 file .*outside"):
            trees.read_table(folder, "path,Mass", f"{path},1")
    assert len(trees.read_table(folder, "path,Mass", *(f"{path},1" for path in paths[2:4]), allow_outside=True)) == 2
    (folder / "a.csv").unlink()
    with pytest.raises(ValueError, match="outside"):
        datasets.index("folder", folder)


def test_links_that_stay_inside_are_read(folder: Path) -> None:
    trees.images(folder, ["images/1.png"])
    (folder / "2.png").symlink_to("images/1.png")
    assert len(trees.read_table(folder, "path,Mass", "2.png,1")) == 1


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["person1_bacteria_1.jpeg", "person1_virus_2.jpeg", "person2_virus_3.jpeg", "IM-0001.jpeg"], 2),
        (["00000001_000.png", "00000001_001.png", "00000002_000.png"], 2),
        (["p01/a.png", "p01/b.png", "p02/a.png"], 2),
    ],
)
def test_patients_in_names_are_proposed(
    folder: Path, names: list[str], count: int, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(folder, names)
    datasets.index("folder", folder)
    text = next(text for text in caplog.messages if "--patient-pattern" in text)
    assert f"finds {count} patients" in text
    pattern = text.partition("--patient-pattern '")[2].partition("'")[0]
    assert (
        datasets.index("folder", folder, patient_pattern=pattern).table["patient"].nunique() - ("IM" in str(names))
        == count
    )


def test_no_patient_is_proposed_where_names_tell_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, [f"scan-{place}.png" for place in range(5)])
    datasets.index("folder", folder)
    assert not re.search(r"finds \d+ patients", caplog.text)


# ---- on the real thing


@real
def test_a_real_manifest_is_understood(caplog: pytest.LogCaptureFixture) -> None:
    found = datasets.index("folder", Path(str(REAL)) / "lungs")
    assert found.findings == ("COVID_19", "ARDS") and found.table["ARDS"].sum() == 4
    assert found.table["COVID_19"].sum() == 227 and found.table["view"].value_counts()["AP"] == 111
    nih = datasets.index("folder", Path(str(REAL)) / "nih", csv="manifest.csv", split_column="arnoweng_split")
    assert sum(nih.file(row).is_file() for row in range(len(nih))) == 1299
    odd = datasets.index("folder", Path(str(REAL)) / "odd")
    assert len(odd) == 32 and "44 CT " in caplog.text
