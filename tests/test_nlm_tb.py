"""Shenzhen and Montgomery: labels from file names, sex and age from readings of several forms, masks by name."""

from pathlib import Path

import pytest
import trees

from ribcage.data import datasets


def test_images_of_both_hospitals_are_read_and_masks_are_no_images(tmp_path: Path) -> None:
    found = datasets.index("nlm_tb", trees.nlm_tb(tmp_path / "结核 TB"))
    assert len(found) == 24 and not found.table["path"].str.contains("ask").any()
    assert found.table["hospital"].value_counts().to_dict() == {"Shenzhen": 12, "Montgomery": 12}
    assert (found.table["view"] == "PA").all()
    assert found.table["Tuberculosis"].tolist() == found.table["path"].str[-5].astype(float).tolist()


def test_sex_age_and_reading_in_all_their_forms(tmp_path: Path) -> None:
    found = datasets.index("nlm_tb", trees.nlm_tb(tmp_path))
    table, readings = found.table, found.reports["impression"].tolist()
    shenzhen, montgomery = table.iloc[:4], table.iloc[12:16]
    assert shenzhen["sex"].tolist() == ["M", "F", "M", "F"]
    assert shenzhen["age"].tolist() == pytest.approx([45, 32, 16 / 12, 28])
    assert readings[3] == "bilateral secondary PTB 1. right upper field"
    assert montgomery["sex"].tolist() == ["F", "", "M", "M"]
    assert montgomery["age"].tolist() == [27, 5, 49, 49]
    assert readings[12] == "normal" and len(readings) == 24


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        ("female24yrs\nnormal", "F", 24),
        ("female 64days\nnormal", "F", 64 / 365.25),
        ("male , 29yrs  \t\nPTB", "M", 29),
        ("fibrosis of 3 lobes", "", None),
        ("\ufffe\x00", "", None),
        ("", "", None),
    ],
)
def test_first_lines_of_a_reading(tmp_path: Path, text: str, sex: str, age: float | None) -> None:
    trees.image(tmp_path / "CHNCXR_0001_1.png")
    trees.text(tmp_path / "CHNCXR_0001_1.txt", text)
    row = datasets.index("nlm_tb", tmp_path).table.iloc[0]
    assert row["sex"] == sex and row["age"] == pytest.approx(float("nan") if age is None else age, nan_ok=True)


def test_a_reading_that_names_another_image_is_of_the_same_patient(tmp_path: Path) -> None:
    table = datasets.index("nlm_tb", trees.nlm_tb(tmp_path), hospital="montgomery").table
    assert len(table) == 12
    assert table["patient"].iloc[2:5].tolist() == ["MCUCXR_0003", "MCUCXR_0003", "MCUCXR_0005"]
    assert table.groupby("patient")["split"].nunique().max() == 1


def test_of_two_copies_one_is_read_and_a_missing_reading_is_unknown(tmp_path: Path) -> None:
    for place in ("CXR_png", "copy/CXR_png"):
        trees.image(tmp_path / place / "CHNCXR_0001_1.png")
    found = datasets.index("nlm_tb", tmp_path)
    table = found.table
    assert table["path"].tolist() == ["CXR_png/CHNCXR_0001_1.png"] and table["sex"].tolist() == [""]
    assert not len(found.reports) and table["age"].isna().all()
    with pytest.raises(FileNotFoundError, match=r"MCUCXR_\*\.png"):
        datasets.index("nlm_tb", tmp_path, hospital="montgomery")


def test_masks_have_the_names_of_the_images(tmp_path: Path) -> None:
    found = datasets.index("nlm_tb", trees.nlm_tb(tmp_path))
    masks = found.masks.assign(hospital=found.table["hospital"][found.masks["row"]].to_numpy())
    counts = masks.groupby(["hospital", "structure"]).size().to_dict()
    assert counts == {("Montgomery", "Left_Lung"): 12, ("Montgomery", "Right_Lung"): 12, ("Shenzhen", "Lungs"): 1}
    assert all(Path(file).stem.startswith(Path(found.table["path"][row]).stem) for row, file in
               zip(masks["row"], masks["file"], strict=True))  # fmt: skip
    assert len(datasets.index("nlm_tb", tmp_path, hospital="montgomery").masks) == 24
